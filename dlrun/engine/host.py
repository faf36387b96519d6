"""What a step changes on the host, of which a replayed CUDA graph repeats nothing."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator, Sequence
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
