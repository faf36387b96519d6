"""Memory for time: a module whose inner results are computed again in the backward pass instead of being kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def recomputed(function: Callable[..., Tensor], module: nn.Module, *inputs: Tensor) -> Tensor:
    """`function(*inputs)`, of which only inputs and output are kept until the backward pass.

    Gradients are those of the plain call, random masks included. Buffers, such as the running statistics of batch norm,
    change once, although what changes them runs twice.
    Without gradients, and under torch.compile, which decides for itself what to keep, this is the plain call.

    Args:
        function: what to compute with `module`; called again, with the same inputs, in the backward pass.
        module: contains the buffers that must not change in that second call.

    Source: Chen et al. 2016 (arXiv:1604.06174).
    """
    if not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return function(*inputs)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _buffers_kept(module)

    return checkpoint(function, *inputs, use_reentrant=False, context_fn=contexts)


@contextmanager
def _buffers_kept(module: nn.Module) -> Iterator[None]:
    """Whatever `module` writes into its buffers in here goes into copies."""
    owners = [(owner, owner._buffers) for owner in module.modules() if owner._buffers]
    for owner, buffers in owners:
        owner._buffers = {name: None if buffer is None else buffer.clone() for name, buffer in buffers.items()}
    try:
        yield
    finally:
        for owner, buffers in owners:
            owner._buffers = buffers
