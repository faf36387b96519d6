"""From runs to numbers, a picture and verdicts: the function that a reproduction names is called."""

from __future__ import annotations

import inspect
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from dlrun.errors import ConfigError
from dlrun.glossary.claims import placeholders
from dlrun.glossary.figures import png
from dlrun.glossary.measure import Measured, function_named
from dlrun.reproduction.entry import Reproduction
from dlrun.reproduction.jobs import Budget, machine_of, train_arms
from dlrun.reproduction.page import write_report
from dlrun.reproduction.record import PICTURE, Outcome, lacks
from dlrun.run import Run
from dlrun.runs.directory import RunDirectory
from dlrun.runs.files import write_atomically
from dlrun.sweeps.jobs import Job
from dlrun.sweeps.running import View


def reproduce(made: Reproduction, jobs: Sequence[Job], outputs: Path, budget: Budget, view: View) -> Outcome:
    """Train, measure, judge, and write result.json, plot.png and report.html into a folder of its own.

    Args:
        jobs: of `jobs_of`.

    Raises: ConfigError if the function cannot be found or does not give a number that a claim is about; as
        `train_arms`.
    """
    folder, began = outputs / made.name, time.perf_counter()
    folders = train_arms(made, jobs, folder / "runs", budget, view)
    measured = numbers_and_figure(made, folders, budget.is_full)
    numbers = {name: float(value) for name, value in measured.numbers.items()}
    for claim in made.claims:
        missing = [item.name for item in claim.conditions if item.name not in numbers]
        if missing and not lacks(made.needs.get(claim.id, ()), budget):
            raise ConfigError(f"reproduce/{made.name}.yaml: {made.measure} measures no '{missing[0]}'.")
    shown = [name for note in made.notes for name in placeholders(note["en"]) if name not in numbers]
    if shown:
        raise ConfigError(f"reproduce/{made.name}.yaml, notes: {made.measure} measures no '{shown[0]}'.")
    outcome = Outcome.of(made, budget, numbers, time.perf_counter() - began, machine_of(folders))
    folder.mkdir(parents=True, exist_ok=True)
    picture = png(measured.figure)
    write_atomically(folder / PICTURE, lambda file: _discard(file.write(picture)))
    outcome.write(folder)
    write_report([outcome], folder)
    return outcome


def numbers_and_figure(
    made: Reproduction, folders: Mapping[str, Sequence[RunDirectory]], full: bool = True
) -> Measured:
    """Call the function, on one thread and with generators of its own, for the same bits each time.

    Args:
        full: whether runs are as recorded, so that what is printed is about them.
    """
    function = function_named(made.measure, f"reproduce/{made.name}.yaml")
    known: dict[str, Any] = {
        "runs": {arm: [Run(folder) for folder in each] for arm, each in folders.items()},
        "printed": made.printed,
        "full": full,
    }
    takes = inspect.signature(function).parameters
    if ("runs" in takes) != (made.runs is not None):
        what = "asks for runs, and there are none" if "runs" in takes else "takes no runs, and there are some"
        raise ConfigError(f"reproduce/{made.name}.yaml: {made.measure} {what}.")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            measured = function(**{name: value for name, value in known.items() if name in takes})
    finally:
        torch.set_num_threads(threads)
    if not isinstance(measured, Measured):
        raise ConfigError(f"reproduce/{made.name}.yaml: {made.measure} must give Measured, got {type(measured)}.")
    return measured


def _discard(_: object) -> None:
    pass
