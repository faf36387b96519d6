"""RandAugment and TrivialAugment: random operations from one list, each image its own."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from dlrun.augment.common import fill, inputs_of, require
from dlrun.augment.operations import OPERATIONS, Space, tone, warp
from dlrun.contracts import Batch, DataSpec, Interval, Kind, PositiveInt

LEVELS = 30  # a level is a whole number from 0 to this
STANDARD = Space(shear=0.3, shift_share=150 / 331, shift_pixels=0.0, degrees=30.0, blend=0.9, bits=4)
WIDE = Space(shear=0.99, shift_share=0.0, shift_pixels=32.0, degrees=135.0, blend=0.99, bits=6)
FillName = Literal["zero", "mean", "noise"]


@dataclass(frozen=True)
class RandAugment:
    """Apply `operations` of the fourteen operations to each image, drawn with equal chances, all at one magnitude.

    What has a direction takes either with equal chance. `dlrun.augment.operations` lists the operations.

    Args:
        operations: how many in succession, N in the paper.
        magnitude: how strong, M in the paper, 30 being the strongest.
        fill: what comes in from outside the image: zero, the mean of the training images, or noise.

    Raises: ContractError if the data are not images.
    Source: Cubuk et al. 2019 (arXiv:1909.13719), with 30 levels and torchvision's ranges.
    """

    spec: DataSpec
    operations: PositiveInt = 2
    magnitude: Annotated[int, Interval(0, LEVELS)] = 9
    fill: FillName = "zero"

    def __post_init__(self) -> None:
        require("randaugment", self.spec, Kind.IMAGE)

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        images = inputs_of(batch)
        for _ in range(self.operations):
            operation, sign, _ = draw(len(images), generator)
            level = sign * (self.magnitude / LEVELS)
            images = apply(images, operation, level, STANDARD, self.fill, self.spec.mean, generator)
        return dataclasses.replace(batch, inputs=images)


@dataclass(frozen=True)
class TrivialAugment:
    """Apply one of the fourteen operations to each image, operation and level drawn with equal chances.

    Args:
        strength: wide, the paper's best (shears to 0.99, shifts to 32 pixels, turns to 135 degrees, 2 bits), which on
            images of about 32 pixels may shift everything out; standard, the ranges of RandAugment.
        fill: what comes in from outside the image: zero, the mean of the training images, or noise.

    Raises: ContractError if the data are not images.
    Source: Müller & Hutter 2021 (arXiv:2103.10158), with 31 levels.
    """

    spec: DataSpec
    strength: Literal["wide", "standard"] = "wide"
    fill: FillName = "zero"

    def __post_init__(self) -> None:
        require("trivialaugment", self.spec, Kind.IMAGE)

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        images = inputs_of(batch)
        operation, sign, level = draw(len(images), generator)
        space = WIDE if self.strength == "wide" else STANDARD
        changed = apply(images, operation, sign * level, space, self.fill, self.spec.mean, generator)
        return dataclasses.replace(batch, inputs=changed)


def draw(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """For each of `count` images an operation, a sign -1 or 1, and a level in [0, 1], on the generator's device."""
    device = generator.device
    operation = torch.randint(len(OPERATIONS), (count,), generator=generator, device=device)
    sign = torch.randint(2, (count,), generator=generator, device=device) * 2 - 1
    level = torch.randint(LEVELS + 1, (count,), generator=generator, device=device) / LEVELS
    return operation, sign, level


def apply(
    images: Tensor,
    operation: Tensor,
    level: Tensor,
    space: Space,
    how: FillName,
    mean: tuple[float, ...],
    generator: torch.Generator,
) -> Tensor:
    """Each image (B, C, H, W) changed by its operation (B,) at its signed level (B,); dtype kept."""
    moved, outside = warp(images, operation, level, space)
    return tone(fill(moved, outside, how, mean, generator), operation, level, space)
