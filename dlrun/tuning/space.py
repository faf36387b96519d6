"""What is searched: for each key a distribution, perhaps only under a condition on another key.

space:
  optimizer.lr: {low: 1e-4, high: 1e-1, log: true}
  model.dropout: {low: 0.0, high: 0.5, step: 0.1}
  data.batch_size: {choices: [64, 128, 256]}
  optimizer: {choices: [sgd, adamw]}
  optimizer.momentum: {low: 0.0, high: 0.99, when: {optimizer: sgd}}
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from dlrun.config.values import shown

PLAIN_TEXT = re.compile(r"[A-Za-z_]\w*", re.ASCII)
WORDS_WITH_MEANING = {"true", "false", "null", "nan", "inf"}
Value = bool | int | float | str | None


@dataclass(frozen=True)
class Dimension:
    """One searched key.

    Attributes:
        kind: float, int or categorical.
        choices: of a categorical; a list or mapping stands here as the text that is typed for it.
        when: the values that other keys must have for this one to exist.
    """

    key: str
    kind: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    choices: tuple[Value, ...] = ()
    when: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)

    def holds(self, params: Mapping[str, Value]) -> bool:
        """Whether the conditions are met."""
        return all(key in params and params[key] in values for key, values in self.when.items())

    def contains(self, value: Any) -> bool:
        """Whether the search could come upon `value`."""
        if self.kind == "categorical":
            return any(value == choice and type(value) is type(choice) for choice in self.choices)
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        if self.kind == "int" and value != int(value):
            return False
        steps = (value - self.low) / self.step if self.step else 0.0
        return abs(steps - round(steps)) < 1e-8

    def ends(self) -> tuple[Value, ...]:
        """The values that stand for all: every choice, or the ends of the range."""
        if self.kind == "categorical":
            return self.choices
        return (int(self.low), int(self.high)) if self.kind == "int" else (self.low, self.high)

    def points(self, count: int) -> tuple[Value, ...]:
        """About `count` values, evenly spaced (on the logarithm, with `log`); of a range with steps, all of them."""
        if self.kind == "categorical":
            return self.choices
        if self.step is not None:
            count = math.floor((self.high - self.low) / self.step + 1e-9) + 1
            values = [self.low + i * self.step for i in range(count)]
        elif self.kind == "int" and not self.log and self.high - self.low < count:
            values = list(range(int(self.low), int(self.high) + 1))
        else:
            parts = [i / max(count - 1, 1) for i in range(count)]
            low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
            spaced = [low + part * (high - low) for part in parts]
            values = [min(max(math.exp(x) if self.log else x, self.low), self.high) for x in spaced]
        if self.kind == "int":
            return tuple(dict.fromkeys(round(value) for value in values))
        return tuple(float(f"{value:.12g}") for value in values)

    def suggest(self, trial: Any) -> Value:
        """Ask an Optuna trial for a value; one it has already is given again."""
        if self.kind == "categorical":
            chosen: Value = trial.suggest_categorical(self.key, list(self.choices))
            return chosen
        if self.kind == "int":
            step = int(self.step or 1)
            return int(trial.suggest_int(self.key, int(self.low), int(self.high), step=step, log=self.log))
        return float(trial.suggest_float(self.key, self.low, self.high, step=self.step, log=self.log))


@dataclass(frozen=True)
class Space:
    """All dimensions, those that others depend on before these."""

    dimensions: tuple[Dimension, ...]

    @cached_property
    def by_key(self) -> dict[str, Dimension]:
        return {dimension.key: dimension for dimension in self.dimensions}

    @property
    def is_conditional(self) -> bool:
        return any(dimension.when for dimension in self.dimensions)

    def suggest(self, trial: Any) -> dict[str, Value]:
        """A value for every key whose conditions are met."""
        params: dict[str, Value] = {}
        for dimension in self.dimensions:
            if dimension.holds(params):
                params[dimension.key] = dimension.suggest(trial)
        return params

    def corners(self) -> Iterator[dict[str, Value]]:
        """Few assignments in which every end of every range and every choice occurs that can."""
        seen: set[tuple[str, Value]] = set()
        width = max(len(dimension.ends()) for dimension in self.dimensions)
        for shift, i in itertools.product(range(2), range(width)):
            params = self._corner({}, i, shift)
            seen |= set(params.items())
            yield params
        for dimension in self.dimensions:
            for end in dimension.ends():
                if (dimension.key, end) not in seen:  # what it depends on has come together with others only
                    params = self._corner(self._needed(dimension, end), 0, 0)
                    seen |= set(params.items())
                    yield params

    def _corner(self, wanted: Mapping[str, Value], i: int, shift: int) -> dict[str, Value]:
        """The i-th end of each dimension, of ranges the one `shift` after it, where nothing else is wanted."""
        params: dict[str, Value] = {}
        for dimension in self.dimensions:
            if dimension.holds(params):
                ends = dimension.ends()
                end = ends[(i if dimension.kind == "categorical" else i + shift) % len(ends)]
                params[dimension.key] = wanted.get(dimension.key, end)
        return params

    def _needed(self, dimension: Dimension, value: Value) -> dict[str, Value]:
        """What must be chosen for a dimension to exist and have a value."""
        needed = {dimension.key: value}
        for key, values in dimension.when.items():
            needed |= self._needed(self.by_key[key], values[0])
        return needed

    def grid(self, count: int) -> list[dict[str, Value]]:
        """Every combination of `count` points a range, and of all choices."""
        found: list[dict[str, Value]] = [{}]
        for dimension in self.dimensions:
            points = dimension.points(count)
            found = [
                wider
                for params in found
                for wider in ([{**params, dimension.key: p} for p in points] if dimension.holds(params) else [params])
            ]
        return found

    def grid_size(self, count: int) -> int:
        """At most so many combinations are in the grid; counted without making it."""
        return math.prod(len(dimension.points(count)) for dimension in self.dimensions)


def word(key: str, value: Value) -> str:
    """The override that gives a key a value, as it would be typed."""
    if isinstance(value, str):
        simple = PLAIN_TEXT.fullmatch(value) and value.lower() not in WORDS_WITH_MEANING
        if not simple and value[:1] not in "[{":
            value = "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
        return f"{key}={value}"
    return f"{key}={shown(value)}"


def category(value: Any) -> Value:
    """A choice as Optuna can keep it: a list or mapping becomes the text that is typed for it."""
    if isinstance(value, list):
        return "[" + ",".join(_typed(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}: {_typed(item)}" for key, item in value.items()) + "}"
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _typed(value: Any) -> str:
    inner = category(value)
    return str(inner) if isinstance(value, list | Mapping) else word("", inner).removeprefix("=")
