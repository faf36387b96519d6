"""MobileNetV2: depthwise convolutions between a widening and a narrowing 1x1 convolution."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

from torch import Tensor, nn

from dlrun.contracts import Activation, DataSpec, Kind, Norm, PositiveFloat, PositiveInt, Probability
from dlrun.layers.channel_attention import Attention, channel_attention
from dlrun.layers.conv_block import conv_block
from dlrun.layers.stem import Stem, resolve_stem

# Expansion, channels, blocks, stride of the first of them: table 2 of the paper.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
FIRST, LAST = 32, 1280  # channels


def mobilenet_v2(
    spec: DataSpec,
    *,
    width: PositiveFloat = 1.0,
    stem: Stem = "auto",
    activation: Activation | Literal["relu6"] = "relu6",
    norm: Norm = "batch",
    dropout: Probability = 0.2,
    attention: Attention = "none",
    attention_reduction: PositiveInt = 4,
) -> nn.Module:
    """A convolution, 17 inverted residual blocks, a 1x1 convolution, the mean over pixels, a linear output.

    Inputs (B, C, H, W) → outputs (B, spec.num_outputs), without softmax.
    Source: Sandler et al. 2018 (arXiv:1801.04381).

    Args:
        spec: images.
        width: multiplies all channels, which are rounded to multiples of 8; the last layer's are never less than 1280.
        stem: imagenet halves the image five times; cifar three times, the first convolution and the second stage
            keeping its size; auto, cifar if a side is shorter than 96 pixels.
        activation: after each convolution but the narrowing ones.
        norm: of each convolution.
        dropout: probability of zeroing an input of the output layer.
        attention: a gate after each depthwise convolution: se as in MobileNetV3 (arXiv:1905.02244), or cbam.
        attention_reduction: the gate's hidden layer has 1 / this as many units as there are channels.

    Raises: ContractError if `spec` is not of images.
    """
    spec.require("mobilenet_v2", Kind.IMAGE)
    channels, *size = spec.shape
    keeps_size = resolve_stem(stem, size) == "cifar"
    features = divisible(FIRST * width)
    first = conv_block(channels, features, 3, 1 if keeps_size else 2, norm=norm, activation=activation)
    modules = OrderedDict[str, nn.Module](stem=first)
    for stage, (expansion, out, count, stride) in enumerate(STAGES, start=1):
        for i in range(1, count + 1):
            step = stride if i == 1 and not (stage == 2 and keeps_size) else 1
            block = InvertedResidual(
                features, divisible(out * width), step, expansion, norm, activation, attention, attention_reduction
            )
            modules[f"block{stage}_{i}"] = block
            features = divisible(out * width)
    last = divisible(LAST * max(1.0, width))
    modules["last"] = conv_block(features, last, 1, norm=norm, activation=activation)
    modules["pool"] = nn.AdaptiveAvgPool2d(1)
    modules["flatten"] = nn.Flatten()
    if dropout > 0:
        modules["dropout"] = nn.Dropout(dropout)
    modules["output"] = nn.Linear(last, spec.num_outputs)
    return nn.Sequential(modules)


class InvertedResidual(nn.Module):
    """1x1 to `expansion` times the channels, 3x3 depthwise, 1x1 back without activation; plus x where shapes allow.

    Inputs (B, channels_in, H, W) → (B, channels_out, H / stride, W / stride), rounded up.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        stride: int,
        expansion: int,
        norm: Norm,
        activation: Activation | Literal["relu6"],
        attention: Attention,
        attention_reduction: int,
    ) -> None:
        super().__init__()
        hidden = channels_in * expansion
        modules: OrderedDict[str, nn.Module] = OrderedDict()
        if expansion != 1:
            modules["expand"] = conv_block(channels_in, hidden, 1, norm=norm, activation=activation)
        modules["depthwise"] = conv_block(hidden, hidden, 3, stride, hidden, norm=norm, activation=activation)
        if attention != "none":
            modules["attention"] = channel_attention(attention, hidden, attention_reduction)
        modules["project"] = conv_block(hidden, channels_out, 1, norm=norm, activation="identity")
        self.branch = nn.Sequential(modules)
        self.is_residual = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.branch(x)
        return x + output if self.is_residual else output


def divisible(channels: float, by: int = 8) -> int:
    """`channels` to the nearest multiple of `by`, at least `by`, and never less than 90 % of them."""
    nearest = max(by, int(channels + by / 2) // by * by)
    return nearest if nearest >= 0.9 * channels else nearest + by
