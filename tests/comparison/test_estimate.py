"""Means and intervals, against scipy and numpy."""

import math

import numpy as np
import pytest
import scipy.stats

from dlrun.comparison.estimate import Estimate, t_quantile


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 9, 10, 30, 99, 1000])
def test_t_quantile_is_scipys(freedom: int):
    for level in (0.5, 0.95, 0.999):
        assert t_quantile(freedom, level) == pytest.approx(scipy.stats.t.ppf((1 + level) / 2, freedom), rel=1e-9)


def test_interval_is_scipys():
    values = np.random.default_rng(0).normal(0.9, 0.02, 7)
    found = Estimate.of([*values, math.nan])  # a diverged run has no value
    low, high = scipy.stats.t.interval(0.95, 6, values.mean(), scipy.stats.sem(values))
    assert (found.n, found.mean, found.std) == (7, pytest.approx(values.mean()), pytest.approx(values.std(ddof=1)))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_one_value_has_no_spread_and_none_no_mean():
    assert math.isnan(Estimate.of([0.5]).std)
    assert math.isnan(Estimate.of([0.5]).low)
    assert Estimate.of([]).n == 0
    assert math.isnan(Estimate.of([math.inf]).mean)
