"""Rows of the comparison: runs that differ in nothing but their seed are one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from dlrun.comparison.estimate import Estimate
from dlrun.comparison.record import Record
from dlrun.comparison.settings import ABSENT, REPEATS

NONE = "none"  # --group-by none: a row for each run


@dataclass
class Row:
    """A group of runs.

    Attributes:
        records: of all its runs; those that finished are what its metrics are taken from, if any did.
        values: settings that all its runs share and not all runs of the comparison, by key.
        number: its place in the table, from 1.
    """

    records: list[Record]
    values: dict[str, Any] = field(default_factory=dict)
    number: int = 0

    @cached_property
    def finished(self) -> list[Record]:
        return [record for record in self.records if record.entry.finished]

    @cached_property
    def statuses(self) -> Mapping[str, int]:
        """How many runs ended how."""
        return Counter(record.status for record in self.records)

    def measured(self, name: str, apart: Sequence[str] = REPEATS) -> dict[Any, float]:
        """A metric of each run that has it, by what tells them apart; of finished runs, if there are any."""
        found: dict[Any, float] = {}
        for record in self.finished or self.records:
            value = record.number(name)
            if math.isfinite(value):
                key: Any = tuple(record.raw(setting) for setting in apart)
                found[key if key not in found else record.entry.path] = value
        return found

    def estimate(self, name: str) -> Estimate:
        """Mean, spread and interval of a metric or fact."""
        return Estimate.of(self.measured(name).values())

    def shared(self, key: str) -> Any:
        """A setting's or fact's value; the distinct ones, at most three, where the runs differ in it."""
        values = list(dict.fromkeys(record.fact(key) for record in self.records))
        if len(values) == 1:
            return values[0]
        return ", ".join(str(value) for value in values[:3]) + (" …" if len(values) > 3 else "")


def make_rows(records: Sequence[Record], group_by: Sequence[str] | None) -> list[Row]:
    """The rows, in the order of their first runs.

    Args:
        group_by: the keys that make a group; None takes all but the seeds, ["none"] makes a row of each run.
    """
    groups: dict[Any, list[Record]] = {}
    for position, record in enumerate(records):
        key: Any
        if group_by is None:
            key = frozenset(_without_repeats(record).items())
        elif list(group_by) == [NONE]:
            key = position
        else:
            key = tuple(record.setting(name) for name in group_by)
        groups.setdefault(key, []).append(record)
    return [Row(group, _values(group)) for group in groups.values()]


def without_copies(records: Sequence[Record]) -> tuple[list[Record], int]:
    """Leave out runs that only repeat another's configuration, and so its numbers: they are no further sample.

    Of equal ones the last that finished counts, or else the last. Returns: the others, and how many were left out.
    """
    kept: dict[Any, Record] = {}
    for record in sorted(records, key=lambda one: (one.entry.finished, str(one.entry.origin.get("started")))):
        kept[frozenset(record.own.items()), record.entry.origin.get("fingerprint")] = record
    chosen = {id(record) for record in kept.values()}
    return [record for record in records if id(record) in chosen], len(records) - len(chosen)


def _without_repeats(record: Record) -> dict[str, Any]:
    own = {key: value for key, value in record.own.items() if key not in REPEATS}
    return own | {"data.bootstrap": record.raw("data.bootstrap") not in {None, ABSENT}}


def _values(group: Sequence[Record]) -> dict[str, Any]:
    """Of the settings that not all runs have in common, those that the runs of a group do."""
    first, *others = group
    shared = set(first.own.items())
    for other in others:
        shared &= other.own.items()
    return {key: first.setting(key) for key, _ in shared}


def pooled(rows: Sequence[Row]) -> list[str]:
    """The settings, seeds apart, in which runs of one row differ."""
    found: dict[str, None] = {}
    for row in rows:
        names = dict.fromkeys(key for record in row.records for key in record.own)
        found |= dict.fromkeys(
            key for key in names if key not in REPEATS and len({record.raw(key) for record in row.records}) > 1
        )
    return list(found)
