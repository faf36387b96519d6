"""Mean, spread and interval of what several runs measured."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

LEVEL = 0.95
ROUNDING = 1e-12  # of a value: what is nearer together differs by rounding alone


@dataclass(frozen=True)
class Estimate:
    """n values of runs that differ by chance alone.

    Attributes:
        mean: NaN of none.
        std: with n - 1 in the denominator; NaN of fewer than two, which say nothing of spread.
        low, high: the 95 % interval of the mean by Student's t, which takes the values for draws of a normal
            distribution; NaN of fewer than two.
    """

    n: int
    mean: float
    std: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Estimate:
        """The estimate from the finite ones of `values`."""
        finite = [value for value in values if math.isfinite(value)]
        if not finite:
            return cls(0, math.nan, math.nan, math.nan, math.nan)
        mean = math.fsum(finite) / len(finite)
        if len(finite) == 1:
            return cls(1, mean, math.nan, math.nan, math.nan)
        if max(finite) - min(finite) <= ROUNDING * max(map(abs, finite)):
            return cls(len(finite), finite[0], 0.0, finite[0], finite[0])
        std = statistics.stdev(finite, mean)
        half = t_quantile(len(finite) - 1) * std / math.sqrt(len(finite))
        return cls(len(finite), mean, std, mean - half, mean + half)


@cache
def t_quantile(freedom: int, level: float = LEVEL) -> float:
    """The t that |T| stays below with probability `level`, by whole degrees of freedom.

    Importing SciPy for it would take longer than comparing a thousand runs.

    Source: Abramowitz & Stegun 1964, eq. 26.7.3-4, solved by bisection.
    """
    low, high = 0.0, math.pi / 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < level else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def _within(angle: float, freedom: int) -> float:
    """P(|T| < t) for t = sqrt(freedom) tan(angle)."""
    cosine, term, total = math.cos(angle), 1.0, 0.0
    if freedom % 2 == 0:
        for k in range(0, freedom - 1, 2):
            total += term
            term *= (k + 1) / (k + 2) * cosine**2
        return math.sin(angle) * total
    term = cosine
    for k in range(1, freedom - 1, 2):
        total += term
        term *= (k + 1) / (k + 2) * cosine**2
    return 2 / math.pi * (angle + math.sin(angle) * total)
