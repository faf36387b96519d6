"""Optimizers without torch._dynamo, which torch loads at the first of them and which takes as long to load as torch.

Two wrappers in torch.optim import the compiler only to tell it where not to look: `_disable_dynamo` around methods of
Optimizer such as `zero_grad`, and `_use_grad_for_differentiable` around each `step`. In a process that compiles nothing
nobody is looking. `keep_dynamo_unloaded` lets them go straight to the method for as long as torch._dynamo has not been
loaded by something else (`trainer.compile=true`, activation checkpointing); from then on they are torch's own again.

It knows the wrappers by their code, and leaves alone what it does not know: in a torch that is made differently,
torch._dynamo is loaded as ever, and nothing else changes.
"""

import functools
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer

DYNAMO = "torch._dynamo"
Method = Callable[..., Any]


def keep_dynamo_unloaded() -> None:
    """Make and use optimizers of torch.optim without loading torch._dynamo. May be called again."""
    if DYNAMO in sys.modules:
        return
    disabled = _code_of_wrapper(getattr(torch, "_disable_dynamo", None))
    graph_broken = _code_of_wrapper(getattr(sys.modules[Optimizer.__module__], "_use_grad_for_differentiable", None))
    for method in _methods(Optimizer, disabled).values():
        _answer_ahead(method)
    for kind in vars(torch.optim).values():
        if isinstance(kind, type) and issubclass(kind, Optimizer):
            for name, method in _methods(kind, graph_broken).items():
                setattr(kind, name, _step(method))


def _code_of_wrapper(decorator: Any) -> Any:
    """The code that all functions share that `decorator` has wrapped; None if there is no such decorator."""

    def probe(*_: Any) -> None:
        """Wrapped and never called."""

    return getattr(decorator(probe), "__code__", None) if callable(decorator) else None


def _methods(kind: type, code: Any) -> dict[str, Any]:
    """The methods of a class, by name, whose wrapper has this code."""
    if code is None:
        return {}
    found = {name: value for name, value in vars(kind).items() if getattr(value, "__code__", None) is code}
    return {name: value for name, value in found.items() if hasattr(value, "__wrapped__")}


def _answer_ahead(wrapper: Any) -> None:
    """Leave with a method what its wrapper would have asked torch._dynamo for: the function to call instead of it."""
    method = wrapper.__wrapped__

    def call(*args: Any, **kwargs: Any) -> Any:
        if DYNAMO in sys.modules:
            del method.__dynamo_disable
            return wrapper(*args, **kwargs)  # which asks now
        return method(*args, **kwargs)

    if not hasattr(method, "__dynamo_disable"):
        method.__dynamo_disable = call


def _step(wrapper: Any) -> Method:
    """A `step` that does what its wrapper does where nothing compiles: record gradients only if differentiable."""
    method = wrapper.__wrapped__

    @functools.wraps(method)
    def step(self: Optimizer, *args: Any, **kwargs: Any) -> Any:
        if DYNAMO in sys.modules:
            return wrapper(self, *args, **kwargs)
        with torch.set_grad_enabled(bool(self.defaults["differentiable"])):
            return method(self, *args, **kwargs)

    return step
