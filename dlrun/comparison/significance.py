"""Whether two groups of runs differ by more than chance, and what each answer takes for granted."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlrun.comparison.estimate import LEVEL, ROUNDING

RESAMPLES = 20_000
EXACT_UP_TO = 20_000  # arrangements that are all looked at; of more, RESAMPLES are drawn
FEW = 8  # values; a bootstrap of fewer is known to be too narrow

Values = NDArray[np.float64]


@dataclass
class Difference:
    """The difference of a metric between two groups, first minus second.

    Attributes:
        paired: the runs were matched by what repeats share (seed, fold), and the differences of the pairs examined;
            else Welch's test of two independent groups.
        low, high: 95 % interval by Student's t.
        p: of the t test, two-sided.
        permutation_p: of the sign-flip test of pairs, or of the permutation test of two groups.
        least_p: the least that the permutation test can say with so few runs.
        bootstrap: 95 % interval by resampling, percentiles.
        matched: by what pairs were made: "seed", or "seed, optimizer.lr" where a group has several.
        adjusted_p: `p` by Holm's method, where several differences were asked for at once.
    """

    metric: str
    first: str
    second: str
    n: tuple[int, int]
    means: tuple[float, float]
    paired: bool
    difference: float
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    permutation_p: float = math.nan
    least_p: float = math.nan
    bootstrap: tuple[float, float] = (math.nan, math.nan)
    adjusted_p: float | None = None
    matched: str = "seed"
    notes: list[str] = field(default_factory=list)


def difference(
    metric: str,
    first: tuple[str, Mapping[Any, float]],
    second: tuple[str, Mapping[Any, float]],
    matched: str = "seed",
    *,
    resample: bool = True,
) -> Difference:
    """Compare two groups.

    Args:
        first, second: name of a group, and the metric of each of its runs by what tells repeats apart (seed, fold).
        matched: what that is, in words.
        resample: also do the permutation test and the bootstrap, which take a thousand times as long as the t test.
    """
    (name_a, a), (name_b, b) = first, second
    shared = [key for key in a if key in b]
    paired = len(shared) >= 2
    x, y = (np.array([group[key] for key in (shared if paired else group)]) for group in (a, b))
    found = Difference(
        metric,
        name_a,
        name_b,
        (len(x), len(y)),
        (float(x.mean()), float(y.mean())),
        paired,
        float(x.mean() - y.mean()),
        matched=matched,
    )
    if paired:
        left_out = len(a) + len(b) - 2 * len(shared)
        if left_out:
            found.notes.append(f"{left_out} runs without a partner of the same {matched} are left out")
        _paired_t(found, x - y)
    elif min(len(x), len(y)) < 2:
        found.notes.append("a single run on one side says nothing of chance: train more seeds")
    else:
        found.notes.append(
            f"no two runs share their {matched}, so the groups are taken for independent; shared ones would pair"
        )
        _welch(found, x, y)
    if resample and min(found.n) >= 2:
        _flip(found, x - y) if paired else _permute(found, x, y)
    if resample and 2 <= min(found.n) < FEW:
        found.notes.append(f"a bootstrap of {min(found.n)} values is too narrow; trust the t interval more")
    return found


def holm(differences: Sequence[Difference]) -> None:
    """Adjust the p values of several tests for their number. Source: Holm 1979, Scand. J. Statist. 6, 65-70."""
    known = sorted((one for one in differences if not math.isnan(one.p)), key=lambda one: one.p)
    largest = 0.0
    for rank, one in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * one.p))
        one.adjusted_p = largest


def _paired_t(found: Difference, d: Values) -> None:
    _t(found, float(d.std(ddof=1)) / math.sqrt(len(d)), len(d) - 1)


def _flip(found: Difference, d: Values) -> None:
    n = len(d)
    if n <= math.log2(EXACT_UP_TO):
        signs = np.array(list(itertools.product((-1, 1), repeat=n)))
        found.least_p = 2 / len(signs)
    else:
        signs = np.random.default_rng(0).choice((-1, 1), (RESAMPLES, n))
    found.permutation_p = _share(signs @ d / n, found.difference, exact=n <= math.log2(EXACT_UP_TO))
    draws = np.random.default_rng(0).integers(0, n, (RESAMPLES, n))
    found.bootstrap = _percentiles(d[draws].mean(1))


def _welch(found: Difference, x: Values, y: Values) -> None:
    parts = x.var(ddof=1) / len(x), y.var(ddof=1) / len(y)
    error = math.sqrt(sum(parts))
    spread = parts[0] ** 2 / (len(x) - 1) + parts[1] ** 2 / (len(y) - 1)
    _t(found, error, sum(parts) ** 2 / spread if spread else math.inf)


def _permute(found: Difference, x: Values, y: Values) -> None:
    both, arrangements = np.concatenate([x, y]), math.comb(len(x) + len(y), len(x))
    exact = arrangements <= EXACT_UP_TO
    if exact:
        chosen = np.array(list(itertools.combinations(range(len(both)), len(x))))
        found.least_p = (2 if len(x) == len(y) else 1) / arrangements
    else:
        rng = np.random.default_rng(0)
        chosen = rng.permuted(np.tile(np.arange(len(both)), (RESAMPLES, 1)), axis=1)[:, : len(x)]
    sums = both[chosen].sum(1)
    means = sums / len(x) - (both.sum() - sums) / len(y)
    found.permutation_p = _share(means, found.difference, exact=exact)
    rng = np.random.default_rng(0)
    resampled = [one[rng.integers(0, len(one), (RESAMPLES, len(one)))].mean(1) for one in (x, y)]
    found.bootstrap = _percentiles(resampled[0] - resampled[1])


def _t(found: Difference, error: float, freedom: float) -> None:
    """Interval and p of a difference with this standard error."""
    # Takes longer to load than the comparison of a thousand runs.
    from scipy.special import stdtr, stdtrit

    if error <= ROUNDING * max(map(abs, found.means)):
        found.notes.append("all differences are equal, so the t test has nothing to measure chance by")
        return
    half = float(stdtrit(freedom, (1 + LEVEL) / 2)) * error
    found.low, found.high = found.difference - half, found.difference + half
    found.p = float(2 * stdtr(freedom, -abs(found.difference) / error))


def _share(rearranged: Values, seen: float, *, exact: bool) -> float:
    """The share of rearrangements whose difference is at least as large as the one seen.

    What is drawn at random counts the one seen too, or p could be 0 (Phipson & Smyth 2010, arXiv:1603.05766).
    """
    as_large = np.abs(rearranged) >= abs(seen) * (1 - 1e-9) - 1e-15
    return float(as_large.mean() if exact else (as_large.sum() + 1) / (len(rearranged) + 1))


def _percentiles(draws: Values) -> tuple[float, float]:
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


@dataclass
class McNemar:
    """Two classifiers on the same examples.

    Attributes:
        pair: what tells this pair from others, such as "seed=1".
        only_first, only_second: examples that only one of them gets right; those on which they agree say nothing.
        p: exact, two-sided: whether each is as likely to be the one that is right.
    """

    pair: str
    examples: int
    only_first: int
    only_second: int
    p: float


def mcnemar(pair: str, first: NDArray[np.bool_], second: NDArray[np.bool_]) -> McNemar:
    """Compare which examples two classifiers get right.

    Args:
        first, second: whether each example is answered right.

    Source: McNemar 1947, Psychometrika 12, 153-157; exact, by the binomial distribution.
    """
    from scipy.special import bdtr

    only_a, only_b = int((first & ~second).sum()), int((second & ~first).sum())
    p = min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5))) if only_a + only_b else 1.0
    return McNemar(pair, len(first), only_a, only_b, p)
