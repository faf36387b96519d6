"""The space of a search: what a tune file says, and what comes of it."""

import math
import re
import shlex

import pytest

from dlrun.commands.tune import HELP
from dlrun.tuning.objectives import LOWER_IS_BETTER, read_objectives
from dlrun.tuning.settings import read_settings
from dlrun.tuning.space import Dimension, category, word
from dlrun.tuning.space_file import read_space
from dlrun.tuning.study import ask


def space(**given):
    found, problems = read_space(given)
    assert not problems, problems
    return found


class Middle:
    """A trial that always answers with the middle of a range, or the last choice; it notes what it was asked."""

    def __init__(self):
        self.asked = {}

    def suggest_float(self, name, low, high, *, step, log):
        self.asked[name] = ("float", low, high, step, log)
        return math.sqrt(low * high) if log else (low + high) / 2

    def suggest_int(self, name, low, high, *, step, log):
        self.asked[name] = ("int", low, high, step, log)
        return (low + high) // 2

    def suggest_categorical(self, name, choices):
        self.asked[name] = ("categorical", *choices)
        return choices[-1]


def test_each_distribution_is_asked_for_as_written():
    trial = Middle()
    found = space(
        **{
            "optimizer.lr": {"low": 1e-4, "high": 1e-2, "log": True},
            "model.dropout": {"low": 0.0, "high": 0.5, "step": 0.1},
            "model.depth": {"low": 1, "high": 9},
            "data.batch_size": [32, 64],
            "seed": {"type": "float", "low": 1, "high": 3},
        }
    ).suggest(trial)
    assert found == {
        "optimizer.lr": pytest.approx(1e-3),
        "model.dropout": 0.25,
        "model.depth": 5,
        "data.batch_size": 64,
        "seed": 2.0,
    }
    assert trial.asked["optimizer.lr"] == ("float", 1e-4, 1e-2, None, True)
    assert trial.asked["model.dropout"] == ("float", 0.0, 0.5, 0.1, False)
    assert trial.asked["model.depth"] == ("int", 1, 9, 1, False)


def test_a_key_exists_only_where_its_condition_holds_wherever_it_stands():
    conditional = space(
        **{
            "optimizer.nesterov": {"choices": [False, True], "when": {"optimizer.momentum": [0.5, 0.9]}},
            "optimizer.momentum": {"choices": [0.0, 0.5, 0.9], "when": {"optimizer": "sgd"}},
            "optimizer": ["sgd", "adamw"],
        }
    )
    assert conditional.suggest(Middle()) == {"optimizer": "adamw"}
    grid = conditional.grid(5)
    # adamw; sgd without momentum; sgd with each of two momenta, with and without Nesterov's
    assert len(grid) == 1 + 1 + 2 * 2
    assert {"optimizer": "adamw"} in grid
    assert {"optimizer": "sgd", "optimizer.momentum": 0.0} in grid
    assert len({tuple(sorted(params.items())) for params in grid}) == len(grid)


