"""Rows of runs side by side: what a comparison holds, and what can be asked of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Any

from dlrun.comparison import fairness
from dlrun.comparison.cells import is_setting, label, telling
from dlrun.comparison.grouping import Row, pooled
from dlrun.comparison.record import Record
from dlrun.comparison.settings import REPEATS, text
from dlrun.errors import MissingExtraError, UsageError
from dlrun.runs.index import RunIndex

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from dlrun.comparison.significance import Difference


@dataclass
class Comparison:
    """Groups of runs, best first.

    Attributes:
        rows: the groups.
        columns: names of the settings and facts that are shown of each.
        metrics: names of the metrics that are shown.
        by: what the rows are ordered by.
        chosen: whether the columns were asked for; if not, seconds, parameters and status are shown beside them.
        repeats: whether runs that differ only in their seed share a row.
        warnings: what should be known before the numbers are believed, a sentence each.
    """

    rows: list[Row]
    columns: list[str]
    metrics: list[str]
    by: str
    repeats: bool = True
    chosen: bool = False
    warnings: list[str] = field(default_factory=list)
    index: RunIndex = field(default_factory=RunIndex, repr=False)

    @property
    def records(self) -> list[Record]:
        """All runs, row by row."""
        return [record for row in self.rows for record in row.records]

    def label(self, row: Row) -> str:
        """A row by the settings that tell it from the others: "optimizer=adamw lr=0.001"."""
        return label(row, telling([key for key in self.columns if is_setting(key)], self.rows)) or f"row {row.number}"

    def versus(self, first: int, second: int, metric: str | None = None, *, resample: bool = True) -> Difference:
        """Whether two rows, given by their numbers, differ in a metric by more than chance.

        Args:
            metric: by default what the rows are ordered by.
            resample: also do the permutation test and the bootstrap.

        Raises: UsageError for a row that there is not, or that has not measured it.
        """
        from dlrun.comparison.significance import difference  # loads NumPy

        name = metric or self.by
        a, b = self.row(first), self.row(second)
        apart = _apart(a, b)
        values = [row.measured(name, apart) for row in (a, b)]
        for row, known in zip((a, b), values, strict=True):
            if not known:
                side = f"row {row.number} has no {name}"
                raise UsageError(f"{side}, so there is nothing to compare; it is {fairness.ended(row)}.")
        seen = _varied(apart, [record for row in (a, b) for record in row.records])
        matched = ", ".join(seen) or "seed"
        if pooled_keys := [key for key in seen if key not in REPEATS]:
            repeats = ", ".join(key for key in seen if key in REPEATS)
            values, averaged = _averaged(values)
            matched = f"{repeats}, means over {', '.join(pooled_keys)}" if averaged else matched
        (x, y), names = values, [f"row {row.number}" for row in (a, b)]
        return difference(name, (names[0], x), (names[1], y), matched, resample=resample)

    def against(self, baseline: int, metric: str | None = None) -> list[Difference]:
        """Every other row against one, with p values adjusted for their number; by t tests alone."""
        from dlrun.comparison.significance import holm

        name = metric or self.by
        others = [row for row in self.rows if row.number != baseline and row.measured(name)]
        found = [self.versus(row.number, baseline, name, resample=False) for row in others]
        holm(found)
        return found

    def pairs(self, first: int, second: int) -> list[tuple[str, Record, Record]]:
        """Finished runs of two rows that share seed, fold and whatever a row pools, and what they share in words; or
        the first of each, if none do.
        """
        sides, rows = [], (self.row(first), self.row(second))
        apart = _apart(*rows)
        for row in rows:
            sides.append({tuple(record.raw(key) for key in apart): record for record in row.finished})
            if not sides[-1]:
                raise UsageError(f"row {row.number} has no finished run; it is {fairness.ended(row)}.")
        seen = _varied(apart, [record for row in rows for record in row.records]) or ["seed"]
        shared = [
            (" ".join(f"{key}={text(one.setting(key))}" for key in seen), one, sides[1][values])
            for values, one in sides[0].items()
            if values in sides[1]
        ]
        if shared:
            return shared
        one, two = (next(iter(side.values())) for side in sides)
        return [(f"seeds {one.raw('seed')} and {two.raw('seed')}", one, two)]

    def row(self, number: int) -> Row:
        """A row by its number. Raises: UsageError if there is none."""
        if not 1 <= number <= len(self.rows):
            raise UsageError(f"--versus: there is no row {number}; the rows are 1 to {len(self.rows)}.")
        return self.rows[number - 1]

    def to_dicts(self) -> list[dict[str, Any]]:
        """The rows as flat dictionaries: settings, then for each metric mean, std and interval, then facts."""
        from dlrun.comparison.cells import flat_rows

        return flat_rows(self)

    def to_frame(self) -> pd.DataFrame:
        """The same as a pandas DataFrame."""
        try:
            import pandas as pd
        except ImportError:
            raise MissingExtraError("Comparison.to_frame", "pandas") from None
        return pd.DataFrame(self.to_dicts())

    def plot(self, by: Sequence[str] = (), *, x: str = "epoch", metric: str | None = None) -> Figure:
        """Curves of the metric; or the metric against one key, or two. See `dlrun.comparison.pictures`."""
        from dlrun.comparison.pictures import draw

        return draw(self, by, x=x, metric=metric)

    def __str__(self) -> str:
        from dlrun.comparison.formats import render

        return render(self, "table")

    def __repr__(self) -> str:
        return f"Comparison({len(self.rows)} rows, {len(self.records)} runs, by {self.by})"

    def _repr_html_(self) -> str:
        from dlrun.comparison.formats import render

        return render(self, "html")


def _apart(a: Row, b: Row) -> list[str]:
    """What runs of two rows are matched by: what repeats differ in, and what a row pools."""
    return [*REPEATS, *(key for key in pooled([a, b]) if key not in REPEATS)]


def _varied(keys: Sequence[str], records: Sequence[Record]) -> list[str]:
    return [key for key in keys if len({record.raw(key) for record in records}) > 1]


def _averaged(sides: Sequence[Mapping[Any, float]]) -> tuple[list[dict[Any, float]], bool]:
    """Two groups, each by repeat and by what is pooled, as means by repeat of what both have; and whether it could be.

    Runs of one seed with several learning rates are no independent samples, their mean is one. With a single repeat
    there is nothing but the pairs themselves.
    """
    shared = [key for key in sides[0] if key in sides[1]]
    groups: dict[Any, list[Any]] = {}
    for key in shared:
        groups.setdefault(key[: len(REPEATS)], []).append(key)
    if len(groups) < 2:
        return [dict(side) for side in sides], False
    means = [{repeat: fmean(side[key] for key in keys) for repeat, keys in groups.items()} for side in sides]
    return means, True
