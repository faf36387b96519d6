"""A convolution in two steps: over the pixels of each channel, then over the channels of each pixel."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from torch import nn


class DepthwiseSeparable(nn.Sequential):
    """One kernel_size² filter for each channel, then a 1x1 convolution over all channels, nothing between the two.

    Inputs (B, C, H, W) → (B, C', H', W'), sizes as those of nn.Conv2d. It takes 1/C' + 1/kernel_size² of the
    multiply-adds of a full convolution. The first step has no bias, the second one's serves.
    Source: Chollet 2016 (arXiv:1610.02357); Howard et al. 2017 (arXiv:1704.04861, which puts norm and ReLU between).

    Args:
        convolution: nn.Conv2d, or what takes the same arguments.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
        convolution: Callable[..., nn.Conv2d] = nn.Conv2d,
    ) -> None:
        depthwise = convolution(channels_in, channels_in, kernel_size, stride, padding, groups=channels_in, bias=False)
        # Variance 1 / kernel_size², which keeps that of the input: with PyTorch's own third of it in both steps, a few
        # layers without norm would leave nothing of the signal.
        nn.init.kaiming_normal_(depthwise.weight, nonlinearity="linear")
        pointwise = convolution(channels_in, channels_out, 1, bias=bias)
        super().__init__(OrderedDict(depthwise=depthwise, pointwise=pointwise))
