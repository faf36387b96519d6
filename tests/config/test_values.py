"""What an annotation allows, against Python's own understanding of it."""

import ast
import math
from pathlib import Path

import pytest

from dlrun import contracts
from dlrun.config.sources import Module
from dlrun.config.values import allowed, complaint, shown
from dlrun.contracts import Interval

HEAD = """
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Optional, TypeVar, Union
import torch
from torch import Tensor
from torch.types import Device as PositiveInt2
from dlrun import contracts
from dlrun.contracts import Activation, Duration, Interval, PositiveFloat, Probability
from dlrun.contracts import PositiveInt as Count
from elsewhere import Norm

Mode = Literal["fast", "exact"]
Level: "typing.TypeAlias" = Literal[1, 2]
Json = Union[int, list["Json"]]
Tree = dict[str, Union[int, "Tree"]]
T = TypeVar("T")


@dataclass
class Window:
    size: Count = 3
    mode: Mode = "fast"


class Thing:
    pass
"""

# annotation: what it accepts, what it refuses
RULES = {
    "int": ([0, -3, 2**62], [1.0, True, "1", None, [1], 2**63, -(2**70)]),
    "float": ([0, 0.5, -1e9], [True, "1", None, [0.5]]),
    "bool": ([True, False], [0, 1, "true", None]),
    "str": (["", "a"], [1, None, ["a"], True]),
    "None": ([None], [0, "", False]),
    "int | None": ([None, 3], [1.5, "3"]),
    "Optional[int]": ([None, 3], [1.5, "3"]),
    "Union[int, str]": ([3, "a"], [1.5, None]),
    "'int | None'": ([None, 3], [1.5]),
    "typing.Optional[str]": ([None, "a"], [3]),
    "Literal['a', 'b', 3, None]": (["a", "b", 3, None], ["c", "A", 3.0, True]),
    "Mode": (["fast", "exact"], ["slow", None]),
    "Level": ([1, 2], [3, True, "1"]),
    "Count": ([1, 99], [0, -1, 1.5, True, "1"]),
    "contracts.NonNegativeInt": ([0, 1], [-1, 0.5]),
    "PositiveFloat": ([1e-9, 1], [0, -1, math.nan, math.inf, "1"]),
    "Probability": ([0, 0.5, 0.999], [1, -0.1, math.nan]),
    "Annotated[float, Interval(0, 1, open_low=True)]": ([1, 0.1], [0, 1.1]),
    "Annotated[int, 'something else']": ([1], ["a"]),
    "Duration": ([0, 500, 0.05, "5%", "2ep", "3 steps"], [-1, 1.5, "soon", None, True, math.nan]),
    "Activation": (["relu", "identity"], ["rellu", None]),
    "Sequence[Count]": ([[], [1, 2], (3,)], [[0], 1, "12", [1, "a"], None]),
    "list[Sequence[float]]": ([[[1.0], []]], [[1.0], [["a"]]]),
    "list": ([[], ["a", 1]], ["a", 1, {}]),
    "tuple[float, float]": ([[0.9, 0.99]], [[0.9], [1, 2, 3], 0.9, ["a", 1]]),
    "tuple[int, ...]": ([[], [1, 2, 3]], [[1.5], 1]),
    "tuple[Tensor, int]": ([[object(), 1]], [[1], [1, "a"]]),
    "dict[str, PositiveFloat]": ([{}, {"a": 1}, {3: 0.5}], [{"a": 0}, [1], "a"]),
    "Mapping": ([{}], [[], 1]),
    "Window": ([{}, {"size": 0}], [[], 1]),  # its fields are looked into one by one
}
UNKNOWN = [
    "Tensor",
    "torch.Tensor",
    "Any",
    "Callable[[int], int]",
    "T",
    "Thing",
    "Norm",
    "Json",
    "Tree",
    "PositiveInt2",
    "nothing",
]
UNKNOWN += ["int | Tensor", "typing.Any", "Callable", "1 + 1"]


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Module:
    path: Path = tmp_path_factory.mktemp("module") / "parts.py"
    path.write_text(HEAD)
    return Module(path, ast.parse(HEAD))


