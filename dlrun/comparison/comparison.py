"""`compare`: many runs in, a leaderboard out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Any

from dlrun.comparison import fairness
from dlrun.comparison.cells import is_setting, label, telling
from dlrun.comparison.direction import higher_is_better
from dlrun.comparison.grouping import NONE, Row, make_rows, pooled, without_copies
from dlrun.comparison.record import Record, all_names, make_records, metric_names, setting_names
from dlrun.comparison.settings import REPEATS, differing, in_order, resolve, text
from dlrun.comparison.where import keep_where
from dlrun.errors import MissingExtraError, UsageError, did_you_mean
from dlrun.runs.index import RunIndex
from dlrun.runs.selection import find_runs

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from dlrun.comparison.significance import Difference

Words = str | Sequence[str]
SPLITS = ("train", "val", "test")


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


def compare(
    runs: Sequence[str] = (),
    *,
    metric: Words = (),
    by: str | None = None,
    group_by: Words | None = None,
    where: Words = (),
    columns: Words | None = None,
) -> Comparison:
    """Compare recorded runs; see `dlrun compare --help` for what the arguments do.

    Raises: UsageError for no runs, unknown names, or a condition that leaves nothing.
    """
    index = RunIndex()
    entries = index.read(find_runs(runs))
    group_by, columns = _listed(group_by), _listed(columns)
    broken = [entry for entry in entries if not entry.config]
    records = keep_where(make_records([entry for entry in entries if entry.config]), _listed(where) or ())
    if not records:
        raise UsageError(f"none of the {len(broken)} runs can be read: {broken[0].path}: {broken[0].problems[0]}.")
    repeated = 0
    if group_by != [NONE]:
        records, repeated = without_copies(records)
    metrics = _metrics(records, _listed(metric) or ())
    order = _order(by, records, metrics)
    keys = None if group_by is None else [NONE] if group_by == [NONE] else _settings(group_by, records, "--group-by")
    rows = _ranked(make_rows(records, keys), order)
    made = Comparison(
        rows, _columns(rows, records, columns, keys), metrics, order, keys != [NONE], columns is not None, index=index
    )
    made.warnings = [*_left_out(broken, records, repeated, keys, rows), *fairness.warnings(rows, metrics)]
    if len(rows) > 1 and not varied_settings(rows):
        made.warnings.insert(0, "nothing differs between the rows but the seed")
    if order.startswith("test/") and len(rows) > 1:
        made.warnings.append(f"ordered by {order}: the best row's number is too good if you choose by it; use val/")
    return made


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


def _listed(words: Words | None) -> list[str] | None:
    """Words as a list; a single text is one of them."""
    return None if words is None else [words] if isinstance(words, str) else list(words)


def _metrics(records: Sequence[Record], wanted: Sequence[str]) -> list[str]:
    """The names of the metrics to show: by default the monitored one, and the same on the test split."""
    known = metric_names(records)
    if not wanted:
        counted = Counter(name for one in records if (name := one.entry.summary.get("monitor")) is not None)
        monitor = counted.most_common(1)[0][0] if counted else None
        monitor = monitor or next((name for name in ("val/accuracy", "val/loss") if name in known), None)
        if monitor is None:
            return known[:1]
        return [name for name in (monitor, monitor.replace("val/", "test/")) if name in known] or known[:1]
    found: list[str] = []
    for word in wanted:
        splits = [f"{split}/{word}" for split in SPLITS[1:] if f"{split}/{word}" in known]
        if word in known or splits:
            found += [word] if word in known else splits
            continue
        has = f"they have {', '.join(sorted(known))}" if known else "they have measured nothing yet"
        near = did_you_mean(word, [*known, *(name.rpartition("/")[2] for name in known)])
        raise UsageError(f"--metric {word}: none of {len(records)} runs has it; {has}.{near}")
    return list(dict.fromkeys(found))


def _order(by: str | None, records: Sequence[Record], metrics: Sequence[str]) -> str:
    if by is None:
        return metrics[0] if metrics else "started"
    if f"val/{by}" in metric_names(records):  # also where a key is called so, as `loss` is
        return f"val/{by}"
    try:
        return resolve(by, all_names(records))
    except UsageError as error:
        raise UsageError(f"--by: {error}") from None


def _ranked(rows: Sequence[Row], order: str) -> list[Row]:
    """Best first: by the mean of a metric in its direction, or by a setting's value; rows without it last."""
    sign = -1 if "/" in order and higher_is_better(order) else 1

    def place(row: Row) -> tuple[Any, ...]:
        mean = row.estimate(order).mean
        text = "" if math.isfinite(mean) else str(row.shared(order))
        return (not row.finished, not math.isfinite(mean), sign * mean if math.isfinite(mean) else 0.0, text)

    ranked = sorted(rows, key=place)
    for number, row in enumerate(ranked, 1):
        row.number = number
    return ranked


def _columns(
    rows: Sequence[Row], records: Sequence[Record], wanted: Sequence[str] | None, group_by: Sequence[str] | None
) -> list[str]:
    if wanted is not None:
        known = all_names(records)
        found = []
        for word in wanted:
            try:
                found.append(resolve(word, known))
            except UsageError as error:
                raise UsageError(f"--columns: {error}") from None
        return found
    if group_by is not None and list(group_by) != [NONE]:
        return list(group_by)
    found = varied_settings(rows)
    if group_by is None:
        found = [key for key in found if key not in REPEATS]
    return found if len(rows) > 1 and found else [*found, "id"]


def varied_settings(rows: Sequence[Row]) -> list[str]:
    """The settings that tell rows apart, in the order of the configuration."""
    keys = {key for row in rows for key in row.values}
    return differing([row.values for row in rows], in_order(keys, [row.records[0].entry for row in rows]))


def _settings(words: Sequence[str], records: Sequence[Record], option: str) -> list[str]:
    known = setting_names(records)
    try:
        return [resolve(word, known) for word in words]
    except UsageError as error:
        raise UsageError(f"{option}: {error}") from None


def _left_out(
    broken: Sequence[Any],
    records: Sequence[Record],
    repeated: int,
    group_by: Sequence[str] | None,
    rows: Sequence[Row],
) -> list[str]:
    found = [f"left out: {entry.path.name}: {entry.problems[0]}" for entry in broken[:3]]
    if len(broken) > 3:
        found.append(f"left out as unreadable, too: {len(broken) - 3} more")
    found += [f"{one.entry.path.name}: {problem}" for one in records for problem in one.entry.problems][:5]
    if repeated:
        runs = "1 run repeats" if repeated == 1 else f"{repeated} runs repeat"
        found.append(f"{runs} the configuration of another and so its numbers; only the latest counts")
    if group_by is not None and list(group_by) != [NONE] and (mixed := pooled(rows)):
        more = f" and {len(mixed) - 5} more" if len(mixed) > 5 else ""
        found.append(f"a row pools runs that differ in {', '.join(mixed[:5])}{more}: its ± is not of seeds alone")
    return found
