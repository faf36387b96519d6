"""From an entry to numbers, a picture and verdicts: its function is called, its trainings are run where it has some."""

from __future__ import annotations

import importlib
import inspect
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from dlrun.errors import ConfigError
from dlrun.glossary.entry import Entry, Trainings
from dlrun.glossary.figures import png
from dlrun.glossary.record import PICTURE, Record
from dlrun.run import Run, train
from dlrun.runs.files import write_atomically

Arms = Mapping[str, list[Run]]  # the runs of each arm, by seed


@dataclass(frozen=True)
class Measured:
    """What a measurement gives: numbers by name, which the claims' conditions are about, and a picture."""

    numbers: Mapping[str, float]
    figure: Figure


def measure(entry: Entry, folder: Path) -> Record:
    """Measure what the entry's claims are about, judge them, and write result.json and plot.png.

    Args:
        folder: of the entry alone; the run directories of its trainings are in its `runs`; older ones are replaced.

    Raises: ConfigError if the measurement cannot be found or does not give a number that a claim is about.
    """
    began = time.perf_counter()
    measured = numbers_and_figure(entry, folder / "runs")
    numbers = {name: float(value) for name, value in measured.numbers.items()}
    missing = [item.name for claim in entry.claims for item in claim.conditions if item.name not in numbers]
    if missing:
        raise ConfigError(
            f"glossary/{entry.name}.yaml: {entry.measure} measures no '{missing[0]}', only {', '.join(numbers)}."
        )
    record = Record.of(entry, numbers, time.perf_counter() - began)
    folder.mkdir(parents=True, exist_ok=True)
    picture = png(measured.figure)
    write_atomically(folder / PICTURE, lambda file: _write(picture, file))
    record.write(folder)
    return record


def numbers_and_figure(entry: Entry, runs_folder: Path) -> Measured:
    """Call the entry's function, on one thread and with generators of its own, for the same bits each time."""
    function = _function(entry)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            if entry.runs is None:
                return _checked(function(), entry)
            return _checked(function(runs=train_arms(entry.runs, runs_folder, entry.config_dir)), entry)
    finally:
        torch.set_num_threads(threads)


def train_arms(trainings: Trainings, folder: Path, config_dir: str | None = None) -> Arms:
    """Train every arm with every seed, one after the other, each into a run directory of its own."""
    shutil.rmtree(folder, ignore_errors=True)
    fixed = ["trainer.device=cpu", "trainer.threads=1", *trainings.common]
    return {
        name: [
            train(
                [*fixed, *words, f"seed={seed}", f"hydra.run.dir={folder / f'{name}-{seed}'}"],
                config_dir=config_dir,
                quiet=True,
            )
            for seed in range(trainings.seeds)
        ]
        for name, words in trainings.arms.items()
    }


def _function(entry: Entry) -> Callable[..., Any]:
    where = f"glossary/{entry.name}.yaml"
    function = function_named(entry.measure, where)
    asks = "runs" in inspect.signature(function).parameters
    if asks != (entry.runs is not None):
        what = "asks for runs, and the entry has none" if asks else "takes no runs, and the entry has some"
        raise ConfigError(f"{where}: {entry.measure} {what}.")
    return function


def function_named(dotted: str, where: str) -> Callable[..., Any]:
    """The function of a dotted name. Raises: ConfigError, which says `where` it is named."""
    module, _, name = dotted.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{where}: measure={dotted} cannot be found: {error}.") from None


def _checked(measured: Any, entry: Entry) -> Measured:
    if not isinstance(measured, Measured):
        raise ConfigError(f"glossary/{entry.name}.yaml: {entry.measure} must give Measured, got {type(measured)}.")
    return measured


def _write(content: bytes, file: Any) -> None:
    file.write(content)
