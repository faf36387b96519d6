"""The first layers of networks for images: how small an image becomes before the first block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import nn

from dlrun.contracts import Activation, Norm
from dlrun.layers.convolution import conv_of, norm_activation

Stem = Literal["auto", "imagenet", "cifar"]
LARGE = 96  # pixels; a quarter of this is still a good deal of image


def resolve_stem(stem: Stem, size: Sequence[int]) -> Literal["imagenet", "cifar"]:
    """`stem`, or for auto the one for images of `size` (H, W): cifar if a side is shorter than 96 pixels."""
    if stem != "auto":
        return stem
    return "cifar" if min(size) < LARGE else "imagenet"


def stem_modules(
    stem: Literal["imagenet", "cifar"],
    channels_in: int,
    channels_out: int,
    *,
    norm: Norm,
    activation: Activation,
    deep: bool = False,
    last_norm: bool = True,
) -> dict[str, nn.Module]:
    """The modules of a stem in order, from (B, channels_in, H, W) to (B, channels_out, H', W').

    imagenet: a 7x7 convolution of stride 2, norm, activation, 3x3 maximum of stride 2; H' = H / 4, each half rounded
    up. cifar: a 3x3 convolution, norm, activation; H' = H.

    Args:
        deep: three 3x3 convolutions for the 7x7, the first two half as wide (arXiv:1812.01187, ResNet-C); the cifar
            stem stays as it is.
        last_norm: whether norm and activation follow the last convolution; with pre-activation the first block has
            them.
    """
    modules: dict[str, nn.Module] = {}
    if stem == "cifar":
        modules["conv"] = conv_of(norm, channels_in, channels_out, 3)
    elif deep:
        half = max(channels_out // 2, 1)
        modules["conv1"] = conv_of(norm, channels_in, half, 3, stride=2)
        modules |= norm_activation(norm, activation, half, 1)
        modules["conv2"] = conv_of(norm, half, half, 3)
        modules |= norm_activation(norm, activation, half, 2)
        modules["conv3"] = conv_of(norm, half, channels_out, 3)
    else:
        modules["conv"] = conv_of(norm, channels_in, channels_out, 7, stride=2)
    if last_norm:
        modules |= norm_activation(norm, activation, channels_out)
    if stem == "imagenet":
        modules["pool"] = nn.MaxPool2d(3, stride=2, padding=1)
    return modules


def stem_size(stem: Literal["imagenet", "cifar"], size: Sequence[int]) -> tuple[int, ...]:
    """(H', W') of what `stem_modules` makes of images of `size` (H, W)."""
    return tuple(-(-n // 4) for n in size) if stem == "imagenet" else tuple(size)
