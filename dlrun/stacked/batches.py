"""The batches of several runs at one step, as one: each run has its own order, labels and augmentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dlrun.contracts import Arrays, Batch
from dlrun.engine.loaders import Draw, Loader, ResidentLoader


class Batches:
    """Makes the batches of K loaders, (K, B, …).

    Where all gather from the same inputs, and nothing random happens to them, one gather serves for all.
    """

    def __init__(self, loaders: Sequence[Loader]) -> None:
        self.loaders = list(loaders)
        self._inputs = _common_inputs(self.loaders)
        self._targets: Tensor | None = None  # (K, N), where they differ
        if self._inputs is not None:
            own = [loader.examples.targets for loader in self.loaders]  # type: ignore[attr-defined]
            self._common_targets: Tensor = own[0]
            if any(targets is not own[0] for targets in own):
                self._targets = torch.stack(own)

    def make(self, draws: Sequence[Draw]) -> tuple[tuple[Tensor, ...], Tensor]:
        """The models' arguments, and the targets, by work on the device alone."""
        if self._inputs is None:
            return _stacked([_made(loader, draw) for loader, draw in zip(self.loaders, draws, strict=True)])
        index = torch.stack([draw.tensors[0] for draw in draws])  # (K, B)
        flat = index.flatten()
        if self._targets is None:
            targets = self._common_targets.index_select(0, flat)
        else:
            rows = index.view(*index.shape, *(1,) * (self._targets.ndim - 2)).expand(
                *index.shape, *self._targets.shape[2:]
            )
            targets = self._targets.gather(1, rows).flatten(0, 1)
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


def _made(loader: Loader, draw: Draw) -> Batch:
    loader.prepare.seed_for(draw.step)
    return loader.make(draw)


def _stacked(batches: Sequence[Batch]) -> tuple[tuple[Tensor, ...], Tensor]:
    arguments = tuple(torch.stack(own) for own in zip(*(batch.arguments for batch in batches), strict=True))
    return arguments, torch.stack([batch.targets for batch in batches])
