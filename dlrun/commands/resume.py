"""dlrun resume: go on with a run that was interrupted, killed or failed."""

from dlrun.commands.words import take_run
from dlrun.report.painter import at_hand
from dlrun.startup import loading

HELP = """\
dlrun resume RUN               go on exactly where a run stopped, to the bit

  dlrun resume last
  dlrun resume outputs/runs/2026-11-21_10-00-00_digits-mlp-adamw_1a2b3c4d
  dlrun resume 1a2b                                  the run id, or its beginning

The last intact checkpoint is taken up; a damaged one is detected and the one before it used.
The result is that of the run that was never stopped: same weights, same metrics.jsonl.
"""


def run(arguments: list[str]) -> int:
    """Resume a run. Returns: the exit code."""
    directory, words = take_run(arguments, "resume", known={})
    assert not words
    with at_hand():
        with loading():
            from dlrun.experiment import exit_code, resume
        from dlrun.runs.console import Console

        return exit_code(resume(directory, Console()))
