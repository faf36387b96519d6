"""What several augmentations need: refusing data they cannot change, rectangles, images as floats."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from dlrun.contracts import SHAPES, Batch, DataSpec, Kind
from dlrun.errors import ContractError

Fill = Literal["zero", "mean", "noise"]


def require(part: str, spec: DataSpec, *kinds: Kind) -> None:
    """Refuse, in the augmentation's name, data of any other kind than `kinds`. Raises: ContractError."""
    if spec.kind not in kinds:
        wanted = " or ".join(f"{kind.plural} {SHAPES[kind]}" for kind in kinds)
        raise ContractError(
            f"augment={part} changes {wanted}, but data={spec.name} gives {spec.kind.plural} of shape {spec.shape}: "
            "leave it out"
        )


def inputs_of(batch: Batch) -> Tensor:
    """The inputs of a batch of one tensor. Raises: ContractError for a tuple."""
    if not isinstance(batch.inputs, Tensor):
        raise ContractError(f"augment works on one input tensor, and these data have {len(batch.inputs)}: augment=none")
    return batch.inputs


def to_float(inputs: Tensor) -> Tensor:
    """uint8 0-255 as float32 in [0, 1]; floats as they are."""
    return inputs if inputs.is_floating_point() else inputs.float() / 255


def box(top: Tensor, left: Tensor, height: Tensor, width: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, 1, H, W), true within each example's rectangle; (B,) integers, which may lie outside the image."""
    rows = torch.arange(size[0], device=top.device)
    columns = torch.arange(size[1], device=top.device)
    inside_rows = (rows >= top[:, None]) & (rows < (top + height)[:, None])
    inside_columns = (columns >= left[:, None]) & (columns < (left + width)[:, None])
    return inside_rows[:, None, :, None] & inside_columns[:, None, None, :]


def choose(mask: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """torch.where(mask, one, other) of finite numbers of one dtype, exact, and usually several times faster on the CPU.

    There, torch.where takes elements one by one, while lerp and products are vectorised. `mask` and `one` may be
    smaller than `other`, as far as they broadcast to its shape.
    """
    if one.is_floating_point():
        return torch.lerp(other, one, mask.to(one.dtype))
    return (other * ~mask).add_(one * mask)


def fill(images: Tensor, mask: Tensor, how: Fill, mean: tuple[float, ...], generator: torch.Generator) -> Tensor:
    """`images` with black, the channels' `mean` (in [0, 1]; black if empty) or uniform noise where `mask` is true."""
    if how == "noise":
        drawn = torch.rand(images.shape, generator=generator, device=images.device)
        return choose(mask, drawn.to(images.dtype) if images.is_floating_point() else (drawn * 256).byte(), images)
    if how == "zero" or not mean:
        return images * ~mask
    # torch.full writes on the device; torch.tensor(mean, device=...) would copy from the host and wait.
    scaled = mean if images.is_floating_point() else [round(255 * value) for value in mean]
    values = torch.stack([torch.full((1, 1), v, dtype=images.dtype, device=images.device) for v in scaled])
    return choose(mask, values, images)