def test_a_grid_is_spaced_as_the_range_is():
    assert Dimension("a", "float", 1e-3, 1e-1, log=True).points(3) == (1e-3, 1e-2, 1e-1)
    assert Dimension("a", "float", 0.0, 1.0).points(5) == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert Dimension("a", "float", 0.0, 0.5, step=0.1).points(2) == (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
    assert Dimension("a", "int", 1, 4).points(5) == (1, 2, 3, 4)
    assert Dimension("a", "int", 1, 64, log=True).points(4) == (1, 4, 16, 64)


def test_a_range_ends_at_its_last_step():
    found = space(x={"low": 0.0, "high": 1.0, "step": 0.3}).dimensions[0]
    assert found.high == pytest.approx(0.9)
    assert found.contains(0.6)
    assert not found.contains(0.5)


def test_the_corners_hold_every_end_and_choice():
    corners = list(
        space(
            optimizer=["sgd", "adamw", "lion"],
            lr={"low": 0.1, "high": 1.0},
            momentum={"low": 0.0, "high": 0.9, "when": {"optimizer": "sgd"}},
        ).corners()
    )
    seen = {(key, value) for params in corners for key, value in params.items()}
    assert {("optimizer", name) for name in ("sgd", "adamw", "lion")} < seen
    assert {("lr", 0.1), ("lr", 1.0), ("momentum", 0.0), ("momentum", 0.9)} < seen
    assert all(("momentum" in params) == (params["optimizer"] == "sgd") for params in corners)


@pytest.mark.parametrize(
    "value", [1e-4, 3, True, None, "adamw", "5%", "null", "a b", "it's", [64, 32], ["a b", None], {"a": 1}, "1e-3"]
)
def test_a_word_gives_the_value_back_through_hydras_grammar(value):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    typed = word("some.key", category(value))
    assert OverridesParser.create().parse_override(typed).value() == value


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"low": 1.0, "high": 1.0}, r"space\.x\.low must be below high, got low=1\.0 and high=1\.0"),
        ({"low": 2, "high": 1}, r"low must be below high, got low=2 and high=1"),
        ({"low": 0.0, "high": 1.0, "log": True}, r"low must be above 0 with log: true, got 0\.0"),
        ({"low": 1.0}, r"x\.high is missing: a range needs low and high"),
        ({"low": "a", "high": 1.0}, r"x\.low must be a number, got 'a'"),
        ({"type": "int", "low": 0.5, "high": 3}, r"x\.low must be a whole number, got 0\.5"),
        ({"type": "normal", "low": 0, "high": 1}, r"x\.type must be one of float, int, categorical, got 'normal'"),
        ({"type": "flaot", "low": 0, "high": 1}, r"Did you mean 'float'\?"),
        ({"low": 0.0, "high": 1.0, "stepp": 0.1}, r"unknown key 'tune\.space\.x\.stepp'.*Did you mean 'step'\?"),
        ({"low": 0.0, "high": 1.0, "step": 2.0}, r"step must be a number in \(0, 1\], high - low, got 2\.0"),
        ({"low": 0.1, "high": 1.0, "step": 0.1, "log": True}, r"has log and step"),
        ({"choices": []}, r"choices must be a list of values, got none"),
        ({"choices": "abc"}, r"choices must be a list of values, got 'abc'"),
        ({"choices": [1, 1]}, r"choices has a value twice"),
        ({"choices": [1, 2], "low": 0}, r"has choices and low"),
        ({"low": 0.0, "high": 1.0, "when": "sgd"}, r"when must be a mapping"),
        (0.1, r"must be \{low: …, high: …\} or \{choices: \[…\]\}, got 0\.1"),
    ],
)
def test_a_mistake_is_one_sentence(entry, said):
    found, problems = read_space({"x": entry})
    assert found is None
    assert len(problems) == 1
    assert re.search(said, problems[0]), problems[0]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "tune.space is empty"),
        ({"a b": [1, 2]}, "'a b' is no key"),
        (
            {"optimizer": ["sgd"], "x": {"low": 0, "high": 1, "when": {"optimiser": "sgd"}}},
            "names 'optimiser', which is not a key of tune.space (optimizer, x). Did you mean 'optimizer'?",
        ),
        (
            {"optimizer": ["sgd", "adam"], "x": {"low": 0, "high": 1, "when": {"optimizer": "adamw"}}},
            "optimizer is never 'adamw'; it is one of 'sgd', 'adam'",
        ),
        ({"a": {"choices": [1, 2], "when": {"b": 1}}, "b": {"choices": [1], "when": {"a": 1}}}, "go round in a circle"),
    ],
)
def test_conditions_that_cannot_be_met_are_refused(given, said):
    found, problems = read_space(given)
    assert found is None
    assert [said in problem for problem in problems] == [True], problems


def test_the_direction_of_an_objective_is_that_of_its_metric():
    from dlrun.metrics.classes import Accuracy
    from dlrun.metrics.errors import Errors
    from dlrun.metrics.scores import SCORES, Scores
    from dlrun.metrics.tokens import LanguageModel

    metrics = [Accuracy(), Errors([1.0], [0.0], relative=True), Scores(list(SCORES)), LanguageModel("word")]
    for metric in metrics:
        for name, higher in metric.higher_is_better.items():
            assert (name in LOWER_IS_BETTER) is not higher, name
    found, problems = read_objectives(["val/loss", "val/f1", "maximize val/odd", "seconds", "minimize val/accuracy"])
    assert not problems
    assert [o.direction for o in found] == ["minimize", "maximize", "maximize", "minimize", "minimize"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "tune.objectives is empty"),
        (["test/accuracy"], "would choose by the test data"),
        (["val/loss", "val/loss"], "names val/loss twice"),
        (["secnds"], "Did you mean 'seconds'?"),
    ],
)
def test_objectives_that_cannot_be(given, said):
    _, problems = read_objectives(given)
    assert [said in problem for problem in problems] == [True], problems


def test_corners_reach_every_choice_whatever_it_depends_on():
    space, problems = read_space(
        {
            "a": ["x", "y"],
            "b": {"choices": [1, 2], "when": {"a": "y"}},
            "c": {"low": 0.0, "high": 1.0, "when": {"a": "y", "b": 1}},
        }
    )
    assert not problems
    corners = list(space.corners())
    met = {pair for params in corners for pair in params.items()}
    assert met == {("a", "x"), ("a", "y"), ("b", 1), ("b", 2), ("c", 0.0), ("c", 1.0)}
    assert all(
        dimension.holds(params) == (dimension.key in params) for params in corners for dimension in space.dimensions
    )


def lines_of_the_help() -> list[list[str]]:
    lines = [line.strip() for line in HELP().splitlines() if line.strip().startswith("dlrun tune tune=mlp_")]
    return [shlex.split(re.split(r" {4,}", line)[0])[2:] for line in lines]


@pytest.mark.parametrize("words", lines_of_the_help(), ids=" ".join)
def test_what_the_help_shows_is_a_search(words: list[str]):
    ask(read_settings(words, None), None)


def test_a_key_below_a_searched_group_is_added():
    words = ["tune=mlp_digits", "tune.space.optimizer.eps={low: 1e-9, high: 1e-6, log: true, when: {optimizer: adamw}}"]
    assert "optimizer.eps" in read_settings(words, None).space.by_key
