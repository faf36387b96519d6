"""How much memory a computation takes, measured on any device."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, UntypedStorage
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


def peak_bytes(compute: Callable[[], object], device: torch.device) -> int:
    """The most bytes that `compute()` has allocated at one time, beside what was there before.

    On CUDA as its allocator counts; elsewhere of all tensors, without what single kernels need for themselves.
    """
    if device.type != "cuda":
        made = Allocations()
        with made:
            compute()
        return made.peak
    before = int(torch.cuda.memory_allocated(device))
    torch.cuda.reset_peak_memory_stats(device)
    compute()
    return int(torch.cuda.max_memory_allocated(device)) - before


class _Following:
    """What `Allocations` does. A class of its own, as torch loads its compiler to keep it off a mode's methods."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._now = 0
        self._known: dict[int, weakref.ref[UntypedStorage]] = {}

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), options: dict[str, Any] | None = None
    ) -> Any:
        for value in tree_iter((arguments, options)):
            if isinstance(value, Tensor):
                self._follow(value, counted=False)  # there before, unless it is followed already
        result = function(*arguments, **(options or {}))
        for value in tree_iter(result):
            if isinstance(value, Tensor):
                self._follow(value, counted=True)
        return result

    def _follow(self, tensor: Tensor, counted: bool) -> None:
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._known and self._known[key]() is storage:
            return
        size = storage.nbytes() if counted else 0
        self._now += size
        self.peak = max(self.peak, self._now)

        def gone(_: object) -> None:
            self._now -= size
            self._known.pop(key, None)

        self._known[key] = weakref.ref(storage, gone)


class Allocations(_Following, TorchDispatchMode):
    """While it is entered, follows the tensors that operations make until they are let go.

    Attributes:
        peak: the most bytes of them at one time.
    """


class KeptForBackward:
    """While it is entered, notes what forward passes keep for their backward passes, whatever is let go meanwhile.

    So micro-batches, which follow one another, count once, and blocks that are computed twice by what they keep.

    Args:
        owned: tensors that are there anyway, such as parameters.

    Attributes:
        peak: the most bytes that were kept at one time.
    """

    def __init__(self, owned: Iterable[Tensor] = ()) -> None:
        self.peak = self._now = 0
        self._owned = {tensor.untyped_storage().data_ptr() for tensor in owned}
        self._holders: Counter[int] = Counter()
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._keep, lambda kept: kept.tensor)

    def __enter__(self) -> Self:
        self._hooks.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hooks.__exit__(kind, error, trace)

    def _keep(self, tensor: Tensor) -> _Kept:
        storage = tensor.untyped_storage()
        address = storage.data_ptr()
        if address not in self._owned:
            if not self._holders[address]:
                self._now += storage.nbytes()
                self.peak = max(self.peak, self._now)
            self._holders[address] += 1
        return _Kept(self, tensor)

    def _let_go(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        address = storage.data_ptr()
        if address not in self._owned:
            self._holders[address] -= 1
            if not self._holders[address]:
                self._now -= storage.nbytes()


class _Kept:
    """One tensor that autograd keeps; it goes when autograd lets it go."""

    def __init__(self, owner: KeptForBackward, tensor: Tensor) -> None:
        self.owner, self.tensor = owner, tensor

    def __del__(self) -> None:
        self.owner._let_go(self.tensor)
