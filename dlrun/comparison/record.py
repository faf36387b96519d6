"""One run as it is compared: its settings, what it measured, and facts about it, all by name."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dlrun.comparison.settings import ABSENT, own_settings, part_labels
from dlrun.runs.index import Entry
from dlrun.runs.selection import shown

FACTS = ("id", "run", "status", "started", "seconds", "parameters", "epochs", "steps", "samples_per_second")
ORIGIN = ("commit", "device", "dlrun", "torch", "fingerprint")


@dataclass
class Record:
    """A run with its settings.

    Attributes:
        own: the settings that are not those of all runs: few, even where there are thousands of runs.
        common: those of all runs.
        labels: what its parts are called, by key: {"model": "mlp"}.
    """

    entry: Entry
    own: Mapping[str, Any]
    common: Mapping[str, Any]
    labels: Mapping[str, str]

    @cached_property
    def status(self) -> str:
        return self.entry.status

    def raw(self, key: str) -> Any:
        """The value of a setting; ABSENT if the run does not have it."""
        return self.own[key] if key in self.own else self.common.get(key, ABSENT)

    def setting(self, key: str) -> Any:
        """The value of a setting as people know it: a part by its name."""
        return self.labels[key] if key in self.labels else self.raw(key)

    def fact(self, name: str) -> Any:
        """A setting, metric or fact by its name; ABSENT if the run has no such."""
        if name in self.entry.metrics:
            return self.entry.metrics[name]
        if name in self.own or name in self.common:
            return self.setting(name)
        match name:
            case "run":
                return shown(self.entry.path)
            case "status":
                return self.status
        found = self.entry.summary.get(name) if name in FACTS else None
        found = self.entry.origin.get(name) if found is None else found
        return ABSENT if found is None else found

    def number(self, name: str) -> float:
        """A metric or fact as a number; NaN if there is none."""
        value = self.fact(name)
        return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan


def make_records(entries: Sequence[Entry]) -> list[Record]:
    """The records of runs, in their order."""
    common, own = own_settings(entries)
    labels = part_labels(entries, common, own)
    return [Record(entry, *rest) for entry, *rest in zip(entries, own, [common] * len(own), labels, strict=True)]


def setting_names(records: Iterable[Record]) -> list[str]:
    """The settings that any of the runs has."""
    listed = list(records)
    return list(dict.fromkeys([*(listed[0].common if listed else ()), *(key for one in listed for key in one.own)]))


def metric_names(records: Iterable[Record]) -> list[str]:
    """The metrics that any of the runs has."""
    return list(dict.fromkeys(key for record in records for key in record.entry.metrics))


def all_names(records: Sequence[Record]) -> list[str]:
    """Everything that a run can be asked for."""
    return list(dict.fromkeys([*setting_names(records), *metric_names(records), *FACTS, *ORIGIN]))
