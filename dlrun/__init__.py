"""dlrun: a command-line experiment runner for deep learning.

From Python:

    run = dlrun.train(["data=mnist", "optimizer=adamw"])
    run.metrics["test/accuracy"], run.history["val/loss"], run.model
    run = dlrun.load("last")
    runs = dlrun.sweep(["optimizer=sgd,adamw", "seed=range(3)"])
    table = dlrun.compare("outputs/sweeps/NAME", where=["optimizer.lr<0.01"])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dlrun.startup import use_huge_pages
from dlrun.version import __version__

if TYPE_CHECKING:
    from dlrun.comparison import Comparison
    from dlrun.run import Run

__all__ = ["__version__", "compare", "load", "sweep", "train"]

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


def compare(
    *runs: str,
    metric: str | Sequence[str] = (),
    by: str | None = None,
    group_by: str | Sequence[str] | None = None,
    where: str | Sequence[str] = (),
    columns: str | Sequence[str] | None = None,
) -> Comparison:
    """Recorded runs side by side, best first, as `dlrun compare` does.

    Args:
        runs: paths of runs or of folders of runs, run ids, "last"; none of them: all below outputs/.
        metric: what is shown; by default what the runs monitored, and the same on the test split.
        by: what the rows are ordered by.
        group_by: the keys that make a row; by default runs that differ only in their seed share one.
        where: conditions such as "optimizer.lr<0.01".
        columns: the settings and facts to show, in place of those that differ.

    Returns: with .rows, .to_dicts(), .to_frame(), .versus(1, 2), .plot().
    Raises: dlrun.errors.DlrunError with the sentence that the command would print.
    """
    from dlrun.comparison import compare as compare_runs

    return compare_runs(runs, metric=metric, by=by, group_by=group_by, where=where, columns=columns)
