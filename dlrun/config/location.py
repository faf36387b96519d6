"""Where conf/ is: beside the package in a checkout, inside it in an installed wheel."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent
CONF = next(folder for folder in (_PACKAGE / "conf", _PACKAGE.parent / "conf") if (folder / "train.yaml").is_file())
NOT_CHOICES = ("glossary", "hydra", "reproduce")  # folders of conf/ that hold other things than what a run can choose
