"""What makes a comparison unfair, said beside it: unequal budgets, other data, other code, runs that are missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dlrun.comparison.grouping import Row
from dlrun.comparison.record import Record
from dlrun.comparison.settings import ABSENT, text

BUDGET = ("trainer.epochs", "trainer.max_steps", "data.limit", "data.val_fraction", "data.folds")
SPLITS = ("data.test_fraction", "data.split_seed", "data.split", "data.val_from")  # decide who is in which split
OVERLAPPING = ("data.split_seed", "data.fold", "data.bootstrap")  # whose training sets share examples
TOLERANCE = 1.01  # between least and most; less is a matter of rounding


def warnings(rows: Sequence[Row], metrics: Sequence[str] = ()) -> list[str]:
    """A sentence for each thing that should be known before the numbers are believed.

    Args:
        metrics: that are shown.
    """
    records = [record for row in rows for record in row.records]
    checks: list[Callable[[Sequence[Row], Sequence[Record]], list[str]]] = [_budget, _lengths, _data, _code, _ends]
    return [sentence for check in checks for sentence in check(rows, records)] + _partly_measured(rows, metrics)


def _budget(rows: Sequence[Row], records: Sequence[Record]) -> list[str]:
    found = []
    for key in BUDGET:
        values = list(dict.fromkeys(record.setting(key) for record in records))
        if len(values) > 1:
            found.append(f"unequal budget: {key} is {_listed(values)}")
    return found


def _lengths(rows: Sequence[Row], records: Sequence[Record]) -> list[str]:
    """What the runs came to, where they were configured alike."""
    finished = [record for row in rows for record in row.finished]
    if _differs(finished, *BUDGET[:2]) or not finished:
        return []
    stopped = sum(record.status == "early_stopped" for record in finished)
    found = []
    if (spread := _spread(finished, "epochs")) is not None:
        why = f": early stopping ended {stopped} of {len(finished)} runs" if stopped else ""
        found.append(f"unequal budget: {spread[0]:g} to {spread[1]:g} epochs were trained{why}")
    elif (spread := _spread(finished, "steps")) is not None:
        sizes = _distinct(record.setting("data.batch_size") for record in finished)
        why = f" (data.batch_size {_listed(sizes)})" if len(sizes) > 1 else ""
        found.append(f"equal epochs, unequal steps: {spread[0]:,.0f} to {spread[1]:,.0f}{why}")
    if not found and (spread := _spread(finished, "samples")) is not None:
        found.append(f"unequal budget: {spread[0]:,.0f} to {spread[1]:,.0f} examples were seen")
    return found


def _data(rows: Sequence[Row], records: Sequence[Record]) -> list[str]:
    names = _distinct(record.setting("data.name") for record in records)
    if len(names) > 1:
        return [f"the rows are of different data ({_listed(names)}): ranks between them mean nothing"]
    found = []
    by_setting: dict[Any, set[Any]] = {}
    for record in records:
        if (fingerprint := record.entry.origin.get("fingerprint")) is not None:
            own = frozenset((key, value) for key, value in record.own.items() if key.startswith("data."))
            by_setting.setdefault(own, set()).add(fingerprint)
    if any(len(fingerprints) > 1 for fingerprints in by_setting.values()):
        found.append(
            "the data changed between runs of equal data settings: their fingerprints differ (provenance.json)"
        )
    for key in SPLITS:
        values = [{record.setting(key) for record in row.records} for row in rows]
        if any(own != values[0] for own in values[1:]):
            found.append(
                f"{key} differs between the rows: they are ranked on different validation sets, and tested on "
                "different test sets unless the data bring their own"
            )
    overlapping = [key for key in OVERLAPPING if any(len({r.setting(key) for r in row.records}) > 1 for row in rows)]
    if overlapping:
        found.append(
            f"runs of a row differ in {', '.join(overlapping)}: their training sets overlap, so intervals and p values "
            "are too small"
        )
    return found


def _code(rows: Sequence[Row], records: Sequence[Record]) -> list[str]:
    found = []
    for name, what in (("commit", "commits"), ("dlrun", "versions of dlrun"), ("torch", "versions of PyTorch")):
        values = _distinct(record.entry.origin.get(name) for record in records)
        if len(values) > 1:
            found.append(f"different code: {what} {_listed(values)}")
    devices = _distinct(record.entry.origin.get("device") for record in records)
    if len(devices) > 1:
        found.append(f"seconds are of different devices: {_listed(devices)}")
    return found


def _ends(rows: Sequence[Row], records: Sequence[Record]) -> list[str]:
    """Runs that did not end are left out of a mean, which is then of the survivors."""
    partly = [row for row in rows if row.finished and len(row.finished) < len(row.records)]
    none = [row for row in rows if not row.finished]
    found = []
    if partly:
        listed = ", ".join(f"{row.number} ({ended(row)})" for row in partly[:4])
        found.append(f"means are of finished runs alone, in row {listed}{' …' if len(partly) > 4 else ''}")
    if none:
        found.append(f"rows without a finished run stand last, with what they had reached: {len(none)}")
    return found


def _partly_measured(rows: Sequence[Row], metrics: Sequence[str]) -> list[str]:
    """Metrics of some runs of a row only, as where `dlrun evaluate` was called for a few."""
    found = []
    for name in metrics:
        counts = {row.number: (row.estimate(name).n, len(row.finished)) for row in rows if row.finished}
        partly = [f"{n} of {of} runs in row {number}" for number, (n, of) in counts.items() if 0 < n < of]
        if partly:
            found.append(f"{name} is of {', '.join(partly[:4])}{' …' if len(partly) > 4 else ''}")
    return found


def ended(row: Row) -> str:
    """How the runs of a row ended: "4 completed, 1 diverged"."""
    return ", ".join(f"{count} {status}" for status, count in row.statuses.items())


def _spread(records: Sequence[Record], name: str) -> tuple[float, float] | None:
    """The least and the most of something, if they differ by more than rounding."""
    values = [value for record in records if (value := _amount(record, name)) > 0]
    return (min(values), max(values)) if values and max(values) > min(values) * TOLERANCE else None


def _amount(record: Record, name: str) -> float:
    if name != "samples":
        return record.number(name)
    size, accumulate = record.setting("data.batch_size"), record.setting("trainer.accumulate")
    if not isinstance(size, int):
        return 0.0
    return record.number("steps") * size * (accumulate if isinstance(accumulate, int) else 1)


def _differs(records: Sequence[Record], *keys: str) -> bool:
    return any(len({record.setting(key) for record in records}) > 1 for key in keys)


def _distinct(values: Any) -> list[Any]:
    return list(dict.fromkeys(value for value in values if value is not None and value is not ABSENT)) or [None]


def _listed(values: Sequence[Any]) -> str:
    texts = [text(value) for value in values]
    if all(isinstance(value, (int, float)) for value in values):
        texts = [f"{value:g}" for value in sorted(values)]
    return ", ".join(texts[:4]) + (f" and {len(texts) - 4} more" if len(texts) > 4 else "")
