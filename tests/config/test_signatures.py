"""Signatures read from source files, without importing, are those that Python finds by importing."""

import importlib
import inspect
import sys
from pathlib import Path

import pytest
import yaml

from dlrun.config.location import CONF
from dlrun.config.signatures import Signature, signature_of
from dlrun.errors import ConfigError

TORCH = {
    "torch.optim": "SGD Adam AdamW Adagrad Adadelta RMSprop Adamax NAdam RAdam ASGD Rprop LBFGS SparseAdam Muon",
    "torch.optim.lr_scheduler": "StepLR MultiStepLR ConstantLR LinearLR ExponentialLR CosineAnnealingLR OneCycleLR "
    "CyclicLR LambdaLR ReduceLROnPlateau CosineAnnealingWarmRestarts",
    "torch.nn": "Linear Conv2d BatchNorm2d LayerNorm Dropout Embedding Bilinear GELU CrossEntropyLoss MSELoss",
    "torch.nn.init": "kaiming_normal_",
    "torch.nn.functional": "cross_entropy mse_loss",
}
PACKAGES = ["torch.nn.Sequential", "torch.nn.LSTM", "torch.nn.Module", "torchvision.models.resnet18"]


def targets() -> list[str]:
    """Every `_target_` that conf/ names."""
    found = set()
    for path in CONF.glob("*/*.yaml"):
        content = yaml.safe_load(path.read_text()) or {}
        parts = [content, *(part for part in content.values() if isinstance(part, dict))]
        found |= {part["_target_"] for part in parts if "_target_" in part}
    return sorted(found)


def imported(target: str) -> object:
    module, _, name = target.rpartition(".")
    return getattr(importlib.import_module(module), name)


def must_agree(found: Signature, target: object) -> None:
    """The same names in the same order, required where Python requires them, open where it takes **kwargs."""
    parameters = inspect.signature(target).parameters.values()
    named = [p for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    assert list(found.parameters) == [p.name for p in named]
    assert {p.name for p in found.parameters.values() if p.required} == {p.name for p in named if p.default is p.empty}
    assert {p.name for p in found.parameters.values() if p.nullable} == {p.name for p in named if p.default is None}


@pytest.mark.parametrize(
    "target", sorted({f"{home}.{name}" for home, names in TORCH.items() for name in names.split()} | {*targets()})
)
def test_what_is_read_is_what_python_finds(target: str):
    found = signature_of(target)
    assert found is not None
    must_agree(found, imported(target))
    foreign = ("torch.", "dlrun.models.foreign.", "dlrun.optim.library.")  # and wrappers of other libraries
    assert not found.open or target.startswith(foreign)


@pytest.mark.parametrize("target", PACKAGES)
def test_what_takes_anything_refuses_nothing(target: str):
    """*args and **kwargs, decorators: what cannot be told is left to build."""
    found = signature_of(target)
    takes = inspect.signature(imported(target)).parameters.values()
    assert found is None or found.open or not any(p.kind is p.VAR_KEYWORD for p in takes)


CODE = """
import functools
from abc import ABC, ABCMeta
from dataclasses import dataclass, field
from typing import ClassVar, overload

from .near import *
from .near import helper as renamed
from . import near, compiled

try:
    from nosuchpackage import fallback
except ImportError:
    def fallback(a, b=1): ...

if True:
    def chosen(x, *, y): ...


class Plain:
    pass


class Base:
    def __init__(self, width, *, depth=2): ...

    @classmethod
    def small(cls, depth=1): ...

    @staticmethod
    def count(width): ...

    def method(self, x): ...


class Child(Base):
    pass


class Mixed(Plain, Child):
    pass


class Far(Star):
    pass


class Overloaded:
    @overload
    def __init__(self, a: int): ...
    @overload
    def __init__(self, a: str, b: int): ...
    def __init__(self, a, b=0, c=None): ...


class Anything(Base):
    def __init__(self, own, **rest): ...


@dataclass
class Parent:
    a: int
    b: int = 2


@dataclass
class Record(Parent):
    kind: ClassVar[str] = "x"
    c: list[int] = field(default_factory=list)
    d: int = field(init=False)


def decorate(function):
    return functools.partial(function, 1)


@decorate
def wrapped(a, b): ...


def made():
    return type("Made", (Base,), {})


class Meta(ABCMeta):
    pass


class WithMeta(metaclass=Meta):
    pass


@decorate
class Decorated:
    pass


Alias = Base
first, second = Base, Child
"""
NEAR = """
__all__ = ["Star", "helper"]


class Star:
    def __init__(self, points, sharp=True): ...


def helper(x): ...
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A package of a user's own, under a name of its own, since files are parsed once."""
    name = f"own_{abs(hash(request.node.name))}"
    folder = tmp_path / name
    (folder / "sub").mkdir(parents=True)
    (folder / "__init__.py").write_text(CODE)
    (folder / "near.py").write_text(NEAR)
    (folder / "sub" / "deep.py").write_text("from ..near import Star as Deep\nfrom .. import Child\n")
    (folder / "wrong.py").write_text("def f(:\n")
    (folder / "round.py").write_text(f"from {name}.trip import x\n")
    (folder / "trip.py").write_text(f"from {name}.round import x\n")
    (folder / "lazy.py").write_text("def __getattr__(name): ...\n")
    (tmp_path / f"{name}_spaces" / "inner").mkdir(parents=True)
    (tmp_path / f"{name}_spaces" / "inner" / "net.py").write_text("def net(width): ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("Base", ["width", "depth"]),
        ("Child", ["width", "depth"]),
        ("Mixed", ["width", "depth"]),
        ("Far", ["points", "sharp"]),
        ("Plain", []),
        ("Overloaded", ["a", "b", "c"]),
        ("Record", ["a", "b", "c"]),
        ("Star", ["points", "sharp"]),
        ("near.Star", ["points", "sharp"]),
        ("renamed", ["x"]),
        ("sub.deep.Deep", ["points", "sharp"]),
        ("sub.deep.Child", ["width", "depth"]),
        ("chosen", ["x", "y"]),
        ("Base.small", ["depth"]),
        ("Base.count", ["width"]),
    ],
)
def test_a_package_of_ones_own(path: str, names: list[str], package: str):
    found = signature_of(f"{package}.{path}")
    assert found is not None
    assert list(found.parameters) == names
    assert not found.open


