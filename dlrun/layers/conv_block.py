"""A convolution with its norm and activation."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

from torch import nn

from dlrun.contracts import Activation, Norm
from dlrun.layers.convolution import conv
from dlrun.layers.named import activation as make_activation
from dlrun.layers.named import follows_shift, normed


def conv_block(
    channels_in: int,
    channels_out: int,
    kernel_size: int,
    stride: int = 1,
    groups: int = 1,
    *,
    norm: Norm,
    activation: Activation | Literal["relu6"],
) -> nn.Sequential:
    """`conv`, `norm` and `activation` in this order, without those that would do nothing.

    Inputs (B, channels_in, H, W) → (B, channels_out, H / stride, W / stride), rounded up. The convolution has a bias
    unless batch or instance norm follows, and the weights of `dlrun.layers.convolution.conv`.

    Args:
        kernel_size: odd, in pixels.
        activation: relu6 is min(max(x, 0), 6) (arXiv:1704.04861).
    """
    layer = conv(channels_in, channels_out, kernel_size, stride, groups, bias=not follows_shift(norm))
    modules = OrderedDict[str, nn.Module](
        zip(("conv", "norm"), normed(layer, norm, channels_out, dims=2), strict=False)
    )
    if activation != "identity":
        modules["activation"] = nn.ReLU6() if activation == "relu6" else make_activation(activation)
    return nn.Sequential(modules)
