"""What a step does on the host, of which a CUDA graph repeats nothing: changes there, and waits for the device."""

from __future__ import annotations

import random
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dlrun.engine.step import TrainStep

PLAIN = (bool, int, float, str, type(None))
SEQUENCES = (list, tuple, deque)
WATCHED = (*PLAIN, Tensor, *SEQUENCES, dict, set, frozenset)
# What torch registers of a module: buffers are looked at by themselves, the others are no state.
REGISTRIES = frozenset(name for name, value in vars(nn.Module()).items() if isinstance(value, dict | set))

WAITING = "called a synchronizing CUDA operation"  # c10/cuda/CUDAFunctions.cpp
PROTOTYPE = "Synchronization debug mode is a prototype"  # said once, when that mode is first set


class HostState:
    """What a replayed graph would leave behind unchanged: attributes of modules, and the generators of the host.

    Of a list, dictionary or set it is what they hold, but not what those hold in turn. Values are kept, not copied, as
    what is let go may leave its address to what comes after it; so let go of this soon.

    Args:
        augment: what changes the batches of the step.
    """

    def __init__(self, step: TrainStep, augment: Sequence[object] = ()) -> None:
        self.attributes = {
            f"{path}.{name}": _held(value)
            for path, owner in (*_owners(step), *((type(change).__name__, change) for change in augment))
            for name, value in getattr(owner, "__dict__", {}).items()
            if isinstance(value, WATCHED) and not (isinstance(owner, nn.Module) and name in REGISTRIES)
        }
        self.buffers: dict[str, Any] = dict(step.model.named_buffers())
        self.random = (random.getstate(), np.random.get_state(legacy=True), torch.get_rng_state())

    def change(self, later: HostState) -> str:
        """What differs in `later`, as half a sentence; empty if nothing does."""
        for kind in ("attributes", "buffers"):
            ours, theirs = getattr(self, kind), getattr(later, kind)
            for name in dict.fromkeys((*theirs, *ours)):
                if name not in ours or name not in theirs or not _is_unchanged(ours[name], theirs[name]):
                    return f"a step changes {name}, which is not on the device"
        names = ("random", "numpy.random", "torch's generator of the CPU")
        for name, before, after in zip(names, self.random, later.random, strict=True):
            if not _same(before, after):
                return f"a step draws random numbers from {name}, not on the device"
        return ""


@contextmanager
def waits(device: torch.device) -> Iterator[list[str]]:
    """Collect, in the list that it gives, the waits of the host for the device in here, each by where it comes from.

    Found is what PyTorch itself takes for such: numbers read, copies to and from memory that is not pinned, sizes that
    depend on values. Not found are torch.cuda.synchronize, and waits in the libraries that PyTorch calls.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.cuda.set_sync_debug_mode.html
    """
    found: list[str] = []
    if device.type != "cuda":
        yield found
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode(before)
    found += [f"{one.filename}:{one.lineno}" for one in caught if WAITING in str(one.message)]
    said: dict[Any, Any] = {}
    for one in caught:
        if not any(text in str(one.message) for text in (WAITING, PROTOTYPE)):
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno, registry=said)


def _owners(step: TrainStep) -> Iterator[tuple[str, Any]]:
    for name, module in step.model.named_modules():
        yield f"model.{name}".rstrip("."), module
    for owner in (*step.objective.terms, *step.metrics):
        yield type(owner).__name__, owner
        for part in vars(owner).values():
            if isinstance(part, nn.Module):
                for name, module in part.named_modules():
                    yield f"{type(part).__name__}.{name}".rstrip("."), module


def _held(value: Any) -> Any:
    """The value itself; of a container what it holds now."""
    for kinds, copied in ((SEQUENCES, list), (dict, dict), ((set, frozenset), set)):
        if isinstance(value, kinds):
            return copied(value)
    return value


def _is_unchanged(ours: Any, theirs: Any) -> bool:
    if type(ours) is not type(theirs):
        return False
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(_is_same, ours, theirs))
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(_is_same(value, theirs[key]) for key, value in ours.items())
    return ours == theirs if isinstance(ours, set) else _is_same(ours, theirs)


def _is_same(ours: Any, theirs: Any) -> bool:
    return ours is theirs or (type(ours) is type(theirs) and isinstance(ours, PLAIN) and ours == theirs)


def _same(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, tuple):
        return all(_same(a, b) for a, b in zip(ours, theirs, strict=True))
    return bool(torch.equal(ours, theirs) if isinstance(ours, Tensor) else np.array_equal(ours, theirs))