@pytest.mark.parametrize(("path", "names"), [("Anything", ["own"]), ("wrapped", ["a", "b"])])
def test_what_may_take_more_is_open(path: str, names: list[str], package: str):
    found = signature_of(f"{package}.{path}")
    assert found is not None
    assert list(found.parameters) == names
    assert found.open


@pytest.mark.parametrize(
    "path",
    ["Alias", "first", "compiled", "lazy.anything", "round.x", "WithMeta", "Decorated", "Base.method", "sub"],
)
def test_what_cannot_be_told_is_not_refused(path: str, package: str):
    assert signature_of(f"{package}.{path}") is None


@pytest.mark.parametrize(
    ("path", "needles"),
    [
        ("Bose", ["has no 'Bose'", "Did you mean 'Base'?"]),
        ("Stra", ["has no 'Stra'", "Did you mean 'Star'?"]),
        ("near.Stra", ["near has no 'Stra'", "Did you mean 'Star'?"]),
        ("near", ["is a module"]),
        ("wrong.f", ["wrong.py", "line 1"]),
        ("made.nothing", []),
    ],
)
def test_what_leads_nowhere_is_refused(path: str, needles: list[str], package: str):
    if not needles:
        assert signature_of(f"{package}.{path}") is None
        return
    with pytest.raises(ConfigError) as caught:
        signature_of(f"{package}.{path}")
    assert all(needle in str(caught.value) for needle in needles), caught.value


def test_a_fallback_import_is_not_refused(package: str):
    found = signature_of(f"{package}.fallback")
    assert found is None or list(found.parameters) == ["a", "b"]


def test_folders_without_init(package: str):
    found = signature_of(f"{package}_spaces.inner.net.net")
    assert found is not None
    assert list(found.parameters) == ["width"]
    with pytest.raises(ConfigError, match="no module 'ned'"):
        signature_of(f"{package}_spaces.ned.net")


@pytest.mark.parametrize("target", ["nets", "a..b", "a.3", "", "torch.nn.Linear()", "3"])
def test_no_dotted_path(target: str):
    with pytest.raises(ConfigError, match="not a dotted path"):
        signature_of(target)


@pytest.mark.parametrize("target", ["math.sqrt", "builtins.dict", "sys.exit"])
def test_what_is_not_python_is_left_to_build(target: str):
    assert signature_of(target) is None


def test_nothing_is_imported(package: str):
    signature_of(f"{package}.sub.deep.Deep")
    assert not [name for name in sys.modules if name.startswith(package)]
