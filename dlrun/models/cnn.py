"""Convolutional network in stages of convolutions and pooling; conf/model/lenet5.yaml is one setting of it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

from torch import nn

from dlrun.contracts import Activation, DataSpec, Kind, NonNegativeInt, Norm, PositiveInt, Probability
from dlrun.errors import ConfigError, ContractError
from dlrun.layers import activation as make_activation
from dlrun.layers import follows_shift, normed
from dlrun.layers.channel_attention import Attention, channel_attention
from dlrun.layers.dropout import DropConnectConv2d, DropoutKind, unit_dropout
from dlrun.layers.dropout import linear as make_linear
from dlrun.layers.separable import DepthwiseSeparable

Pool = Literal["max", "avg", "stride", "none"]
Padding = Literal["same", "valid"]


def cnn(
    spec: DataSpec,
    *,
    channels: Sequence[PositiveInt] = (16, 32, 64),
    convs_per_stage: PositiveInt = 1,
    kernel_size: PositiveInt = 3,
    padding: Padding | Sequence[NonNegativeInt] = "same",
    activation: Activation = "relu",
    norm: Norm = "batch",
    pool: Pool = "max",
    reduce: Literal["flatten", "mean", "max"] = "flatten",
    head_widths: Sequence[PositiveInt] = (),
    dropout: Probability = 0.0,
    dropout_kind: DropoutKind = "standard",
    separable: bool = False,
    attention: Attention = "none",
    attention_reduction: PositiveInt = 16,
) -> nn.Module:
    """One stage for each entry of `channels`, each but with pool=none halving the image; then a small MLP.

    Inputs (B, C, H, W) → outputs (B, spec.num_outputs), without softmax. Max pooling comes directly after its
    convolution: it commutes with a monotone activation, and norm and activation then see a quarter of the pixels
    (as in arXiv:2404.00498). Convolutions have a bias unless batch or instance norm follows.

    Args:
        spec: images.
        channels: of the convolutions of each stage.
        convs_per_stage: convolutions before each pooling.
        kernel_size: in pixels, of all convolutions; odd with padding=same.
        padding: zeros around the image; same, valid (none), or pixels for each stage.
        pool: 2x2 maximum, 2x2 mean, a stride of 2 in the stage's last convolution, or no halving.
        reduce: how the last images become a vector: all their pixels, or each channel's mean or maximum.
        norm: of the convolutions; weight is of their filters.
        head_widths: of hidden linear layers after the convolutions, without norm.
        dropout: probability of zeroing an input of each linear layer, or what `dropout_kind` says.
        dropout_kind: standard; alpha (for activation=selu); spatial: a whole channel after each stage, and inputs of
            the linear layers from the second on (arXiv:1411.4280); dropconnect: weights of all layers but the output.
        separable: depthwise-separable convolutions in place of full ones.
        attention: a gate on the channels at the end of each stage: se (arXiv:1709.01507), cbam (arXiv:1807.06521).
        attention_reduction: the gate's hidden layer has 1 / this as many units as there are channels.

    Raises:
        ContractError if `spec` is not of images, or its images are too small for so many stages.
        ConfigError if `padding` does not go with `channels` or `kernel_size`, or `dropout_kind` with `activation`.
    """
    spec.require("cnn", Kind.IMAGE)
    paddings = _paddings(padding, len(channels), kernel_size)
    convolution = _convolution(separable, dropout if dropout_kind == "dropconnect" else 0.0)
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    features, *size = spec.shape
    for stage, (width, pad) in enumerate(zip(channels, paddings, strict=True), start=1):
        for i in range(1, convs_per_stage + 1):
            name = f"{stage}" if convs_per_stage == 1 else f"{stage}_{i}"
            pool_here: Pool = pool if i == convs_per_stage else "none"
            stride = 2 if pool_here == "stride" else 1
            conv = convolution(features, width, kernel_size, stride, pad, bias=not follows_shift(norm))
            layer = _layer(conv, width, activation, norm, pool_here)
            modules |= {f"{part}{name}": module for part, module in layer.items()}
            size = [(n + 2 * pad - kernel_size) // stride + 1 for n in size]
            features = width
        if pool in ("max", "avg"):
            size = [n // 2 for n in size]
        if min(size) < 1:
            raise ContractError(_too_small(spec, stage, len(channels)))
        if attention != "none":
            modules[f"attention{stage}"] = channel_attention(attention, width, attention_reduction)
        if dropout > 0 and dropout_kind == "spatial":
            modules[f"channel_dropout{stage}"] = nn.Dropout2d(dropout)
    if reduce != "flatten":
        modules["reduce"] = nn.AdaptiveAvgPool2d(1) if reduce == "mean" else nn.AdaptiveMaxPool2d(1)
        size = [1, 1]
    modules["flatten"] = nn.Flatten()
    widths = [features * size[0] * size[1], *head_widths]
    modules |= _head(widths, spec.num_outputs, activation, dropout, dropout_kind)
    return nn.Sequential(modules)


def _convolution(separable: bool, drop_weights: float) -> Callable[..., nn.Module]:
    """What makes a convolution from the arguments of nn.Conv2d."""
    plain = partial(DropConnectConv2d, p=drop_weights) if drop_weights > 0 else nn.Conv2d
    return partial(DepthwiseSeparable, convolution=plain) if separable else plain


def _layer(
    conv: nn.Module, channels: int, activation: Activation, norm: Norm, pool: Pool
) -> OrderedDict[str, nn.Module]:
    """A convolution with its pooling, norm and activation, in the order they are applied."""
    conv, *norms = normed(conv, norm, channels, dims=2)
    layer = OrderedDict[str, nn.Module](conv=conv)
    if pool == "max":
        layer["pool"] = nn.MaxPool2d(2)
    for module in norms:
        layer["norm"] = module
    if activation != "identity":
        layer["activation"] = make_activation(activation)
    if pool == "avg":
        layer["pool"] = nn.AvgPool2d(2)
    return layer


def _head(
    widths: Sequence[int], num_outputs: int, activation: Activation, dropout: float, kind: DropoutKind
) -> OrderedDict[str, nn.Module]:
    """Linear layers from widths[0] over the others to `num_outputs`."""
    head: OrderedDict[str, nn.Module] = OrderedDict()
    for i, features in enumerate(widths, start=1):
        # Whole channels of what comes into the first layer are zero already.
        kind_here: DropoutKind = "standard" if kind == "spatial" and i > 1 else kind
        if (drop := unit_dropout(kind_here, dropout, activation)) is not None:
            head[f"dropout{i}"] = drop
        if i == len(widths):
            head["output"] = nn.Linear(features, num_outputs)
        else:
            head[f"linear{i}"] = make_linear(features, widths[i], True, kind, dropout)
            head[f"head_activation{i}"] = make_activation(activation)
    return head


def _paddings(padding: Padding | Sequence[int], stages: int, kernel_size: int) -> list[int]:
    """The padding of each stage in pixels."""
    if padding == "valid":
        return [0] * stages
    if padding == "same":
        if kernel_size % 2 == 0:
            raise ConfigError(
                f"model.padding=same needs an odd model.kernel_size, got {kernel_size}: "
                "choose an odd one, or model.padding=valid"
            )
        return [kernel_size // 2] * stages
    if len(padding) != stages:
        raise ConfigError(
            f"model.padding={list(padding)} must have one entry for each of the {stages} model.channels; "
            "or write same or valid"
        )
    return [int(pixels) for pixels in padding]


def _too_small(spec: DataSpec, stage: int, stages: int) -> str:
    return (
        f"model=cnn shrinks images in {stages} stages, and nothing is left of those of data={spec.name}, of shape "
        f"{spec.shape}, after stage {stage}: give fewer model.channels, model.padding=same or model.pool=none"
    )
