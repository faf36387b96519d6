"""Forward passes that leave no trace in a model's buffers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def buffers_kept(module: nn.Module) -> Iterator[None]:
    """Whatever `module` writes into its buffers in here (running statistics, counters) goes into copies."""
    owners = [(owner, owner._buffers) for owner in module.modules() if owner._buffers]
    for owner, buffers in owners:
        owner._buffers = {name: None if buffer is None else buffer.clone() for name, buffer in buffers.items()}
    try:
        yield
    finally:
        for owner, buffers in owners:
            owner._buffers = buffers
