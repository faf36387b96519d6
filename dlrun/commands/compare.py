"""dlrun compare: a leaderboard of recorded runs, tests between its rows, and pictures."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dlrun.commands.offers import runs
from dlrun.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from dlrun.comparison.comparison import Comparison

HELP = """\
dlrun compare                                        every run below outputs/, best first
dlrun compare outputs/sweeps/NAME --by seconds       one sweep; also runs, ids, `last`, 'outputs/runs/2026-11-2*'
dlrun compare --where data=digits --where 'lr<0.01'  the runs for which it holds: =, !=, <, <=, >, >=, ~ (text)
dlrun compare --group-by optimizer --columns optimizer,lr,seconds
dlrun compare --metric test/accuracy,test/loss --format markdown      or csv, json, latex
dlrun compare --versus 1,2                           do two rows differ by more than chance? --versus 1: all others
dlrun compare --plot                                 curves with bands over seeds, to compare.png
dlrun compare --plot lr.png --plot-by optimizer.lr   the metric against a key; a heat map for two

dlrun compare [RUN|FOLDER|SWEEP|SEARCH|PATTERN…] [OPTIONS]

  --metric NAME,…      what is shown (accuracy: of val and test); by default what the runs monitored, and it on test
  --by NAME            what the rows are ordered by: a metric, a key, seconds, parameters
  --group-by KEY,…     what makes a row; by default all but seeds and data.fold; none: each run
  --where CONDITION    may be repeated; keys may be short (lr) where only one ends so
  --columns NAME,…     in place of the keys that differ and of costs; also id, run, started, commit, device, epochs
  --limit N            rows shown (0: all; 40 in a table)
  --format FORMAT      table, markdown, csv, json or latex
  --versus ROW[,ROW]   done unasked when there are exactly two rows
  --mcnemar            with two rows: which test examples their models get right, predicted now
  --plot [FILE]  --plot-by KEY[,KEY]  --plot-x epoch|step|time
