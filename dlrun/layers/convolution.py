"""What convolutional blocks are made of: a convolution that keeps the size, and a norm with its activation."""

from __future__ import annotations

from torch import nn

from dlrun.contracts import Activation, Norm
from dlrun.layers.named import activation as make_activation
from dlrun.layers.named import follows_shift, normed
from dlrun.layers.named import norm as make_norm


def conv(
    channels_in: int, channels_out: int, kernel_size: int, stride: int = 1, groups: int = 1, bias: bool = False
) -> nn.Conv2d:
    """A convolution padded to keep the size of the image, or to halve it, rounding up, with stride 2.

    Weights are normal with variance 2 / fan_out (He et al. 2015, arXiv:1502.01852, eq. 14), fan_out being
    kernel_size² · channels_out, groups or not, as in torchvision. Biases are PyTorch's.

    Args:
        kernel_size: odd, in pixels.
    """
    made = nn.Conv2d(channels_in, channels_out, kernel_size, stride, kernel_size // 2, groups=groups, bias=bias)
    nn.init.kaiming_normal_(made.weight, mode="fan_out", nonlinearity="relu")
    return made


def conv_of(
    norm: Norm, channels_in: int, channels_out: int, kernel_size: int, stride: int = 1, groups: int = 1
) -> nn.Conv2d:
    """`conv` in a network with this norm: its weights normalised, for weight; without a bias that the norm cancels.

    For batch and instance that is any bias whose sum, mean or maximum over pixels is normalised before anything else.
    """
    made = conv(channels_in, channels_out, kernel_size, stride, groups, bias=not follows_shift(norm))
    if norm == "weight":
        normed(made, norm, channels_out, dims=2)
    return made


def norm_activation(norm: Norm, activation: Activation, channels: int, suffix: int | str = "") -> dict[str, nn.Module]:
    """`norm{suffix}` and `activation{suffix}` of images with `channels`, without those that would do nothing."""
    modules: dict[str, nn.Module] = {}
    if norms_outputs(norm):
        modules[f"norm{suffix}"] = make_norm(norm, channels, dims=2)
    if activation != "identity":
        modules[f"activation{suffix}"] = make_activation(activation)
    return modules


def norms_outputs(norm: Norm) -> bool:
    """Whether this norm is a module behind a layer, neither nothing nor in its weights."""
    return norm not in ("none", "weight")
