"""What runs are told apart by: their settings by short names, and which of them differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
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


def text(value: Any) -> str:
    """A setting as it is written in YAML."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, tuple):
        return f"[{','.join(map(text, value))}]"
    return str(value)


def own_settings(entries: Sequence[Entry]) -> tuple[Settings, list[Settings]]:
    """The settings that all runs share, and of each run those that it does not, in the order of the configuration."""
    if not entries:
        return {}, []
    shared = set(entries[0].config.items())
    for entry in entries[1:]:
        shared &= entry.config.items()
    common = dict(shared)
    own = [_named({key: entry.config[key] for key, _ in entry.config.items() - shared}) for entry in entries]
    return _named({key: common[key] for key in entries[0].config if key in common}), own


def in_order(keys: Iterable[str], entries: Sequence[Entry]) -> list[str]:
    """Keys as they stand in the configurations, which are read in the order of the first run that has them."""
    wanted = set(keys)
    found: dict[str, None] = {}
    for entry in entries:
        if not wanted:
            break
        here = [key for key in map(_name, entry.config) if key in wanted]
        found |= dict.fromkeys(here)
        wanted -= set(here)
    return list(found)


def part_labels(entries: Sequence[Entry], common: Settings, own: Sequence[Settings]) -> list[Settings]:
    """For each run, what its parts are called: as they were chosen, where a choice stands for one class only."""
    parts = [key.removesuffix(TARGET) for key in entries[0].config if key.endswith(TARGET)] if entries else []
    varied = dict.fromkeys(
        key for settings, entry in zip(own, entries, strict=True) for key in settings if key + TARGET in entry.config
    )
    labels: list[Settings] = [{} for _ in entries]
    for key in dict.fromkeys([*parts, *varied]):
        pairs = [(entry.choices.get(key), entry.config.get(key + TARGET)) for entry in entries]
        known = set(pairs)
        names = {pair: _label(pair, known) for pair in known if pair[1] is not None}
        for label, pair in zip(labels, pairs, strict=True):
            if pair in names:
                label[key] = names[pair]
    return labels


def _label(pair: tuple[str | None, Any], known: set[tuple[str | None, Any]]) -> str:
    choice, target = pair
    if choice is None:  # begun from a config.yaml; what the others call the class will do
        choices = {chosen for chosen, other in known if other == target and chosen}
        choice = choices.pop() if len(choices) == 1 else None
    if choice and {other for chosen, other in known if chosen == choice} == {target}:
        return choice
    last = str(target).rpartition(".")[2]
    return last if {other for _, other in known if str(other).rpartition(".")[2] == last} == {target} else str(target)


@cache
def _name(key: str) -> str:
    """A part goes by its group's name: "model" for "model._target_". What is no setting is nothing."""
    return "" if key in DISPLAY or key.endswith("._partial_") else key.removesuffix(TARGET)


def _named(config: Mapping[str, Any]) -> Settings:
    return {name: value for key, value in config.items() if (name := _name(key))}


def differing(rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> list[str]:
    """Those of the keys whose values differ between rows, in their order, without those that follow from others.

    A key that some rows do not have, because their part has no such argument, follows from the part if it has one
    value wherever it is: beside `optimizer: sgd | adamw` nobody wants `optimizer.betas: - | (0.9, 0.999)`.
    """
    values = {key: {row.get(key, ABSENT) for row in rows} for key in keys}
    varied = [key for key in keys if len(values[key]) > 1]
    return [key for key in varied if not _follows(key, varied, values, rows)]


def _follows(
    key: str, varied: Sequence[str], values: Mapping[str, set[Any]], rows: Sequence[Mapping[str, Any]]
) -> bool:
    own = values[key]
    if key == "data.name" and "data" in varied:
        return True
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