"""

LIMIT = 40
PICTURES = (".png", ".pdf", ".svg")
X = ("epoch", "step", "time")
VALUED: dict[str, Sequence[str]] = {  # with values that may be typed
    "--metric": ("accuracy", "loss"),
    "--by": ("seconds", "parameters"),
    "--group-by": ("none",),
    "--where": (),
    "--columns": (),
    "--limit": ("0",),
    "--format": ("table", "markdown", "csv", "json", "latex"),
    "--versus": ("1", "1,2"),
    "--plot-by": (),
    "--plot-x": X,
}
FLAGS = (*VALUED, "--mcnemar", "--plot")


@dataclass
class Words:
    """What was asked for."""

    runs: list[str] = field(default_factory=list)
    where: list[str] = field(default_factory=list)
    values: dict[str, str] = field(default_factory=dict)
    mcnemar: bool = False
    plot: Path | None = None

    def listed(self, option: str) -> list[str] | None:
        """The comma-separated words of an option; None where it is not given."""
        value = self.values.get(option)
        return None if value is None else [word.strip() for word in value.split(",") if word.strip()]


def run(arguments: list[str]) -> int:
    """Compare runs and print the table. Returns: the exit code."""
    words = parse(arguments)
    from dlrun.comparison import compare

    found = compare(
        words.runs,
        metric=words.listed("--metric") or (),
        by=words.values.get("--by"),
        group_by=words.listed("--group-by"),
        where=words.where,
        columns=words.listed("--columns"),
    )
    how = words.values.get("--format", "table")
    lines = _tests(found, words)
    picture = _plot(found, words)
    print(_table(found, how, _limit(words, how)))
    aside = sys.stdout if how == "table" else sys.stderr  # what another program reads holds the table alone
    if found.warnings and how == "table":
        print()
    for sentence in found.warnings:
        print(f"! {sentence}", file=aside)
    if lines:
        print("", *lines, sep="\n", file=aside)
    if picture is not None:
        print(f"drawn: {picture}", file=aside)
    found.index.save()
    return 0


def offer(typed: Sequence[str], current: str) -> Iterator[str]:
    """What may come next, at a tab."""
    offered = VALUED.get(typed[-1]) if typed else None
    yield from offered or runs(current)


def parse(arguments: list[str]) -> Words:
    """Runs and options; `--by=x` and `--by x` are the same.

    Raises: UsageError for an unknown option, one without its value, or one given twice.
    """
    words, rest = Words(), list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            words.runs.append(word)
            continue
        option, equals, value = word.partition("=")
        if option == "--plot":
            if not equals and rest and rest[0].endswith(PICTURES):
                value = rest.pop(0)
            words.plot = _picture(value or "compare.png")
        elif option == "--mcnemar" and not equals:
            words.mcnemar = True
        elif option in VALUED:
            if not equals:
                if not rest or rest[0].startswith("--"):
                    raise UsageError(f"{option} needs a value; see `dlrun compare --help`.")
                value = rest.pop(0)
            _take(words, option, value)
        else:
            near = did_you_mean(option, [*FLAGS, "--help"])
            raise UsageError(f"unknown option '{option}' of dlrun compare; see `dlrun compare --help`.{near}")
    if words.plot is None and (asked := next((one for one in ("--plot-by", "--plot-x") if one in words.values), None)):
        raise UsageError(f"{asked} says how --plot draws; add --plot, or --plot FILE.png.")
    return words


def _take(words: Words, option: str, value: str) -> None:
    if option == "--where":
        words.where.append(value)
        return
    if option in words.values:
        raise UsageError(f"{option} is given twice, as '{words.values[option]}' and '{value}'; leave one out.")
    from dlrun.comparison.formats import FORMATS

    allowed = {"--format": FORMATS, "--plot-x": X}.get(option)
    if allowed is not None and value not in allowed:
        near = did_you_mean(value, allowed)
        raise UsageError(f"{option} must be one of {', '.join(allowed)}, got '{value}'.{near}")
    parts = {"--limit": [value], "--versus": value.split(",")}.get(option, [])
    if not all(part.strip().isdecimal() for part in parts):
        kind = "a whole number >= 0" if option == "--limit" else "the number of one row, or of two with a comma"
        raise UsageError(f"{option} must be {kind}, got '{value}'.")
    words.values[option] = value


def _picture(value: str) -> Path:
    path = Path(value)
    if path.suffix not in PICTURES:
        raise UsageError(f"--plot {value}: a picture ends in {', '.join(PICTURES)}.")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"--plot {value}: there is no folder {path.parent}.")
    return path


def _limit(words: Words, how: str) -> int | None:
    given = words.values.get("--limit")
    if given is None:
        return LIMIT if how == "table" else None
    return int(given) or None


def _table(found: Comparison, how: str, limit: int | None) -> str:
    from dlrun.comparison.formats import UNLIMITED, render

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else UNLIMITED
    return render(found, how, limit=limit, width=width)


def _tests(found: Comparison, words: Words) -> list[str]:
    """The lines about whether rows differ."""
    from dlrun.comparison.formats import difference_text, differences_table

    asked = words.listed("--versus")
    numbers = [int(word) for word in asked] if asked else [1, 2] if len(found.rows) == 2 else []
    if len(numbers) > 2 or len(set(numbers)) < len(numbers):
        raise UsageError(f"--versus takes one row, or two that are not the same; got '{words.values['--versus']}'.")
    lines: list[str] = []
    if len(numbers) == 1:
        found.row(numbers[0])
        against = found.against(numbers[0])
        lines = differences_table(against) if against else ["--versus: there is no other row with the metric"]
    elif asked or (numbers and all(found.row(number).measured(found.by) for number in numbers)):
        lines = [f"row {number}: {found.label(found.row(number))}" for number in numbers]
        lines += difference_text(found.versus(numbers[0], numbers[1]))
    if words.mcnemar:
        if len(numbers) != 2:
            raise UsageError(f"--mcnemar compares two rows, and here are {len(found.rows)}; add --versus ROW,ROW.")
        lines += _mcnemar(found, numbers)
    return lines


def _mcnemar(found: Comparison, numbers: list[int]) -> list[str]:
    """McNemar's test for each two runs that share a seed, or else for the first of each."""
    from dlrun.comparison.formats import mcnemar_text
    from dlrun.comparison.significance import mcnemar
    from dlrun.startup import loading

    pairs = found.pairs(numbers[0], numbers[1])
    with loading():
        from dlrun.evaluation import answered_right
    rights = {name: answered_right([one.entry.path for one in pair]) for name, *pair in pairs}
    return mcnemar_text([mcnemar(name, *right) for name, right in rights.items()])


def _plot(found: Comparison, words: Words) -> Path | None:
    if words.plot is None:
        return None
    from dlrun.comparison.pictures import write

    figure = found.plot(words.listed("--plot-by") or (), x=words.values.get("--plot-x", "epoch"))
    try:
        write(figure, words.plot)
    except OSError as error:
        raise UsageError(f"--plot {words.plot} cannot be written: {error.strerror or error}.") from None
    return words.plot
