"""How much memory a step keeps for its backward pass, measured on any device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from types import TracebackType
from typing import Self

import torch
from torch import Tensor


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
