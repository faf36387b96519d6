"""dlrun evaluate: loss and metrics of a recorded run, or of several together."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from dlrun.commands.offers import DEVICES, options, positional, runs
from dlrun.commands.words import real, take_runs, whole
from dlrun.errors import UsageError
from dlrun.runs.directory import RunDirectory
from dlrun.startup import loading

if TYPE_CHECKING:
    from dlrun.evaluation import Evaluation

CELL = 12  # characters of a number in the table

HELP = """\
dlrun evaluate RUN… [OPTIONS]      loss and every metric of the task, of trained runs alone or together

  dlrun evaluate last
  dlrun evaluate 1a2b3c4d split=val checkpoint=last
  dlrun evaluate RUN RUN RUN                  an ensemble: each alone, and the mean of their predictions
  dlrun evaluate RUN checkpoint=snapshots     the snapshots of one run together
  dlrun evaluate RUN temperature=fit          probabilities scaled to suit the validation split; or a number
  dlrun evaluate RUN mc_dropout=20            the mean of so many predictions with dropout active

  split=test|val|train
  checkpoint=best|last|snapshots    best: of the validations
  temperature=fit|T, mc_dropout=N   as above
  device=auto|cpu|cuda|mps

Of one run, the numbers are kept in its evaluation.json, and a classification's pictures in plots/confusion.png and
plots/reliability.png.
"""

OPTIONS = {
    "split": ("train", "val", "test"),
    "checkpoint": ("best", "last", "snapshots"),
    "temperature": ("fit",),
    "mc_dropout": ("20",),
    "device": DEVICES,
}


def run(arguments: list[str]) -> int:
    """Evaluate runs and print their metrics. Returns: the exit code."""
    known = {**dict.fromkeys(OPTIONS), **{key: OPTIONS[key] for key in ("split", "checkpoint")}}
    runs, words = take_runs(arguments, "evaluate", known)
    twice = [str(one) for i, one in enumerate(runs) if one.path in [other.path for other in runs[:i]]]
    if twice:
        raise UsageError(f"{twice[0]} is named twice; an ensemble is of different runs.")
    fitted = words.get("temperature") == "fit"
    temperature = None if fitted else real(words, "temperature", zero=False)
    mc_dropout = whole(words, "mc_dropout", 2)
    with loading():
        from dlrun.evaluation import evaluate, keep

    split, which = words.get("split", "test"), words.get("checkpoint", "best")
    result = evaluate(
        runs, split, which, words.get("device"), temperature="fit" if fitted else temperature, mc_dropout=mc_dropout
    )
    show(result, runs, which)
    if len(runs) == 1:
        try:
            print(f"kept in {', '.join(str(RunDirectory(path)) for path in keep(result, runs[0], which))}")
        except OSError as error:
            print(f"not kept: {runs[0]} cannot be written ({error.strerror or error})")
    return 0


def offer(typed: Sequence[str], current: str) -> Iterator[str]:
    """What may come next, at a tab."""
    yield from options(OPTIONS, current) if positional(typed) else runs(current)


def show(result: "Evaluation", runs: Sequence[RunDirectory], which: str) -> None:
    """Print a table: metrics as rows, members as columns."""
    count = f"{result.split}: {result.examples:,} examples"
    if len(runs) == 1:
        weights = f"{len(result.columns) - 1} snapshots" if which == "snapshots" else f"{which} weights"
        print(f"{runs[0]}  ({weights}, {count})")
    else:
        print(f"{len(runs)} runs and the mean of their predictions  ({which} weights, {count})")
        for number, one in enumerate(runs, 1):
            print(f"  {number}  {one}")
    columns = [column.metrics for column in result.columns.values()]
    names = list(dict.fromkeys(name for metrics in columns for name in metrics))
    wide = max(map(len, names))
    if len(columns) > 1:
        print("  ".join(["", " " * wide, *(f"{title:>{CELL}}" for title in result.columns)]))
    for name in names:
        cells = [f"{metrics[name]:>{CELL}.6g}" if name in metrics else " " * CELL for metrics in columns]
        print("  ".join(["", f"{name:<{wide}}", *cells]).rstrip())
    for note in result.notes:
        print(note)
