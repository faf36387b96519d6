"""The run directory: what is where, how it is begun, and how a run is found again."""

import fcntl
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from dlrun.errors import UsageError, did_you_mean
from dlrun.runs.files import write_json, write_text
from dlrun.runs.metrics_log import read_metrics
from dlrun.yaml_text import yaml_text

RUNS = Path("outputs/runs")
SWEEPS = Path("outputs/sweeps")
STUDIES = Path("outputs/tune")


class RunDirectory:
    """Names of the files in one run's directory; see docs/architecture.md for what each holds."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.config = self.path / "config.yaml"
        self.provenance = self.path / "provenance.json"
        self.metrics = self.path / "metrics.jsonl"
        self.summary = self.path / "summary.json"
        self.checkpoints = self.path / "checkpoints"
        self.last = self.checkpoints / "last.pt"
        self.previous = self.checkpoints / "previous.pt"
        self.best = self.checkpoints / "best.pt"
        self.plots = self.path / "plots"
        self.log = self.path / "train.log"
        self.traceback = self.path / "traceback.txt"

    def create(self, config: Mapping[str, Any], provenance: Mapping[str, Any], hydra_files: Mapping[str, str]) -> None:
        """Begin a run: its configuration, provenance and Hydra's own files.

        Raises: UsageError if the directory already holds a run.
        """
        if self.config.exists():
            raise UsageError(f"hydra.run.dir={self.path} already holds a run; choose another, or: dlrun resume {self}.")
        is_new = not self.path.exists()

        try:
            for folder in (self.checkpoints, self.plots, self.path / ".hydra"):
                folder.mkdir(parents=True, exist_ok=True)
            for name, text in hydra_files.items():
                write_text(self.path / ".hydra" / name, text, durable=False)
            write_json(self.provenance, provenance)
            # Last: its presence says that the directory is a run.
            write_text(self.config, yaml_text(config))
        except OSError as error:
            if is_new:
                shutil.rmtree(self.path, ignore_errors=True)  # half a run is in the way of the next
            raise UsageError(f"hydra.run.dir={self.path} cannot be written: {error.strerror or error}.") from None

    def read_config(self) -> dict[str, Any]:
        """The resolved configuration, as plain dictionaries."""
        from omegaconf import OmegaConf

        try:
            config = OmegaConf.to_container(OmegaConf.load(self.config), resolve=True)
        except Exception as error:
            raise UsageError(f"{self.config} cannot be read: {' '.join(str(error).split())}.") from None
        assert isinstance(config, dict)
        return {str(key): value for key, value in config.items()}

    def read_json(self, path: Path) -> dict[str, Any]:
        """The content of summary.json or provenance.json; empty if the run never came to write it."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError):
            return {}
        return dict(content)

    def read_metrics(self) -> list[dict[str, Any]]:
        return read_metrics(self.metrics) if self.metrics.exists() else []

    @contextmanager
    def logged(self) -> Iterator[logging.Handler]:
        """Send the logger "dlrun" to train.log meanwhile. Yields: what writes it."""
        handler = _LogFile(self.log, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        logger = logging.getLogger("dlrun")
        logger.setLevel(logging.INFO)
        logger.disabled = False  # as logging.config.dictConfig, called anywhere, leaves every logger it does not know
        logger.addHandler(handler)
        try:
            yield handler
        finally:
            # A closed handler that is still attached opens its file again: the next run of a sweep would log here too.
            logger.removeHandler(handler)
            with suppress(OSError):
                handler.close()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training the same run; the lock goes when the process does, however it ends.

        Raises: UsageError if another process holds it.
        """
        with (self.path / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UsageError(f"{self} is being trained by another process.") from None
            _LOCKS.append(file)
            try:
                yield
            finally:
                _LOCKS.remove(file)

    def __str__(self) -> str:
        """As short as can be typed: relative to the current folder when below it."""
        here = Path.cwd()
        return str(self.path.relative_to(here)) if self.path.is_relative_to(here) else str(self.path)


_LOCKS: list[TextIO] = []


def _let_go() -> None:
    """In a forked process, such as loads data: it may outlive the one that trains, and would keep the run locked."""
    while _LOCKS:
        _LOCKS.pop().close()


os.register_at_fork(after_in_child=_let_go)


class _LogFile(logging.FileHandler):
    """A log that cannot be written, on a full disk, neither stops the run nor fills the screen with tracebacks."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Drop the record."""


def is_run(path: Path) -> bool:
    """Whether `path` is the directory of a run."""
    return (path / "config.yaml").is_file() and (path / "provenance.json").is_file()


def all_runs() -> list[Path]:
    """Every run below outputs/, oldest first."""
    places = [*RUNS.glob("*/config.yaml"), *SWEEPS.glob("*/*/config.yaml"), *STUDIES.glob("*/*/*/config.yaml")]
    found = [path.parent for path in places]
    return sorted(filter(is_run, found), key=lambda path: (path / "provenance.json").stat().st_mtime)


def find_run(word: str) -> RunDirectory:
    """The run that `word` names: a path, a run id (or its beginning), or `last`.

    Raises: UsageError if there is none, or several.
    """
    path = Path(word).expanduser()
    if is_run(path):
        return RunDirectory(path)
    if path.is_dir():
        raise UsageError(f"{word} is not a run: it has no config.yaml and provenance.json.")
    runs = all_runs()
    if word == "last":
        if not runs:
            raise UsageError(f"there is no run yet below {RUNS.absolute()}; begin one: dlrun train.")
        return RunDirectory(runs[-1])
    ids = {run: str(RunDirectory(run).read_json(run / "provenance.json").get("run_id", "")) for run in runs}
    matches = [
        run for run in runs if run.name == word or (re.fullmatch("[0-9a-f]{4,}", word) and ids[run].startswith(word))
    ]
    if len(matches) == 1:
        return RunDirectory(matches[0])
    if matches:
        listed = ", ".join(str(RunDirectory(run)) for run in matches)
        raise UsageError(f"'{word}' names {len(matches)} runs ({listed}); give the path of one.")
    near = did_you_mean(word, [*(run.name for run in runs), *ids.values()])
    raise UsageError(f"there is no run '{word}': give a path, a run id or 'last'.{near}")
