"""The batches of several runs at one step, as one: each run has its own order, labels and augmentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dlrun.contracts import Arrays, Batch
from dlrun.engine.loaders import Draw, Loader, ResidentLoader


class Batches:
    """Makes the batches of K loaders, (K, B, …), one after the other; call `begin` first.

    Where all gather from the same inputs, and nothing random happens to them, one gather serves for all.

    Attributes:
        position: of the next batch in its epoch.
    """

    def __init__(self, loaders: Sequence[Loader]) -> None:
        self.loaders = [loader for loader in loaders if isinstance(loader, ResidentLoader)]
        assert len(self.loaders) == len(loaders)
        self.position = 0
        self._inputs = _common_inputs(self.loaders)
        self._targets: Tensor | None = None  # (K, N), where they differ
        if self._inputs is not None:
            own = [loader.examples.targets for loader in self.loaders]  # type: ignore[attr-defined]
            self._common_targets: Tensor = own[0]
            if any(targets is not own[0] for targets in own):
                self._targets = torch.stack(own)

    def begin(self, epoch: int, first: int) -> None:
        """Let the next batch be the one at position `first` of an epoch."""
        self.position = first
        if self._inputs is None:
            self._draws = [loader.draws(epoch, first) for loader in self.loaders]
            return
        device, size = self.loaders[0].device, self.loaders[0].batch_size
        orders = torch.stack([loader.order(epoch) for loader in self.loaders])
        pinned = orders.pin_memory() if device.type == "cuda" else orders
        self._index = pinned.to(device, non_blocking=True).split(size, 1)  # (K, B) each

    def next(self, most: int | None = None) -> tuple[tuple[Tensor, ...], Tensor]:
        """The models' arguments, and the targets, of the next batch, or of its first `most` examples."""
        position, self.position = self.position, self.position + 1
        if self._inputs is None:
            draws = [_first(next(draws), most) for draws in self._draws]
            return _stacked([_made(loader, draw) for loader, draw in zip(self.loaders, draws, strict=True)])
        index = self._index[position][:, :most]
        flat = index.flatten()
        if self._targets is None:
            targets = self._common_targets.index_select(0, flat)
        else:
            whole = self._targets  # (K, N, …)
            rows = torch.arange(len(whole), device=flat.device).unsqueeze(1)
            targets = whole[rows, index].flatten(0, 1)
        batch = self.loaders[0].prepare.apply(Batch(self._inputs.index_select(0, flat), targets))
        assert isinstance(batch.inputs, Tensor)
        return (batch.inputs.unflatten(0, index.shape),), batch.targets.unflatten(0, index.shape)


def _common_inputs(loaders: Sequence[Any]) -> Tensor | None:
    """The inputs that all loaders gather from, if one gather can serve for all."""
    first = loaders[0]
    for loader in loaders:
        if not isinstance(loader, ResidentLoader) or not isinstance(loader.examples, Arrays) or loader.prepare.augment:
            return None
        if loader.examples.inputs is not first.examples.inputs:
            return None
    inputs: Tensor = first.examples.inputs
    return inputs


def _first(draw: Draw, most: int | None) -> Draw:
    if most is None:
        return draw
    return Draw(draw.step, min(most, draw.size), tuple(tensor[:most] for tensor in draw.tensors), draw.longest)


def _made(loader: Loader, draw: Draw) -> Batch:
    loader.prepare.seed_for(draw.step)
    return loader.make(draw)


def _stacked(batches: Sequence[Batch]) -> tuple[tuple[Tensor, ...], Tensor]:
    arguments = tuple(torch.stack(own) for own in zip(*(batch.arguments for batch in batches), strict=True))
    return arguments, torch.stack([batch.targets for batch in batches])
