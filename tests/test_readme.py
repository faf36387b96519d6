"""What README.md tells people to copy works: its files are written, its commands run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dlrun.commands.train import parse_arguments
from dlrun.config.compose import compose
from dlrun.config.sweep import sweep_words
from dlrun.errors import ConfigError

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
QUICK = ["trainer.epochs=2", "trainer.device=cpu"]


def dlrun(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dlrun", *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of the section on parts of one's own: blocks below their path."""
    folder = tmp_path_factory.mktemp("reader")
    for name, text in re.findall(r"^`(mine/\S+)`:\n\n```\w+\n(.*?)^```$", README, re.MULTILINE | re.DOTALL):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def test_parts_of_the_readers_own_train_together(folder: Path):
    written = {path.relative_to(folder).as_posix() for path in folder.glob("mine/**/*.*")}
    assert written == {"mine/parts.py", "mine/data/rings.yaml", "mine/model/gated.yaml", "mine/optimizer/signsgd.yaml"}
    words = ("--config-dir", "mine", "data=rings", "model=gated", "optimizer=signsgd")
    assert f"dlrun train {' '.join(words)}\n" in README
    done = dlrun("train", *words, *QUICK, cwd=folder)
    assert done.returncode == 0, done.stderr
    (run,) = (folder / "outputs" / "runs").iterdir()
    assert "rings-gated-signsgd" in run.name
    # A recorded run finds the reader's module again.
    again = dlrun("evaluate", "last", cwd=folder)
    assert again.returncode == 0, again.stderr
    assert "test/accuracy" in again.stdout


def test_a_wrong_value_for_a_part_of_the_readers_own_is_refused(folder: Path):
    done = dlrun("train", "--config-dir", "mine", "model=gated", "model.width=0", cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert "model.width" in done.stderr
    assert ">= 1" in done.stderr


def test_the_python_example_works(tmp_path: Path):
    (code,) = (text for language, text in BLOCKS if language == "python" and "import dlrun" in text)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert 0 <= float(done.stdout.split()[0]) <= 1


@pytest.mark.parametrize("line", re.findall(r"^dlrun (?:train|plan) .*$", README, re.MULTILINE))
def test_every_configuration_in_the_readme_composes(line: str, folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder)
    words = parse_arguments(line.split("#")[0].replace("'", "").split()[2:])
    settings = {"config_path": None, "config_name": None, "config_dir": words.config_dir}
    if "refused" in line:
        with pytest.raises(ConfigError):
            compose(words.overrides, **settings)
    elif words.multirun:
        assert sweep_words(words.overrides, **settings)
    else:
        assert compose(words.overrides, **settings).config["model"]


@pytest.mark.parametrize("name", re.findall(r"\]\(((?!http)[^)]+)\)", README))
def test_what_the_readme_links_to_is_there(name: str):
    assert (ROOT / name).is_file()
