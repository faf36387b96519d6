"""Which jobs the words of a sweep ask for."""

import math
from itertools import product

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from scipy.stats import kstest, qmc

from dlrun.config.schema import Sweeper
from dlrun.errors import ConfigError
from dlrun.sweeps.sampling import jobs_of


def jobs(*words: str, **settings: object) -> list[list[str]]:
    return jobs_of(OverridesParser.create().parse_overrides(list(words)), Sweeper(**settings))  # type: ignore[arg-type]


def test_a_grid_is_every_combination_and_the_last_key_changes_fastest():
    expected = [["a=1", f"b={b}", f"c={c}"] for b, c in product("xy", range(3))]
    assert jobs("a=1", "b=x,y", "c=range(3)") == expected


def test_zipped_keys_change_together_and_the_others_are_combined():
    found = jobs("a=1,2", "b=x,y", "+c=3,4", zip=["a", "c"])
    assert found == [["a=1", "b=x", "+c=3"], ["a=1", "b=y", "+c=3"], ["a=2", "b=x", "+c=4"], ["a=2", "b=y", "+c=4"]]


def test_a_logarithmic_range_is_uniform_in_the_logarithm():
    words = jobs("lr=tag(log,interval(1e-4,1e-1))", sampler="random", samples=400)
    values = [math.log10(float(word.partition("=")[2])) for (word,) in words]
    assert kstest(values, "uniform", args=(-4, 3)).pvalue > 0.01  # seeded: it cannot fail by chance
    assert kstest([10**value for value in values], "uniform", args=(1e-4, 0.1)).pvalue < 1e-6


def test_whole_numbers_of_a_range_come_equally_often():
    words = jobs("n=int(interval(1,4))", sampler="random", samples=4000, max_jobs=4000)
    counts = [sum(word == [f"n={n}"] for word in words) for n in (1, 2, 3, 4)]
    assert sum(counts) == 4000
    assert all(abs(count - 1000) < 5 * math.sqrt(4000 * 3 / 16) for count in counts)


def test_sobol_points_fill_the_square_more_evenly_than_random_ones():
    def spread(sampler: str) -> float:
        words = jobs("x=interval(0,1)", "y=interval(0,1)", sampler=sampler, samples=64)
        return float(qmc.discrepancy([[float(word.partition("=")[2]) for word in job] for job in words]))

    assert spread("sobol") < 0.1 * spread("random")
    assert spread("latin") < spread("random")


def test_what_is_drawn_depends_on_the_seed_alone():
    words = ("lr=interval(0,1)", "optimizer=sgd,adamw", "seed=1")
    assert jobs(*words, sampler="random", samples=5) == jobs(*words, sampler="random", samples=5)
    assert jobs(*words, sampler="random", samples=5) != jobs(*words, sampler="random", samples=5, seed=1)
    assert {job[1] for job in jobs(*words, sampler="random", samples=20)} == {"optimizer=sgd", "optimizer=adamw"}


def test_too_many_jobs_are_refused_before_they_are_made_unless_they_are_meant():
    parsed = OverridesParser.create().parse_overrides(["a=range(50)", "b=range(50)"])
    with pytest.raises(ConfigError, match=r"2,500 jobs \(50 x 50\).*--yes"):
        jobs_of(parsed, Sweeper())
    assert len(jobs_of(parsed, Sweeper(), many=True)) == 2500
    with pytest.raises(ConfigError, match=r"1,200 jobs .*--yes"):
        jobs("a=interval(0,1)", sampler="random", samples=1200)


def test_what_is_drawn_stays_in_a_narrow_range():
    values = [float(word[2:]) for (word,) in jobs("a=interval(0.9999,0.99999)", sampler="random", samples=50)]
    assert len(set(values)) == 50
    assert all(0.9999 <= value < 0.99999 for value in values)
