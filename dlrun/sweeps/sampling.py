"""From a sweep's words to its jobs: every combination, values in pairs, or points drawn from ranges."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, ValueType

from dlrun.config.overrides import head
from dlrun.config.schema import Sweeper
from dlrun.errors import ConfigError

MANY = 10_000_000  # values of a range that are counted
Job = list[str]  # the overrides of one job


def jobs_of(parsed: Sequence[Override], settings: Sweeper, many: bool = False) -> list[Job]:
    """The overrides of every job.

    Args:
        parsed: the words; those that are fixed are in every job.
        settings: which combinations are wanted.
        many: whether there may be more of them than `settings.max_jobs`.

    Raises: ConfigError for a key that is given twice, ranges where a grid is wanted, pairs of unequal length, too many.
    """
    _refuse_twice(parsed)
    swept = [item for item in parsed if item.is_sweep_override()]
    if settings.sampler != "grid":
        if not many and (settings.samples or 0) > settings.max_jobs:
            raise ConfigError(_too_many(settings.samples or 0, "hydra.sweeper.samples", settings))
        points = _sampled(swept, settings)
    else:
        _refuse_ranges(swept)
        if not many:
            _refuse_too_many(swept, settings)
        points = _grid([(head(item), list(values_of(item))) for item in swept], settings.zip)
    return [[point.get(head(item), str(item.input_line)) for item in parsed] for point in points]


def values_of(item: Override) -> Iterator[str]:
    """The values of an override that lists them, as texts; of a pattern, files that are no choices are left out."""
    is_pattern = item.value_type is ValueType.GLOB_CHOICE_SWEEP
    return (text for text in item.sweep_string_iterator() if not (is_pattern and text.startswith("_")))


def _grid(lists: Sequence[tuple[str, list[str]]], zipped: Sequence[str]) -> Iterator[dict[str, str]]:
    """Every combination, the last key changing fastest; the keys of `zipped` change together, where their first is."""
    keys = [key.lstrip("+") for key, _ in lists]
    for key in zipped:
        if key not in keys:
            raise ConfigError(f"hydra.sweeper.zip: {key} is not swept over; {', '.join(keys)} are.")
    pairs = [(key, values) for key, values in lists if key.lstrip("+") in zipped]
    if len({len(values) for _, values in pairs}) > 1:
        lengths = ", ".join(f"{key} has {len(values)}" for key, values in pairs)
        raise ConfigError(f"hydra.sweeper.zip takes values in pairs, so there must be as many of each: {lengths}.")
    together = [
        {key: f"{key}={value}" for key, value in zip([k for k, _ in pairs], row, strict=True)}
        for row in zip(*(values for _, values in pairs), strict=True)
    ]
    axes: list[list[dict[str, str]]] = []
    for key, values in lists:
        if key.lstrip("+") not in zipped:
            axes.append([{key: f"{key}={value}"} for value in values])
        elif together:
            axes.append(together)
            together = []
    for parts in itertools.product(*axes):
        yield {key: word for part in parts for key, word in part.items()}


def _sampled(swept: Sequence[Override], settings: Sweeper) -> Iterator[dict[str, str]]:
    """Points of the unit cube, one axis a key, as values."""
    if settings.samples is None:
        raise ConfigError(
            f"hydra.sweeper.sampler={settings.sampler} draws as many jobs as hydra.sweeper.samples says; give it."
        )
    if settings.zip:
        raise ConfigError(
            "hydra.sweeper.zip pairs the values of a grid; leave it out, or take hydra.sweeper.sampler=grid."
        )
    axes = [_Axis(item) for item in swept]
    for point in _unit_cube(settings, len(axes)):
        yield {axis.key: f"{axis.key}={axis.at(x)}" for axis, x in zip(axes, point, strict=True)}


def _unit_cube(settings: Sweeper, dimensions: int) -> Any:
    """`settings.samples` points in [0, 1)^dimensions, (samples, dimensions)."""
    import numpy as np
    from scipy.stats import qmc

    count = settings.samples
    assert count is not None
    if settings.sampler == "random":
        return np.random.default_rng(settings.seed).random((count, dimensions))
    if settings.sampler == "latin":
        return qmc.LatinHypercube(dimensions, rng=settings.seed).random(count)
    # A power of two at a time: what Sobol's points promise holds of those alone.
    return qmc.Sobol(dimensions, rng=settings.seed).random_base2(max(0, count - 1).bit_length())[:count]


class _Axis:
    """The values of one key, by a number in [0, 1)."""

    def __init__(self, item: Override) -> None:
        self.key = head(item)
        value = item.value()
        self.texts: list[str] = []
        if isinstance(value, IntervalSweep):
            self.low, self.high = value.start, value.end
            self.log = "log" in value.tags
            self.whole = isinstance(self.low, int) and isinstance(self.high, int)
            if not self.low < self.high:
                raise ConfigError(f"{item.input_line}: the range must begin below its end.")
            if self.log and self.low <= 0:
                raise ConfigError(f"{item.input_line}: a range with tag(log, …) must begin above 0.")
        else:
            self.texts = list(values_of(item))

    def at(self, x: float) -> str:
        if self.texts:
            return self.texts[min(int(x * len(self.texts)), len(self.texts) - 1)]
        high = self.high + 1 if self.whole else self.high
        value = self.low * (high / self.low) ** x if self.log else self.low + (high - self.low) * x
        if self.whole:
            return str(min(math.floor(value), self.high))
        # Four digits: as many as anyone tells apart, and a folder's name stays readable; more in a narrow range.
        size = max(abs(self.low), abs(self.high)) / (self.high - self.low)
        text = f"{value:.{4 + max(0, math.ceil(math.log10(size)))}g}"
        return text if self.low <= float(text) < self.high else repr(value)


def _refuse_twice(parsed: Sequence[Override]) -> None:
    seen: dict[str, Override] = {}
    for item in parsed:
        if item.key_or_group in seen and (item.is_sweep_override() or seen[item.key_or_group].is_sweep_override()):
            first = seen[item.key_or_group].input_line
            raise ConfigError(f"{item.key_or_group} is swept over and given again: {first} and {item.input_line}.")
        seen[item.key_or_group] = item


def _refuse_ranges(swept: Sequence[Override]) -> None:
    for item in swept:
        if not item.is_discrete_sweep():
            raise ConfigError(
                f"{item.input_line} is a range without steps; list values, write range(0,1,0.1), or draw from it: "
                "hydra.sweeper.sampler=random hydra.sweeper.samples=20."
            )


def _refuse_too_many(swept: Sequence[Override], settings: Sweeper) -> None:
    """Raises: ConfigError before a million jobs are made in memory."""
    lengths = [_length(item) for item in swept if item.key_or_group not in settings.zip]
    count = math.prod(lengths) * max((_length(item) for item in swept if item.key_or_group in settings.zip), default=1)
    if count > settings.max_jobs:
        product = " x ".join(map(str, lengths)) if len(lengths) > 1 else "one a value"
        raise ConfigError(_too_many(count, product, settings))


def _too_many(count: int, product: str, settings: Sweeper) -> str:
    return (
        f"these would be {count:,} jobs ({product}), more than hydra.sweeper.max_jobs={settings.max_jobs}; "
        "if they are meant: --yes."
    )


def _length(item: Override) -> int:
    value = item.value()
    if isinstance(value, ChoiceSweep):
        return len(value.list)
    if hasattr(value, "range"):
        return sum(1 for _ in itertools.islice(value.range(), MANY))
    return sum(1 for _ in item.sweep_string_iterator())
