"""The wheel holds all that dlrun needs, and works from an empty folder. CI installs it in an environment of its own."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from dlrun.config.location import NOT_CHOICES

ROOT = Path(__file__).parent.parent
SOURCES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "dlrun", "conf")


def run(*words: str, cwd: Path, **environment: str) -> str:
    """What a program prints; it must succeed."""
    done = subprocess.run(
        words, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from a copy so that the checkout stays as it is."""
    copy = tmp_path_factory.mktemp("sources")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy / name)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist", cwd=copy)
    (built,) = (copy / "dist").iterdir()
    return zipfile.ZipFile(built)


@pytest.fixture(scope="module")
def site(wheel: zipfile.ZipFile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel unpacked, as pip does."""
    folder = tmp_path_factory.mktemp("site")
    wheel.extractall(folder)
    return folder


def test_the_wheel_holds_every_module_and_every_yaml_and_nothing_else(wheel: zipfile.ZipFile):
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "dlrun").rglob("*.py")}
    choices = {f"dlrun/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "conf").rglob("*.yaml")}
    held = {name for name in wheel.namelist() if ".dist-info/" not in name and not name.endswith("/")}
    assert held == modules | choices
    assert "dlrun/conf/train.yaml" in held


def test_the_wheel_names_its_script_licence_and_extras(wheel: zipfile.ZipFile):
    files = {name.rpartition("/")[2]: name for name in wheel.namelist() if ".dist-info/" in name}
    assert "dlrun = dlrun.cli:main" in wheel.read(files["entry_points.txt"]).decode()
    metadata = wheel.read(files["METADATA"]).decode()
    assert "License-Expression: MIT" in metadata
    assert "LICENSE" in files
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {"bleu", "tensorboard", "dev"} <= set(extras)
    assert {line for line in metadata.splitlines() if line.startswith("Provides-Extra")} == {
        f"Provides-Extra: {name.replace('_', '-')}" for name in extras
    }


def test_the_wheel_reads_its_own_conf_from_an_empty_folder(site: Path, tmp_path: Path):
    where = "import dlrun.config.location as l; print(l.CONF)"
    assert run(sys.executable, "-c", where, cwd=tmp_path, PYTHONPATH=str(site)).strip() == str(site / "dlrun" / "conf")
    listed = run(sys.executable, "-m", "dlrun", "list", cwd=tmp_path, PYTHONPATH=str(site))
    folders = (path for path in (ROOT / "conf").iterdir() if path.is_dir() and any(path.glob("[!_]*.yaml")))
    for group in (folder.name for folder in folders if folder.name not in NOT_CHOICES):
        assert group in listed
    config = run(sys.executable, "-m", "dlrun", "train", "--cfg", "job", cwd=tmp_path, PYTHONPATH=str(site))
    assert "_target_: dlrun.data.embedded.digits" in config
    assert not any(tmp_path.iterdir())


def test_the_wheel_trains_from_an_empty_folder(site: Path, tmp_path: Path):
    words = ("data=moons", "trainer.max_steps=5", "trainer.device=cpu")
    run(sys.executable, "-m", "dlrun", "train", *words, cwd=tmp_path, PYTHONPATH=str(site))
    (run_directory,) = (tmp_path / "outputs" / "runs").iterdir()
    assert (run_directory / "plots" / "curves.png").stat().st_size > 0
