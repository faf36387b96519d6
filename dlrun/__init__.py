"""dlrun: a command-line experiment runner for deep learning.

From Python:

    run = dlrun.train(["data=mnist", "optimizer=adamw"])
    run.metrics["test/accuracy"], run.history["val/loss"], run.model
    run = dlrun.load("last")
    runs = dlrun.sweep(["optimizer=sgd,adamw", "seed=range(3)"])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dlrun.startup import use_huge_pages
from dlrun.version import __version__

if TYPE_CHECKING:
    from dlrun.run import Run

__all__ = ["__version__", "load", "sweep", "train"]

use_huge_pages()  # here, as torch reads it when it is loaded


def train(overrides: Sequence[str] = (), *, config_dir: str | None = None, quiet: bool = False) -> Run:
    """Train one run, as `dlrun train` does.

    Args:
        overrides: the words of the command line: ["data=mnist", "optimizer.lr=0.01"].
        config_dir: a folder with choices of your own.
        quiet: print nothing.

    Raises: dlrun.errors.DlrunError with the sentence that the command would print.
    """
    from dlrun.run import train as train_run  # torch is imported when it is needed, not with this package

    return train_run(overrides, config_dir=config_dir, quiet=quiet)


def load(run: str) -> Run:
    """A recorded run, by path, run id or "last"."""
    from dlrun.run import load as load_run

    return load_run(run)


def sweep(overrides: Sequence[str], *, config_dir: str | None = None, quiet: bool = False) -> list[Run]:
    """Train every combination, as `dlrun train -m` does: in worker processes, and only what is not done yet.

    Args:
        overrides: the words of the command line: ["optimizer=sgd,adamw", "seed=range(3)"].
        config_dir: a folder with choices of your own.
        quiet: print nothing.

    Returns: the runs in the order of the jobs, without those that failed before they could begin.
    Raises: dlrun.errors.DlrunError with the sentence that the command would print.
    """
    from dlrun.run import sweep as sweep_runs

    return sweep_runs(overrides, config_dir=config_dir, quiet=quiet)
