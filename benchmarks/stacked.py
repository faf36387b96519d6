"""Runs trained as one stack against the same runs one after another, and in two processes.

    python benchmarks/stacked.py [--rounds 3] [--only CASE …] [--members 4 16 64]

Whole runs are timed, from assembling to summary.json, in processes that have been warm for long, by one thread each:
data, model, steps, validations, test and checkpoints, but no curves, which another process draws. All runs of a case
differ in seed and learning rate.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import multiprocessing
import shutil
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import measuring
import torch

from dlrun import experiment, session
from dlrun.config.compose import Composed, compose
from dlrun.runs.console import Console, Quiet
from dlrun.stacked.train import train_stack

RESULT = measuring.RESULTS / "stacked.json"
STEPS = ["trainer.max_steps=200", "trainer.eval_every=100", "trainer.device=cpu", "trainer.threads=1"]
CASES: dict[str, list[str]] = {
    "digits, MLP 64-32-10, batch 32": ["data=digits", "model.widths=[32]", "data.batch_size=32"],
    "digits, MLP 64-32-10, batch 128": ["data=digits", "model.widths=[32]", "data.batch_size=128"],
    "digits, MLP 64-256-128-10, batch 32": ["data=digits", "data.batch_size=32"],
    "digits, MLP 64-256-128-10, batch 64": ["data=digits"],
    "digits, CNN 8-16, batch 32": ["data=digits", "model=cnn", "model.channels=[8,16]", "data.batch_size=32"],
    "MNIST, MLP 784-16-10, batch 128": ["data=mnist", "model.widths=[16]"],
    "MNIST, MLP 784-128-128-128-10, batch 128": ["data=mnist", "model.widths=[128,128,128]"],
    "sequence_mean, LSTM of 16, batch 32": [
        "data=sequence_mean",
        "model=lstm",
        "model.hidden=16",
        "data.batch_size=32",
    ],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[""], help="cases whose names contain one of these")
    parser.add_argument("--members", type=int, nargs="*", default=[4, 16, 64])
    parser.add_argument("--result", type=Path, default=RESULT)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    session.drawing = lambda *arguments, **what: lambda: None  # type: ignore[attr-defined]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context, initializer=_ready) as pool:
        for name, words in CASES.items():
            if not any(part in name for part in chosen.only):
                continue
            base = compose([*words, *STEPS])
            for members in chosen.members:
                title = f"{name}, {members} runs"
                arms = measuring.compared(measuring.alternate(arms_of(base, members, pool), chosen.rounds), to="stack")
                measuring.show(title, arms, to="stack")
                measuring.write(chosen.result, {title: arms, "machine": measuring.machine()})


def arms_of(base: Composed, members: int, pool: ProcessPoolExecutor) -> dict[str, Any]:
    """The ways to train so many runs, each a function that returns the seconds it took."""
    halves = [range(0, members, 2), range(1, members, 2)]

    def in_two(kind: str) -> float:
        began = time.perf_counter()
        for half in [pool.submit(train, kind, base, list(numbers)) for numbers in halves]:
            half.result()
        return time.perf_counter() - began

    return {
        "stack": lambda: train("stack", base, list(range(members))),
        "one after another": lambda: train("one", base, list(range(members))),
        "two processes, one after another": lambda: in_two("one"),
        "two processes, a stack each": lambda: in_two("stack"),
    }


def train(kind: str, base: Composed, numbers: list[int]) -> float:
    """Train the runs with these numbers. Returns: seconds."""
    folder = Path(tempfile.mkdtemp(prefix="dlrun-stacked-"))
    runs = []
    for number in numbers:
        config = copy.deepcopy(base.config)
        config["seed"], config["optimizer"]["lr"] = number, 1e-4 * 1.1 ** (number % 32)
        runs.append(dataclasses.replace(base, config=config, run_dir=folder / str(number)))
    consoles = [Console(view=Quiet()) for _ in runs]
    began = time.perf_counter()
    if kind == "stack":
        train_stack(runs, consoles)
    else:
        for run, console in zip(runs, consoles, strict=True):
            experiment.train(run, console)
    seconds = time.perf_counter() - began
    shutil.rmtree(folder)
    return seconds


def _ready() -> None:
    """What a process of the pool does first."""
    torch.set_num_threads(1)
    session.drawing = lambda *arguments, **what: lambda: None  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
