"""A shallow convolutional network behind a fixed whitening of 2x2 patches, made to learn in seconds."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn

from dlrun.contracts import Activation, DataSpec, Fraction, Kind, PositiveFloat, PositiveInt
from dlrun.errors import ContractError
from dlrun.layers import activation as make_activation


def whitened_cnn(
    spec: DataSpec,
    *,
    widths: Sequence[PositiveInt] = (64, 256, 256),
    whitening_size: PositiveInt = 2,
    activation: Activation = "gelu",
    norm_momentum: Fraction = 0.4,
    norm_eps: PositiveFloat = 1e-12,
) -> nn.Module:
    """Stages of conv, pool, norm, activation, conv, norm, activation; the maximum of each channel; a linear layer.

    Inputs (B, C, H, W) → outputs (B, spec.num_outputs). The first convolution, without padding, has 2·C·k² filters
    that do not learn: `init=whitening` makes them the principal directions of the training patches and the opposites
    of these; its bias learns. The other convolutions have no bias and start as the identity on as many channels as
    come in. Norms are batch norms that shift and do not scale. The output layer has no bias, and its weights are drawn
    and then scaled to a standard deviation of exactly 1 / features, which is what keeps the first logits small.

    Args:
        spec: images.
        widths: channels of each stage; each halves the image.
        whitening_size: k, in pixels.
        norm_momentum: share of the newest batch in the running statistics; large, as there are few batches.
        norm_eps: added to the variance.

    Raises: ContractError if `spec` is not of images, or its images are too small for so many stages.
    Source: the network of hlb-CIFAR10 (https://github.com/tysam-code/hlb-CIFAR10) as of Jordan 2024 (arXiv:2404.00498).
    """
    spec.require("whitened_cnn", Kind.IMAGE)
    channels, *size = spec.shape
    features = 2 * channels * whitening_size**2
    whitening = nn.Conv2d(channels, features, whitening_size)
    whitening.weight.requires_grad_(False)
    modules = OrderedDict[str, nn.Module](whitening=whitening, activation=make_activation(activation))
    size = [n - whitening_size + 1 for n in size]
    for i, width in enumerate(widths, start=1):
        modules[f"stage{i}"] = _stage(features, width, activation, norm_momentum, norm_eps)
        features, size = width, [n // 2 for n in size]
    if min(size) < 1:
        raise ContractError(
            f"model=whitened_cnn halves images in {len(widths)} stages, and nothing is left of those of "
            f"data={spec.name}, of shape {spec.shape}: give fewer model.widths"
        )
    output = nn.Linear(features, spec.num_outputs, bias=False)
    if output.weight.numel() > 1:  # a single one has no deviation
        output.weight.data.div_(features * output.weight.std())
    modules |= {"pool": nn.MaxPool2d((size[0], size[1])), "flatten": nn.Flatten(), "output": output}
    return nn.Sequential(modules)


def _stage(channels: int, width: int, activation: Activation, momentum: float, eps: float) -> nn.Sequential:
    """(B, channels, H, W) → (B, width, H // 2, W // 2), pooled early: the rest then sees a quarter of the pixels."""
    modules = OrderedDict[str, nn.Module]()
    for i, channels_in in enumerate((channels, width), start=1):
        modules[f"conv{i}"] = _identity_conv(channels_in, width)
        if i == 1:
            modules["pool"] = nn.MaxPool2d(2)
        modules[f"norm{i}"] = norm = nn.BatchNorm2d(width, eps=eps, momentum=momentum)
        norm.weight.requires_grad_(False)
        modules[f"activation{i}"] = make_activation(activation)
    return nn.Sequential(modules)


def _identity_conv(channels_in: int, channels_out: int) -> nn.Conv2d:
    """A 3x3 convolution whose first outputs are its inputs; further ones are what PyTorch's constructor makes them."""
    conv = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
    with torch.no_grad():
        nn.init.dirac_(conv.weight[:channels_in])
    return conv
