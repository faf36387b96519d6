"""Inception: filters of several sizes side by side; GoogLeNet is one setting of it (conf/model/googlenet.yaml)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from dlrun.contracts import Activation, DataSpec, Kind, Norm, PositiveFloat, PositiveInt, Probability
from dlrun.errors import ConfigError
from dlrun.layers.channel_attention import Attention, channel_attention
from dlrun.layers.conv_block import conv_block
from dlrun.layers.stem import Stem, resolve_stem


class Widths(NamedTuple):
    """Channels of a block's convolutions; those before a large filter only reduce what it reads."""

    single: int  # 1x1
    before_medium: int
    medium: int  # 3x3
    before_large: int
    large: int  # 5x5
    pooled: int  # 1x1 after the maximum

    @property
    def total(self) -> int:
        """Channels of the block's output."""
        return self.single + self.medium + self.large + self.pooled


# Table 1 of the paper: 3a to 3b, 4a to 4e, 5a to 5b.
GOOGLENET = (
    (Widths(64, 96, 128, 16, 32, 32), Widths(128, 128, 192, 32, 96, 64)),
    (
        Widths(192, 96, 208, 16, 48, 64),
        Widths(160, 112, 224, 24, 64, 64),
        Widths(128, 128, 256, 24, 64, 64),
        Widths(112, 144, 288, 32, 64, 64),
        Widths(256, 160, 320, 32, 128, 128),
    ),
    (Widths(256, 160, 320, 32, 128, 128), Widths(384, 192, 384, 48, 128, 128)),
)


def inception(
    spec: DataSpec,
    *,
    blocks: Sequence[PositiveInt] = (2, 5, 2),
    width: PositiveFloat = 1.0,
    large_kernel: Literal[3, 5] = 5,
    stem: Stem = "auto",
    activation: Activation = "relu",
    norm: Norm = "batch",
    dropout: Probability = 0.4,
    attention: Attention = "none",
    attention_reduction: PositiveInt = 16,
) -> nn.Module:
    """A stem, up to three stages of Inception blocks, the mean over pixels, a linear output.

    The image is halved, rounding up, between stages. Inputs (B, C, H, W) → outputs (B, spec.num_outputs), without
    softmax. Source: Szegedy et al. 2014 (arXiv:1409.4842), without its auxiliary classifiers, which batch norm
    (arXiv:1502.03167) replaces.

    Args:
        spec: images.
        blocks: how many of GoogLeNet's 2, 5 and 2 blocks each stage has, its first ones; fewer entries, fewer stages.
        width: multiplies all channels.
        large_kernel: side of the largest filters; torchvision's GoogLeNet has 3, the paper 5.
        stem: imagenet, 7x7 of stride 2, maximum, 1x1, 3x3, maximum: an eighth of the image; cifar, 3x3; auto, cifar if
            a side is shorter than 96 pixels.
        activation, norm: of each convolution.
        dropout: probability of zeroing an input of the output layer.
        attention: a gate on each block's output: se (arXiv:1709.01507), cbam (arXiv:1807.06521).
        attention_reduction: the gate's hidden layer has 1 / this as many units as there are channels.

    Raises:
        ContractError if `spec` is not of images.
        ConfigError if `blocks` asks for more than GoogLeNet has.
    """
    spec.require("inception", Kind.IMAGE)
    most = [len(stage) for stage in GOOGLENET]
    if not 1 <= len(blocks) <= 3 or any(count > limit for count, limit in zip(blocks, most, strict=False)):
        raise ConfigError(f"model.blocks must be one to three numbers, at most {most}, got {list(blocks)}")
    channels, *size = spec.shape
    features = _scaled(192, width)
    modules = OrderedDict[str, nn.Module](stem=_stem(resolve_stem(stem, size), channels, width, norm, activation))
    for stage, count in enumerate(blocks, start=3):
        if stage > 3:
            modules[f"pool{stage}"] = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        for letter, widths in zip("abcde", GOOGLENET[stage - 3][:count], strict=False):
            scaled = Widths(*(_scaled(n, width) for n in widths))
            modules[f"block{stage}{letter}"] = Inception(features, scaled, large_kernel, norm, activation)
            features = scaled.total
            if attention != "none":
                modules[f"attention{stage}{letter}"] = channel_attention(attention, features, attention_reduction)
    modules["pool"] = nn.AdaptiveAvgPool2d(1)
    modules["flatten"] = nn.Flatten()
    if dropout > 0:
        modules["dropout"] = nn.Dropout(dropout)
    modules["output"] = nn.Linear(features, spec.num_outputs)
    return nn.Sequential(modules)


class Inception(nn.Module):
    """1x1, 3x3, 5x5 and a 3x3 maximum of the same input, one beside the other: (B, C, H, W) → (B, widths.total, H, W).

    1x1 convolutions reduce what the larger filters read, and what the maximum gives.
    """

    def __init__(self, channels_in: int, widths: Widths, large_kernel: int, norm: Norm, activation: Activation) -> None:
        super().__init__()

        def block(before: int, after: int, kernel_size: int) -> nn.Sequential:
            return conv_block(before, after, kernel_size, norm=norm, activation=activation)

        self.single = block(channels_in, widths.single, 1)
        self.medium = nn.Sequential(
            block(channels_in, widths.before_medium, 1), block(widths.before_medium, widths.medium, 3)
        )
        self.large = nn.Sequential(
            block(channels_in, widths.before_large, 1), block(widths.before_large, widths.large, large_kernel)
        )
        self.pooled = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), block(channels_in, widths.pooled, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((self.single(x), self.medium(x), self.large(x), self.pooled(x)), dim=1)


def _stem(
    kind: Literal["imagenet", "cifar"], channels: int, width: float, norm: Norm, activation: Activation
) -> nn.Sequential:
    """From (B, channels, H, W) to 192 · width channels."""
    narrow, wide = _scaled(64, width), _scaled(192, width)
    if kind == "cifar":
        return conv_block(channels, wide, 3, norm=norm, activation=activation)
    return nn.Sequential(
        conv_block(channels, narrow, 7, 2, norm=norm, activation=activation),
        nn.MaxPool2d(3, stride=2, ceil_mode=True),
        conv_block(narrow, narrow, 1, norm=norm, activation=activation),
        conv_block(narrow, wide, 3, norm=norm, activation=activation),
        nn.MaxPool2d(3, stride=2, ceil_mode=True),
    )


def _scaled(channels: int, width: float) -> int:
    return max(1, round(channels * width))
