"""dlrun resume: go on with a run that was interrupted, killed or failed, with a sweep or a search."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from dlrun.commands.offers import positional, runs
from dlrun.commands.words import take_run
from dlrun.report.painter import at_hand
from dlrun.startup import loading
from dlrun.sweeps.record import find_sweep

HELP = """\
dlrun resume RUN | SWEEP | STUDY     go on exactly where a run, a sweep of many or a search stopped, to the bit

  dlrun resume last
  dlrun resume outputs/runs/2026-11-21_10-00-00_digits-mlp-adamw_1a2b3c4d
  dlrun resume 1a2b                                  the run id, or its beginning
  dlrun resume outputs/sweeps/2026-11-21_10-00-00_5e6f7a8b       or its id, 5e6f7a8b

The last intact checkpoint is taken up; a damaged one is detected and the one before it used.
The result is that of the run that was never stopped: same weights, same metrics.jsonl.
Of a sweep, what is finished stays, what was interrupted goes on, what failed is tried again.
"""


def run(arguments: list[str]) -> int:
    """Resume a run, a sweep or a search. Returns: the exit code."""
    sweep = find_sweep(arguments[0]) if len(arguments) == 1 else None
    if sweep is not None:
        from dlrun.sweeps.asking import go_on
        from dlrun.sweeps.table import view

        return go_on(sweep, view())
    if len(arguments) == 1 and Path(arguments[0], "tune.json").is_file():
        from dlrun.tuning.sitting import resume_study

        return resume_study(Path(arguments[0]))
    directory, words = take_run(arguments, "resume", known={})
    assert not words
    with at_hand():
        with loading():
            from dlrun.experiment import exit_code, resume
        from dlrun.runs.console import Console

        return exit_code(resume(directory, Console()))


def offer(typed: Sequence[str], current: str) -> Iterator[str]:
    """What may come next, at a tab."""
    if not positional(typed):
        yield from runs(current)
