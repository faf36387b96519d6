"""How metrics add up batches: on the device, without waiting for it, in one tensor.

`update` neither waits for the device nor allocates state; `compute` waits once. A metric's sums stand in one tensor,
`totals`, so that adding the totals of several processes gives the metric over all their examples.
"""

from __future__ import annotations

import torch
from torch import Tensor


def counts(size: int, device: torch.device) -> Tensor:
    """(size,) zeros for counting."""
    return torch.zeros(size, dtype=torch.int64, device=device)


def sums(*shape: int, device: torch.device) -> Tensor:
    """Zeros for sums over many batches, in float64 where the device has it; MPS has not."""
    return torch.zeros(shape, dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)


def ratio(part: float, whole: float) -> float:
    """part / whole; 0 of nothing."""
    return part / whole if whole else 0.0
