"""Activation checkpointing: the repeated blocks of any model keep their inputs alone until the backward pass."""

import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from dlrun.errors import ConfigError
from dlrun.layers.recompute import recomputed


def checkpoint_activations(model: nn.Module) -> None:
    """Let each block of `model` compute its inner activations a second time instead of keeping them.

    A block is an entry of a nn.ModuleList or nn.Sequential that consists of modules itself, the outermost where they
    are nested. Gradients stay the same, dropout included; so do the names in the state_dict.

    Raises: ConfigError if there are no blocks.
    """
    blocks = list(_blocks(model))
    if not blocks:
        raise ConfigError(
            f"trainer.checkpoint_activations=true: {type(model).__name__} has no repeated blocks (entries of a "
            "nn.ModuleList or nn.Sequential with modules of their own), so nothing could be saved; leave it false."
        )
    for block in blocks:
        block.__class__ = _checkpointed(type(block))  # type: ignore[arg-type]  # a class is hashable


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        is_entry = isinstance(module, nn.ModuleList | nn.Sequential)
        if is_entry and not isinstance(child, nn.ModuleList | nn.ModuleDict) and next(child.children(), None):
            yield child
        else:
            yield from _blocks(child)


@functools.cache
def _checkpointed(kind: type[nn.Module]) -> type[nn.Module]:
    """`kind` with another forward. A class, unlike a replaced method, survives a deep copy of the model."""

    def forward(self: nn.Module, *inputs: Any, **options: Any) -> Any:
        plain = functools.partial(kind.forward, self, **options)
        return recomputed(plain, self, *inputs) if self.training and torch.is_grad_enabled() else plain(*inputs)

    return type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})
