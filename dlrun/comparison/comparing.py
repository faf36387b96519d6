"""`compare`: many runs in, a leaderboard out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from dlrun.comparison import fairness
from dlrun.comparison.comparison import Comparison
from dlrun.comparison.direction import higher_is_better
from dlrun.comparison.grouping import NONE, Row, make_rows, pooled, without_copies
from dlrun.comparison.record import Record, all_names, make_records, metric_names, setting_names
from dlrun.comparison.settings import REPEATS, differing, in_order, resolve
from dlrun.comparison.where import keep_where
from dlrun.errors import UsageError, did_you_mean
from dlrun.runs.index import RunIndex
from dlrun.runs.selection import find_runs

Words = str | Sequence[str]
SPLITS = ("train", "val", "test")


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
    if order in metric_names(records) and order not in metrics:
        metrics = [order, *metrics]
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
