"""Hiding a rectangle of each image: random erasing and Cutout."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dlrun.augment.common import box, fill, inputs_of, require
from dlrun.contracts import Batch, DataSpec, Fraction, Kind, PositiveFloat, PositiveInt
from dlrun.errors import ConfigError, ContractError


@dataclass(frozen=True)
class Erasing:
    """Cover, with probability `p`, a rectangle of random area, shape and place within each image.

    The area is uniform in `scale`, as a share of the image; height / width is log-uniform among the values in `ratio`
    with which the rectangle fits (the paper draws again until it does); sides are rounded to whole pixels.

    Raises:
        ContractError if the data are not images.
        ConfigError if a range is not in order.
    Source: Zhong et al. 2017 (arXiv:1708.04896).
    """

    spec: DataSpec
    p: Fraction = 0.5
    scale: tuple[Fraction, Fraction] = (0.02, 0.4)
    ratio: tuple[PositiveFloat, PositiveFloat] = (0.3, 10 / 3)
    fill: Literal["zero", "mean", "noise"] = "noise"

    def __post_init__(self) -> None:
        require("erasing", self.spec, Kind.IMAGE)
        for name, (low, high) in {"scale": self.scale, "ratio": self.ratio}.items():
            if low > high:
                raise ConfigError(f"augment.erasing.{name} must be [smallest, largest], got [{low:g}, {high:g}]")

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        images = inputs_of(batch)
        size = (images.shape[2], images.shape[3])
        chosen, area, shape, y, x = torch.rand(5, len(images), generator=generator, device=images.device)
        height, width = self._sides(area, shape, *size)
        mask = box((y * (size[0] - height + 1)).long(), (x * (size[1] - width + 1)).long(), height, width, size)
        mask = mask & (chosen < self.p)[:, None, None, None]
        return dataclasses.replace(batch, inputs=fill(images, mask, self.fill, self.spec.mean, generator))

    def _sides(self, area: Tensor, shape: Tensor, rows: int, columns: int) -> tuple[Tensor, Tensor]:
        """Heights and widths in pixels from two uniform numbers for each example."""
        pixels = rows * columns * (self.scale[0] + (self.scale[1] - self.scale[0]) * area)
        lowest = (pixels / columns**2).clamp(min=self.ratio[0]).log()
        highest = (rows**2 / pixels).clamp(max=self.ratio[1]).log()
        ratio = torch.lerp(lowest, highest.maximum(lowest), shape).exp()
        height = (pixels * ratio).sqrt().round().clamp(1, rows).long()
        width = (pixels / ratio).sqrt().round().clamp(1, columns).long()
        return height, width


@dataclass(frozen=True)
class Cutout:
    """Cover a square of `size` pixels in each image, its centre uniform over the image, so that it may hang over.

    Raises: ContractError if the data are not images, or smaller than the square.
    Source: DeVries & Taylor 2017 (arXiv:1708.04552), where normalised images are filled with 0, their mean.
    """

    spec: DataSpec
    size: PositiveInt = 8
    fill: Literal["zero", "mean", "noise"] = "mean"

    def __post_init__(self) -> None:
        require("cutout", self.spec, Kind.IMAGE)
        if self.size > min(self.spec.shape[1:]):
            raise ContractError(
                f"augment.cutout.size must be at most the height and width of the images of data={self.spec.name}, "
                f"of shape {self.spec.shape}, got {self.size}"
            )

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        images = inputs_of(batch)
        rows, columns = images.shape[2], images.shape[3]
        y, x = torch.rand(2, len(images), generator=generator, device=images.device)
        side = torch.full_like(y, self.size, dtype=torch.int64)
        half = self.size // 2
        mask = box((y * rows).long() - half, (x * columns).long() - half, side, side, (rows, columns))
        return dataclasses.replace(batch, inputs=fill(images, mask, self.fill, self.spec.mean, generator))
