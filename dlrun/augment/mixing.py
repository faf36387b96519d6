"""Blending examples and their targets: mixup and CutMix."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dlrun.augment.common import box, choose, inputs_of, require, to_float
from dlrun.contracts import Batch, DataSpec, Fraction, Kind, PositiveFloat, Task
from dlrun.errors import ContractError

MIXABLE = (Task.CLASSIFICATION, Task.MULTILABEL, Task.REGRESSION)


@dataclass(frozen=True)
class Mixup:
    """Replace each example by λ · itself + (1 - λ) · another of the batch, targets alike; λ ~ Beta(alpha, alpha).

    Inputs become floats, uint8 images in [0, 1]; class indices become probabilities (B, classes). Each example has
    its own λ.

    Raises: ContractError if the data are tokens, or targets cannot be blended.
    Source: Zhang et al. 2017 (arXiv:1710.09412).
    """

    spec: DataSpec
    alpha: PositiveFloat = 0.2

    def __post_init__(self) -> None:
        require("mixup", self.spec, Kind.VECTOR, Kind.IMAGE, Kind.SEQUENCE)
        _require_mixable("mixup", self.spec)

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        inputs = to_float(inputs_of(batch))
        share = symmetric_beta(self.alpha, len(inputs), generator)
        partner = permutation(len(inputs), generator)
        own = share.to(inputs.dtype).view(-1, *[1] * (inputs.ndim - 1))
        mixed = torch.lerp(inputs.index_select(0, partner), inputs, own)
        return Batch(mixed, mix_targets(batch.targets, partner, share, self.spec))


@dataclass(frozen=True)
class CutMix:
    """Paste a rectangle of another image of the batch into each; targets are mixed by the exact shares of pixels.

    The rectangle has the shape of the image and 1 - λ of its area, λ ~ Beta(alpha, alpha); its centre is uniform over
    the image, and what hangs over is cut off. Class indices become probabilities (B, classes).

    Raises: ContractError if the data are not images, or targets cannot be blended.
    Source: Yun et al. 2019 (arXiv:1905.04899), with a rectangle for each example.
    """

    spec: DataSpec
    alpha: PositiveFloat = 1.0
    p: Fraction = 1.0

    def __post_init__(self) -> None:
        require("cutmix", self.spec, Kind.IMAGE)
        _require_mixable("cutmix", self.spec)

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        images = inputs_of(batch)
        rows, columns = images.shape[2], images.shape[3]
        side = (1 - symmetric_beta(self.alpha, len(images), generator)).sqrt()
        partner = permutation(len(images), generator)
        chosen, y, x = torch.rand(3, len(images), generator=generator, device=images.device)
        height, width = (side * rows).long(), (side * columns).long()
        top, left = (y * rows).long() - height // 2, (x * columns).long() - width // 2
        bottom, right = (top + height).clamp(max=rows), (left + width).clamp(max=columns)
        top, left = top.clamp(min=0), left.clamp(min=0)
        height, width = (bottom - top) * (chosen < self.p), right - left
        mask = box(top, left, height, width, (rows, columns))
        share = 1 - height * width / (rows * columns)
        mixed = choose(mask, images.index_select(0, partner), images)
        return Batch(mixed, mix_targets(batch.targets, partner, share, self.spec))


def symmetric_beta(alpha: float, count: int, generator: torch.Generator) -> Tensor:
    """(count,) draws from Beta(alpha, alpha), on the generator's device, from two uniform numbers each.

    ½ + ½ s / √(1 + 1 / ((u^(-1/alpha) - 1) cos² 2πv)) with s the sign of cos 2πv, which is exact; PyTorch's own
    sampler takes no generator. Source: Ulrich 1984; Devroye 1986, Non-Uniform Random Variate Generation, IX.3.
    """
    u, v = torch.rand(2, count, generator=generator, device=generator.device)
    cos = torch.cos(2 * math.pi * v)
    spread = torch.expm1(-u.log() / alpha) * cos.square()
    return 0.5 + 0.5 * cos.sign() * (1 + spread.reciprocal()).rsqrt()


def permutation(count: int, generator: torch.Generator) -> Tensor:
    """A random order of `count` examples, on the generator's device."""
    return torch.rand(count, generator=generator, device=generator.device).argsort()


def mix_targets(targets: Tensor, partner: Tensor, share: Tensor, spec: DataSpec) -> Tensor:
    """share · targets + (1 - share) · targets[partner]; class indices as probabilities."""
    if spec.task is Task.CLASSIFICATION and targets.ndim == 1:
        # Not F.one_hot, which waits for the device to look for indices out of range.
        targets = (targets[:, None] == torch.arange(spec.num_outputs, device=targets.device)).float()
    own = share.to(targets.dtype).view(-1, *[1] * (targets.ndim - 1))
    return torch.lerp(targets.index_select(0, partner), targets, own)


def _require_mixable(part: str, spec: DataSpec) -> None:
    if spec.task not in MIXABLE:
        wanted = ", ".join(task.value for task in MIXABLE)
        raise ContractError(
            f"augment={part} blends the targets of {wanted}, but data={spec.name} is a "
            f"{spec.task.value.replace('_', ' ')} task: leave it out"
        )