def expression(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


@pytest.mark.parametrize("annotation", RULES)
def test_an_annotation_accepts_and_refuses(annotation: str, module: Module):
    rule = allowed(expression(annotation), module)
    assert rule is not None
    right, wrong = RULES[annotation]
    assert [value for value in right if not rule.accepts(value)] == []
    assert [value for value in wrong if rule.accepts(value)] == []
    for value in wrong:
        said = complaint("model.width", value, rule)
        assert said is not None
        assert said.startswith("model.width must be ")
        assert shown(value) in said


@pytest.mark.parametrize("annotation", UNKNOWN)
def test_what_is_not_understood_is_not_refused(annotation: str, module: Module):
    """A name from another package is not taken for one of ours, an alias that contains itself ends."""
    assert allowed(expression(annotation), module) is None


def test_no_annotation_allows_everything(module: Module):
    assert allowed(None, module) is None


def test_every_type_of_the_contracts_is_understood(module: Module):
    names = [name for name in vars(contracts) if name.startswith(("Positive", "NonNegative"))]
    names += ["Probability", "Fraction", "Duration", "Activation", "Norm"]
    assert len(names) == 9
    assert all(allowed(expression(f"contracts.{name}"), module) is not None for name in names)


def test_a_dataclass_brings_its_fields(module: Module):
    rule = allowed(expression("Window | None"), module)
    assert rule is not None
    assert rule.nested is not None
    assert list(rule.nested.parameters) == ["size", "mode"]


def test_only_free_mappings_take_any_key(module: Module):
    found = {
        text: allowed(expression(text), module) for text in ("dict[str, int] | None", "Window", "int", "list[int]")
    }
    assert [text for text, rule in found.items() if rule is not None and rule.is_mapping] == ["dict[str, int] | None"]


@pytest.mark.parametrize(
    ("annotation", "value", "sentence"),
    [
        ("Count", 0, "a.b must be a whole number >= 1, got 0."),
        ("Count", 2**63, f"a.b must be a whole number >= 1 below 2**63, got {2**63}."),
        ("Mode", "fsat", "a.b must be one of fast, exact, got 'fsat'. Did you mean 'fast'?"),
        ("Mode", "EXACT", "a.b must be one of fast, exact, got 'EXACT'. Did you mean 'exact'?"),
        ("Mode | None", False, "a.b must be one of fast, exact or null, got false. Did you mean 'fast'?"),
        ("tuple[float, int]", None, "a.b must be a list of 2: a number, a whole number, got null."),
        ("dict[str, Count]", {"x": 0}, "a.b must be a mapping, each value a whole number >= 1, got {'x': 0}."),
        ("Count", 3, None),
    ],
)
def test_complaints(annotation: str, value: object, sentence: str | None, module: Module):
    rule = allowed(expression(annotation), module)
    assert rule is not None
    assert complaint("a.b", value, rule) == sentence


@pytest.mark.parametrize(
    ("interval", "inside", "outside", "words"),
    [
        (Interval(1), [1, 2], [0, 0.999], ">= 1"),
        (Interval(0, open_low=True), [1e-300], [0, -1], "> 0"),
        (Interval(0, 1), [0, 1], [-1e-9, 1 + 1e-9], "in [0, 1]"),
        (Interval(0, 1, open_low=True, open_high=True), [0.5], [0, 1], "in (0, 1)"),
        (Interval(), [-math.inf, math.inf], [math.nan], ">= -inf"),
    ],
)
def test_intervals(interval: Interval, inside: list[float], outside: list[float], words: str):
    assert all(value in interval for value in inside)
    assert not any(value in interval for value in outside)
    assert str(interval) == words
