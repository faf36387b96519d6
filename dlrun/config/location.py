"""Where conf/ is, and what is beside it: in a checkout beside the package, in an installed wheel inside it."""

import sys
from collections.abc import Sequence
from pathlib import Path

from dlrun.errors import ConfigError, UsageError

_PACKAGE = Path(__file__).resolve().parent.parent
CONF = next(folder for folder in (_PACKAGE / "conf", _PACKAGE.parent / "conf") if (folder / "train.yaml").is_file())
NOT_CHOICES = ("glossary", "hydra", "reproduce")  # folders of conf/ that hold other things than what a run can choose


def use_paths(folders: Sequence[Path]) -> None:
    """Let YAML files name modules in these folders, as `python -m` does for the current one."""
    for path in folders:
        if str(path) not in sys.path and path != Path(path.anchor):
            sys.path.append(str(path))


def files_of(folder: str, config_dir: str | None) -> list[Path]:
    """The YAML files of a folder of conf/, and of the one of that name in the user's own, whose modules can be named.

    Raises: UsageError if there is no `config_dir`; ConfigError if it has a file that is called as one of conf/ is.
    """
    files = sorted((CONF / folder).glob("*.yaml"))
    if config_dir is None:
        return files
    own = Path(config_dir).expanduser().resolve()
    if not own.is_dir():
        raise UsageError(f"--config-dir {config_dir}: there is no such folder.")
    use_paths([own, own.parent])
    taken = {path.name for path in files}
    for path in sorted((own / folder).glob("*.yaml")):
        if path.name in taken:
            raise ConfigError(f"{path}: dlrun has {folder}/{path.name} itself; call yours otherwise.")
        files.append(path)
    return files


def config_dir_of(path: Path) -> str | None:
    """The user's own folder that a file of `files_of` is from; None for one of conf/."""
    folder = path.resolve().parents[1]
    return None if folder == CONF else str(folder)
