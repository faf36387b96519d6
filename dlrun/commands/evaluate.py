"""dlrun evaluate: loss and metrics of a recorded run."""

from dlrun.commands.words import take_run

HELP = """\
dlrun evaluate RUN [split=test] [checkpoint=best] [device=auto]

  dlrun evaluate last
  dlrun evaluate 1a2b3c4d split=val checkpoint=last

split is train, val or test; checkpoint is best (of the validations) or last.
"""


def run(arguments: list[str]) -> int:
    """Evaluate a run and print its metrics. Returns: the exit code."""
    known = {"split": ("train", "val", "test"), "checkpoint": ("best", "last"), "device": None}
    directory, words = take_run(arguments, "evaluate", known)
    from dlrun.recorded import evaluate

    split, which = words.get("split", "test"), words.get("checkpoint", "best")
    metrics = evaluate(directory, split, which, words.get("device"))
    print(f"{directory}  ({which} weights)")
    for name, value in metrics.items():
        print(f"  {name:<16} {value:.6g}")
    return 0
