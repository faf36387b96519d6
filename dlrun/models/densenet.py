"""Densely connected networks: every DenseNet under conf/model/ is one setting of this factory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor, nn

from dlrun.contracts import Activation, DataSpec, Interval, Kind, Norm, PositiveInt, Probability
from dlrun.errors import ContractError
from dlrun.layers.convolution import conv_of, norm_activation
from dlrun.layers.recompute import recomputed
from dlrun.layers.stem import Stem, resolve_stem, stem_modules, stem_size

BOTTLENECK = 4  # its 1x1 convolution gives four times the growth rate


def densenet(
    spec: DataSpec,
    *,
    blocks: Sequence[PositiveInt] = (6, 12, 24, 16),
    growth_rate: PositiveInt = 32,
    bottleneck: bool = True,
    compression: Annotated[float, Interval(0, 1, open_low=True)] = 0.5,
    stem: Stem = "auto",
    stem_width: PositiveInt | None = None,
    activation: Activation = "relu",
    norm: Norm = "batch",
    dropout: Probability = 0.0,
    memory_efficient: bool = False,
) -> nn.Module:
    """A stem, dense blocks with transitions between them, norm, activation, the mean over pixels, a linear output.

    In a dense block every layer reads all maps made before it in the block and adds `growth_rate` of its own. A
    transition keeps a share of the channels and halves the image. Inputs (B, C, H, W) → outputs (B, spec.num_outputs),
    without softmax. Source: Huang et al. 2017 (arXiv:1608.06993).

    Args:
        spec: images.
        blocks: layers of each dense block.
        growth_rate: k, the maps each layer adds.
        bottleneck: a 1x1 convolution to 4k maps before each 3x3 (the B of DenseNet-BC).
        compression: θ, the share of the channels that a transition keeps (the C, if below 1).
        stem: imagenet, 7x7 of stride 2 and max pooling; cifar, 3x3; auto, cifar if a side is shorter than 96 pixels.
        stem_width: channels of the stem, if not 2k.
        activation, norm: before each convolution but the stem's.
        dropout: probability of zeroing an output of each convolution but the stem's; the paper's .2 is for CIFAR
            without augmentation.
        memory_efficient: concatenate, normalise and activate again in the backward pass instead of keeping the
            results (arXiv:1707.06990). Memory then grows with the depth of a block, not with its square.

    Raises: ContractError if `spec` is not of images, or its images are too small for so many blocks.
    """
    spec.require("densenet", Kind.IMAGE)
    channels, *size = spec.shape
    kind = resolve_stem(stem, size)
    _check_size(spec, norm, min(stem_size(kind, size)), len(blocks))
    features = stem_width or 2 * growth_rate
    # The dense layers begin with norm and activation of their own; only pooling makes a difference, as in the paper.
    first = stem_modules(kind, channels, features, norm=norm, activation=activation, last_norm=kind == "imagenet")
    modules = OrderedDict[str, nn.Module](stem=nn.Sequential(OrderedDict(first)))
    for i, count in enumerate(blocks, start=1):
        modules[f"block{i}"] = DenseBlock(
            _layer(features + j * growth_rate, growth_rate, bottleneck, activation, norm, dropout, memory_efficient)
            for j in range(count)
        )
        features += count * growth_rate
        if i < len(blocks):
            kept = max(int(compression * features), 1)
            modules[f"transition{i}"] = _transition(features, kept, activation, norm, dropout)
            features = kept
    modules |= norm_activation(norm, activation, features)
    modules["pool"] = nn.AdaptiveAvgPool2d(1)
    modules["flatten"] = nn.Flatten()
    modules["output"] = nn.Linear(features, spec.num_outputs)
    return nn.Sequential(modules)


class DenseBlock(nn.ModuleList):
    """Layers of which each reads the input and what all layers before it gave.

    (B, C, H, W) → (B, C + layers · k, H, W).
    """

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for layer in self:
            maps.append(layer(*maps))
        return torch.cat(maps, dim=1)


class DenseLayer(nn.Module):
    """The maps so far → k new ones.

    Args:
        first: norm, activation and convolution, whose inner results grow with the depth of the block.
        rest: what follows; its inner results do not.
        memory_efficient: computes those of `first` again in the backward pass.
    """

    def __init__(self, first: nn.Sequential, rest: nn.Sequential, memory_efficient: bool) -> None:
        super().__init__()
        self.first = first
        self.rest = rest
        self.memory_efficient = memory_efficient

    def forward(self, *maps: Tensor) -> Tensor:
        summary = recomputed(self._read, self.first, *maps) if self.memory_efficient else self._read(*maps)
        output: Tensor = self.rest(summary)
        return output

    def _read(self, *maps: Tensor) -> Tensor:
        output: Tensor = self.first(torch.cat(maps, dim=1))
        return output


def _layer(
    features: int,
    growth_rate: int,
    bottleneck: bool,
    activation: Activation,
    norm: Norm,
    dropout: float,
    memory_efficient: bool,
) -> DenseLayer:
    first = norm_activation(norm, activation, features, 1)
    rest: dict[str, nn.Module] = {"dropout1": nn.Dropout(dropout)} if dropout > 0 else {}
    if bottleneck:
        inner = BOTTLENECK * growth_rate
        first["conv1"] = conv_of(norm, features, inner, 1)
        rest |= norm_activation(norm, activation, inner, 2)
        rest["conv2"] = conv_of(norm, inner, growth_rate, 3)
        if dropout > 0:
            rest["dropout2"] = nn.Dropout(dropout)
    else:
        first["conv1"] = conv_of(norm, features, growth_rate, 3)
    return DenseLayer(nn.Sequential(OrderedDict(first)), nn.Sequential(OrderedDict(rest)), memory_efficient)


def _transition(features: int, kept: int, activation: Activation, norm: Norm, dropout: float) -> nn.Sequential:
    """Norm, activation, mean of 2x2 pixels, 1x1 convolution: (B, features, H, W) → (B, kept, H / 2, W / 2).

    The paper convolves first; both are linear and act apart, so this order gives the same for a quarter of the work.
    """
    modules = OrderedDict(norm_activation(norm, activation, features))
    modules["pool"] = nn.AvgPool2d(2)
    modules["conv"] = conv_of(norm, features, kept, 1)
    if dropout > 0:
        modules["dropout"] = nn.Dropout(dropout)
    return nn.Sequential(modules)


def _check_size(spec: DataSpec, norm: Norm, shorter: int, blocks: int) -> None:
    """Refuse images of which nothing is left, or for instance norm a single pixel; `shorter` is their side."""
    left = shorter // 2 ** (blocks - 1)
    if left < 1 or (norm == "instance" and left == 1):
        reason = "nothing" if left < 1 else "a single pixel, too few for model.norm=instance,"
        raise ContractError(
            f"model=densenet halves images between {blocks} blocks, and {reason} is left of those of data={spec.name}, "
            f"of shape {spec.shape}: give fewer model.blocks, or larger images"
        )
