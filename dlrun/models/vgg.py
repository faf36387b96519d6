"""VGG: stages of 3x3 convolutions and a large head; conf/model/vgg*.yaml are settings of it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

from torch import nn

from dlrun.contracts import Activation, DataSpec, Kind, Norm, PositiveInt, Probability
from dlrun.layers import activation as make_activation
from dlrun.layers.conv_block import conv_block

CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}  # in each stage
CHANNELS = (64, 128, 256, 512, 512)
LAST_SIZE = 7  # pixels: what five halvings leave of 224


def vgg(
    spec: DataSpec,
    *,
    depth: Literal[11, 13, 16, 19] = 16,
    activation: Activation = "relu",
    norm: Norm = "none",
    head_widths: Sequence[PositiveInt] = (4096, 4096),
    dropout: Probability = 0.5,
    last_size: PositiveInt | None = None,
) -> nn.Module:
    """Five stages of 3x3 convolutions, each ending in a 2x2 maximum, and a small MLP.

    Inputs (B, C, H, W) → outputs (B, spec.num_outputs), without softmax. A maximum that would leave nothing of a small
    image is left out. Source: Simonyan & Zisserman 2014 (arXiv:1409.1556), columns A, B, D and E.

    Args:
        spec: images.
        depth: layers with weights.
        activation: after each layer but the output.
        norm: after each convolution; batch is what is known as VGG-BN.
        head_widths: of the hidden linear layers.
        dropout: probability of zeroing an output of a hidden linear layer.
        last_size: the last images are averaged, or repeated, to this height and width. By default to 7x7, and smaller
            ones stay as they are; torchvision repeats their pixels to 7x7, which adds weights but no information.

    Raises: ContractError if `spec` is not of images.
    """
    spec.require("vgg", Kind.IMAGE)
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    features, *size = spec.shape
    for stage, (count, channels) in enumerate(zip(CONVOLUTIONS[depth], CHANNELS, strict=True), start=1):
        for i in range(1, count + 1):
            modules[f"conv{stage}_{i}"] = conv_block(features, channels, 3, norm=norm, activation=activation)
            features = channels
        if min(size) >= 2:
            modules[f"pool{stage}"] = nn.MaxPool2d(2)
            size = [n // 2 for n in size]
    last = [last_size or min(n, LAST_SIZE) for n in size]
    if last != size:
        modules["resize"] = nn.AdaptiveAvgPool2d((last[0], last[1]))
    modules["flatten"] = nn.Flatten()
    features *= last[0] * last[1]
    for i, width in enumerate(head_widths, start=1):
        modules[f"linear{i}"] = nn.Linear(features, width)
        modules[f"activation{i}"] = make_activation(activation)
        if dropout > 0:
            modules[f"dropout{i}"] = nn.Dropout(dropout)
        features = width
    modules["output"] = nn.Linear(features, spec.num_outputs)
    return nn.Sequential(modules)
