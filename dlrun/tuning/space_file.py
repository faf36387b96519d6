"""The space as a tune file describes it, and a sentence for each mistake in it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from dlrun.config.values import shown
from dlrun.errors import did_you_mean
from dlrun.tuning.space import Dimension, Space, Value, category

NUMBERS = ("float", "int")
KINDS = (*NUMBERS, "categorical")
KEYS = ("type", "low", "high", "log", "step", "choices", "when")
KEY = re.compile(r"[A-Za-z]\w*(\.\w+)*", re.ASCII)


def read_space(given: Mapping[str, Any]) -> tuple[Space | None, list[str]]:
    """The space that a tune file describes, and a sentence for each mistake in it; only one of the two."""
    if not given:
        return None, ["tune.space is empty: give it keys to search, such as optimizer.lr: {low: 1e-4, high: 0.1}."]
    found: dict[str, Dimension] = {}
    problems: list[str] = []
    for key, entry in given.items():
        dimension, wrong = _read(str(key), entry)
        problems += wrong
        if dimension is not None:
            found[dimension.key] = dimension
    if not problems:
        problems = _conditions(found)
    if problems:
        return None, problems
    ordered = _ordered(found)
    if ordered is None:
        return None, ["tune.space: the conditions (when) go round in a circle; one key must come first."]
    return Space(tuple(ordered)), []


def _read(key: str, entry: Any) -> tuple[Dimension | None, list[str]]:
    name = f"tune.space.{key}"
    if not KEY.fullmatch(key):
        return None, [f"{name}: '{key}' is no key, such as optimizer.lr."]
    entry = {"choices": list(entry)} if isinstance(entry, list | tuple) else entry
    if not isinstance(entry, Mapping):
        return None, [f"{name} must be {{low: …, high: …}} or {{choices: […]}}, got {shown(entry)}."]
    for unknown in (item for item in entry if item not in KEYS):
        return None, [f"unknown key '{name}.{unknown}': it has {', '.join(KEYS)}.{did_you_mean(str(unknown), KEYS)}"]
    kind = entry.get("type", "categorical" if "choices" in entry else _kind_of(entry))
    if kind not in KINDS:
        near = did_you_mean(str(kind), KINDS)
        return None, [f"{name}.type must be one of {', '.join(KINDS)}, got {shown(kind)}.{near}"]
    when, problem = _read_when(name, entry.get("when"))
    if problem:
        return None, [problem]
    if kind == "categorical":
        return _categorical(key, entry, when)
    return _range(key, kind, entry, when)


def _kind_of(entry: Mapping[str, Any]) -> str:
    """Whole ends (and step) make a range of whole numbers."""
    given = [entry[name] for name in ("low", "high", "step") if entry.get(name) is not None]
    return "int" if given and all(isinstance(value, int) for value in given) else "float"


def _read_when(name: str, given: Any) -> tuple[dict[str, tuple[Value, ...]], str | None]:
    if given is None:
        return {}, None
    if not isinstance(given, Mapping) or not given:
        return {}, f"{name}.when must be a mapping of other keys to values, such as {{optimizer: sgd}}, got {given}."
    pairs = {str(key): value if isinstance(value, list | tuple) else [value] for key, value in given.items()}
    return {key: tuple(category(value) for value in values) for key, values in pairs.items()}, None


def _categorical(
    key: str, entry: Mapping[str, Any], when: Mapping[str, tuple[Value, ...]]
) -> tuple[Dimension | None, list[str]]:
    name, given = f"tune.space.{key}", entry.get("choices")
    extra = next((other for other in ("low", "high", "log", "step") if other in entry), None)
    if extra is not None:
        return None, [f"{name} has choices and {extra}: choices have no range; drop one of the two."]
    if not isinstance(given, list | tuple) or not given:
        return None, [f"{name}.choices must be a list of values, got {shown(given) if given != [] else 'none'}."]
    choices = tuple(category(value) for value in given)
    if len({(type(choice), choice) for choice in choices}) < len(choices):
        return None, [f"{name}.choices has a value twice: {json.dumps(list(choices))}; keep one."]
    return Dimension(key, "categorical", choices=choices, when=when), []


def _range(
    key: str, kind: str, entry: Mapping[str, Any], when: Mapping[str, tuple[Value, ...]]
) -> tuple[Dimension | None, list[str]]:
    name, log, step = f"tune.space.{key}", entry.get("log", False), entry.get("step")
    words = "a whole number" if kind == "int" else "a number"
    if "choices" in entry:
        return None, [f"{name} is of type {kind} and has choices; drop one of the two."]
    for end in ("low", "high"):
        if end not in entry:
            return None, [f"{name}.{end} is missing: a range needs low and high."]
        if not _is_number(entry[end], kind):
            return None, [f"{name}.{end} must be {words}, got {shown(entry[end])}."]
    low, high = entry["low"], entry["high"]
    if low >= high:
        return None, [f"{name}.low must be below high, got low={low} and high={high}."]
    if not isinstance(log, bool):
        return None, [f"{name}.log must be true or false, got {shown(log)}."]
    if log and low <= 0:
        return None, [f"{name}.low must be above 0 with log: true, got {low}; a logarithm has no zero."]
    if step is not None and (not _is_number(step, kind) or step <= 0 or step > high - low):
        return None, [f"{name}.step must be {words} in (0, {high - low:g}], high - low, got {shown(step)}."]
    if step is not None and log:
        return None, [f"{name} has log and step: steps are of equal size, on a logarithm they are not; drop one."]
    if step is not None:
        high = low + step * math.floor((high - low) / step + 1e-9)
    return Dimension(key, kind, float(low), float(high), log, None if step is None else float(step), when=when), []


def _is_number(value: Any, kind: str) -> bool:
    kinds = int if kind == "int" else int | float
    return isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value)


def _conditions(found: Mapping[str, Dimension]) -> list[str]:
    """Conditions on keys or values that the space does not have."""
    problems = []
    for dimension in found.values():
        for key, values in dimension.when.items():
            name, other = f"tune.space.{dimension.key}.when", found.get(key)
            if other is None:
                near = did_you_mean(key, found)
                problems.append(f"{name} names '{key}', which is not a key of tune.space ({', '.join(found)}).{near}")
                continue
            problems += [
                f"{name}: {key} is never {shown(value)}; it is {_described(other)}."
                for value in values
                if not other.contains(value)
            ]
    return problems


def _described(dimension: Dimension) -> str:
    if dimension.kind == "categorical":
        return "one of " + ", ".join(shown(choice) for choice in dimension.choices)
    return f"in [{dimension.low:g}, {dimension.high:g}]"


def _ordered(found: Mapping[str, Dimension]) -> Sequence[Dimension] | None:
    """Each after those it depends on, else as given; None if that cannot be."""
    ordered: list[Dimension] = []
    left = dict(found)
    while left:
        ready = [key for key, dimension in left.items() if not set(dimension.when) & set(left)]
        if not ready:
            return None
        ordered += [left.pop(key) for key in ready]
    return ordered
