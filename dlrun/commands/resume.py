"""dlrun resume: go on with a run that was interrupted, killed or failed, with a sweep or a search."""

from collections.abc import Iterator, Sequence

from dlrun.commands.offers import positional, runs
from dlrun.commands.words import take_run
from dlrun.report.painter import at_hand
from dlrun.runs.directory import STUDIES
from dlrun.runs.selection import find_folder
from dlrun.startup import loading
from dlrun.sweeps.record import find_sweep

HELP = """\
dlrun resume RUN | SWEEP | SEARCH    go on exactly where a run, a sweep of many or a search stopped, to the bit

  dlrun resume last
  dlrun resume outputs/runs/2026-11-21_10-00-00_digits-mlp-adamw_1a2b3c4d
  dlrun resume 1a2b                                  the run id, or its beginning
  dlrun resume outputs/sweeps/2026-11-21_10-00-00_5e6f7a8b             of `dlrun train -m`; or its id, 5e6f7a8b
  dlrun resume outputs/tune/2026-11-21_10-00-00_mlp_digits_9c0d1e2f    of `dlrun tune`; or its id, 9c0d1e2f

The last intact checkpoint is taken up; a damaged one is detected and the one before it used.
The result is that of the run that was never stopped: same weights, same metrics.jsonl (of
runs that a sweep trains as one stack: but for rounding).
Of a sweep, what is finished stays, what was interrupted goes on, what failed is tried again.
"""


def run(arguments: list[str]) -> int:
    """Resume a run, a sweep or a search. Returns: the exit code."""
    sweep = find_sweep(arguments[0]) if len(arguments) == 1 else None
    if sweep is not None:
        from dlrun.sweeps.asking import go_on
        from dlrun.sweeps.table import view

        return go_on(sweep, view())
    search = find_folder(arguments[0], STUDIES, "tune.json") if len(arguments) == 1 else None
    if search is not None:
        from dlrun.tuning.sitting import resume_study

        return resume_study(search)
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
