"""Tests between two groups, against scipy, and against all rearrangements where they can be counted by hand."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from dlrun.comparison.significance import Difference, difference, holm, mcnemar

A = dict(enumerate([0.91, 0.94, 0.92, 0.95, 0.93]))
B = dict(enumerate([0.90, 0.91, 0.92, 0.91, 0.90]))


def test_shared_seeds_are_paired():
    found = difference("val/accuracy", ("a", A), ("b", B))
    a, b = np.array(list(A.values())), np.array(list(B.values()))
    expected = scipy.stats.ttest_rel(a, b)
    interval = expected.confidence_interval()
    assert found.paired
    assert found.n == (5, 5)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == (pytest.approx(interval.low), pytest.approx(interval.high))
    d = a - b
    flipped = [abs(np.mean(d * signs)) for signs in itertools.product((-1, 1), repeat=5)]
    assert found.permutation_p == np.mean([mean >= abs(d.mean()) - 1e-12 for mean in flipped]) == 4 / 32
    assert found.least_p == 2 / 32


def test_a_pair_is_found_whatever_the_order_and_the_others_are_left_out():
    found = difference("m", ("a", {2: 5.0, 1: 3.0, 0: 1.0}), ("b", {0: 0.0, 1: 2.5, 7: 9.0, 2: 4.0}))
    assert found.n == (3, 3)
    assert found.difference == pytest.approx((1 + 0.5 + 1) / 3)
    assert "1 runs without a partner" in found.notes[0]


def test_other_seeds_are_compared_by_welch():
    b = {seed + 10: value for seed, value in list(B.items())[:4]}
    found = difference("val/accuracy", ("a", A), ("b", b))
    x, y = np.array(list(A.values())), np.array(list(b.values()))
    expected = scipy.stats.ttest_ind(x, y, equal_var=False)
    interval = expected.confidence_interval()
    assert not found.paired
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == (pytest.approx(interval.low), pytest.approx(interval.high))
    both = np.concatenate([x, y])
    differences = [
        both[list(chosen)].mean() - np.delete(both, list(chosen)).mean()
        for chosen in itertools.combinations(range(9), 5)
    ]
    assert found.permutation_p == np.mean(np.abs(differences) >= abs(x.mean() - y.mean()) - 1e-12)


def test_of_many_pairs_the_flips_are_drawn():
    """Five standard errors of 20,000 draws are 0.018 at p = 0.5; seeds are fixed."""
    rng = np.random.default_rng(1)
    x, d = rng.normal(size=16), rng.normal(0.1, 1, 16)
    found = difference("m", ("a", dict(enumerate(x + d))), ("b", dict(enumerate(x))))
    signs = np.array(list(itertools.product((-1, 1), repeat=16)))
    assert found.permutation_p == pytest.approx(np.mean(abs(signs @ d) >= abs(d.sum()) - 1e-12), abs=0.018)
    normal = scipy.stats.norm.interval(0.95, d.mean(), d.std() / 4)
    assert found.bootstrap == pytest.approx(normal, abs=0.06)


def test_of_one_run_nothing_is_claimed():
    found = difference("m", ("a", {0: 1.0}), ("b", {0: 0.0, 1: 0.1}))
    assert math.isnan(found.p)
    assert math.isnan(found.permutation_p)
    assert "train more seeds" in found.notes[0]


def test_equal_differences_have_no_t_test():
    found = difference("m", ("a", {0: 1.0, 1: 2.0}), ("b", {0: 0.0, 1: 1.0}))
    assert math.isnan(found.p)
    assert "nothing to measure chance by" in found.notes[0]


def test_holm_by_hand():
    made = [Difference("m", str(p), "b", (3, 3), (0.0, 0.0), True, 0.0, p=p) for p in (0.04, 0.01, 0.03, math.nan)]
    holm(made)
    assert [one.adjusted_p for one in made] == [pytest.approx(0.06), pytest.approx(0.03), pytest.approx(0.06), None]


@pytest.mark.parametrize(("only_first", "only_second"), [(9, 2), (0, 6), (4, 4), (0, 0)])
def test_mcnemar_is_the_binomial_test_of_disagreements(only_first: int, only_second: int):
    first = np.array([True] * (20 + only_first) + [False] * only_second)
    second = np.array([True] * 20 + [False] * only_first + [True] * only_second)
    found = mcnemar("seed=0", first, second)
    assert (found.only_first, found.only_second) == (only_first, only_second)
    n = only_first + only_second
    assert found.p == pytest.approx(scipy.stats.binomtest(only_first, n).pvalue if n else 1.0)
