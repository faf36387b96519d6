"""What runs are told apart by: their settings by short names, and which of them differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dlrun.errors import UsageError, did_you_mean
from dlrun.runs.index import Entry

TARGET = "._target_"
DISPLAY = frozenset({"name"})  # what the run is called, no setting
REPEATS = ("seed", "data.split_seed", "data.fold", "data.bootstrap")  # what runs of one group may differ in

Settings = dict[str, Any]


class Absent:
    """The value of a setting that a run does not have."""

    def __repr__(self) -> str:
        return "-"


ABSENT = Absent()
NOTHING = {ABSENT, None, ()}


def settings(entry: Entry) -> Settings:
    """The configuration by dotted keys, a part under its group's name: {"model": "dlrun.models.mlp.mlp", …}."""
    return {
        key.removesuffix(TARGET): frozen(value) if isinstance(value, (list, dict)) else value
        for key, value in entry.config.items()
        if key not in DISPLAY and not key.endswith("._partial_")
    }


def frozen(value: Any) -> Any:
    """A value that can be a key of a dictionary."""
    if isinstance(value, list | tuple):
        return tuple(map(frozen, value))
    if isinstance(value, Mapping):
        return tuple((key, frozen(inner)) for key, inner in sorted(value.items()))
    return value


def part_labels(entries: Sequence[Entry]) -> list[dict[str, str]]:
    """For each run, what its parts are called: as they were chosen, where a choice stands for one class only."""
    targets: dict[tuple[str, str], set[str]] = {}
    names: dict[tuple[str, str], set[str]] = {}
    parts = [
        {key.removesuffix(TARGET): str(value) for key, value in entry.config.items() if key.endswith(TARGET)}
        for entry in entries
    ]
    for entry, own in zip(entries, parts, strict=True):
        for key, target in own.items():
            names.setdefault((key, target.rpartition(".")[2]), set()).add(target)
            if key in entry.choices:
                targets.setdefault((key, entry.choices[key]), set()).add(target)

    def label(entry: Entry, key: str, target: str) -> str:
        choice, last = entry.choices.get(key), target.rpartition(".")[2]
        if choice and len(targets[key, choice]) == 1:
            return choice
        return last if len(names[key, last]) == 1 else target

    return [
        {key: label(entry, key, target) for key, target in own.items()}
        for entry, own in zip(entries, parts, strict=True)
    ]


def differing(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys whose values differ, in the order of the configuration, without those that follow from others.

    A key that some rows do not have, because their part has no such argument, follows from the part if it has one
    value wherever it is: beside `optimizer: sgd | adamw` nobody wants `optimizer.betas: - | (0.9, 0.999)`.
    """
    keys = list(dict.fromkeys(key for row in rows for key in row))
    values = {key: {row.get(key, ABSENT) for row in rows} for key in keys}
    varied = [key for key in keys if len(values[key]) > 1]
    return [key for key in varied if not _follows(key, varied, values, rows)]


def _follows(
    key: str, varied: Sequence[str], values: Mapping[str, set[Any]], rows: Sequence[Mapping[str, Any]]
) -> bool:
    own = values[key]
    if ABSENT not in own:
        return False
    if own <= NOTHING and any(other.startswith(f"{key}.") for other in varied):
        return True  # `trainer.ema: null` where others have `trainer.ema.decay: 0.99`
    parent = next((name for name in varied if key.startswith(f"{name}.") and not values[name] <= NOTHING), None)
    if parent is None:
        return False
    by_part: dict[Any, set[Any]] = {}
    for row in rows:
        by_part.setdefault(row.get(parent, ABSENT), set()).add(row.get(key, ABSENT))
    return all(len(found) == 1 for found in by_part.values())


def resolve(word: str, known: Iterable[str], what: str = "key") -> str:
    """The one name that `word` is, or ends: lr for optimizer.lr, if no other key ends so.

    Raises: UsageError if there is none, or several.
    """
    names = list(known)
    if word in names:
        return word
    matches = [name for name in names if name.endswith((f".{word}", f"/{word}"))]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise UsageError(f"'{word}' may be {' or '.join(sorted(matches)[:6])}; write one of them out.")
    near = did_you_mean(word, [*names, *(name.rpartition(".")[2] for name in names)])
    raise UsageError(f"no run has the {what} '{word}'.{near}")
