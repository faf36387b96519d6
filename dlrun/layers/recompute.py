"""Memory for time: a module whose inner results are computed again in the backward pass instead of being kept."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dlrun.layers.buffers import buffers_kept


def recomputed(function: Callable[..., Tensor], module: nn.Module, *inputs: Tensor) -> Tensor:
    """`function(*inputs)`, of which only inputs and output are kept until the backward pass.

    Gradients are those of the plain call, random masks included. Buffers, such as the running statistics of batch norm,
    change once, although what changes them runs twice.
    Without gradients, and under torch.compile, which decides for itself what to keep, this is the plain call. In a CUDA
    graph masks are the same, too: as of torch 2.10 a generator's state can be read and set back while one is recorded.

    Args:
        function: what to compute with `module`; called again, with the same inputs, in the backward pass.
        module: contains the buffers that must not change in that second call.

    Source: Chen et al. 2016 (arXiv:1604.06174); of the generators: pytorch#162505.
    """
    if not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return function(*inputs)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), buffers_kept(module)

    return checkpoint(function, *inputs, use_reentrant=False, context_fn=contexts)
