"""Numbers a model predicts, standardised, and the same in the target's own units."""

import torch
from torch import Tensor

from dlrun.contracts import DataSpec


def own_units(outputs: Tensor, spec: DataSpec) -> Tensor:
    """Standardised (B, outputs) in the units of the targets; what was not standardised stays as it is."""
    if not spec.target_std:
        return outputs
    std, mean = _scales(outputs, spec)
    values: Tensor = outputs.reshape(*outputs.shape[:-1], -1, len(std)) * std + mean
    return values.flatten(-2)


def standardised(values: Tensor, spec: DataSpec) -> Tensor:
    """The inverse of `own_units`."""
    if not spec.target_std:
        return values
    std, mean = _scales(values, spec)
    outputs: Tensor = (values.reshape(*values.shape[:-1], -1, len(std)) - mean) / std
    return outputs.flatten(-2)


def _scales(like: Tensor, spec: DataSpec) -> tuple[Tensor, Tensor]:
    """(C,) each, for the last C of the outputs, time first."""
    std, mean = (torch.tensor(values, device=like.device) for values in (spec.target_std, spec.target_mean))
    return std.to(like.dtype), mean.to(like.dtype)
