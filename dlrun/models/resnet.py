"""Residual networks: every ResNet under conf/model/ is one setting of this factory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

from torch import nn

from dlrun.contracts import Activation, DataSpec, Kind, Norm, PositiveInt, Probability
from dlrun.errors import ConfigError, ContractError
from dlrun.layers.channel_attention import Attention
from dlrun.layers.convolution import norm_activation
from dlrun.layers.named import num_groups
from dlrun.layers.residual_block import BlockStyle, Shortcut, residual_block
from dlrun.layers.stem import Stem, resolve_stem, stem_modules, stem_size
from dlrun.layers.stochastic_depth import linear_drops

EXPANSION = 4  # a bottleneck puts out four times its stage's width


def resnet(
    spec: DataSpec,
    *,
    block: Literal["basic", "bottleneck"] = "basic",
    blocks: Sequence[PositiveInt] = (2, 2, 2, 2),
    width: PositiveInt = 64,
    inner_width: PositiveInt | None = None,
    groups: PositiveInt = 1,
    preactivation: bool = False,
    stem: Stem = "auto",
    stem_width: PositiveInt = 64,
    deep_stem: bool = False,
    shortcut: Shortcut = "projection",
    activation: Activation = "relu",
    norm: Norm = "batch",
    attention: Attention = "none",
    attention_reduction: PositiveInt = 16,
    dropout: Probability = 0.0,
    stochastic_depth: Probability = 0.0,
    zero_init: bool = False,
) -> nn.Module:
    """A stem, stages of residual blocks, the mean over pixels, a linear output.

    Inputs (B, C, H, W) → outputs (B, spec.num_outputs), without softmax. Each stage but the first halves the image,
    rounding up, and doubles the channels. Convolutions start as He et al. draw them.

    Args:
        spec: images of any size and number of channels.
        block: basic, two 3x3 convolutions; bottleneck, 1x1, 3x3 (which has the stride), 1x1 to four times the width.
        blocks: of each stage.
        width: channels of the first stage; a bottleneck puts out four times as many.
        inner_width: channels of the first stage's 3x3 convolutions in bottlenecks, if not `width`: wider in
            arXiv:1605.07146, groups times their width in arXiv:1611.05431.
        groups: of the 3x3 convolutions of bottlenecks.
        preactivation: norm and activation before each convolution (arXiv:1603.05027).
        stem: imagenet, 7x7 of stride 2 and max pooling; cifar, 3x3; auto, cifar if a side is shorter than 96 pixels.
        stem_width: channels of the stem.
        deep_stem: three 3x3 convolutions instead of the 7x7 (arXiv:1812.01187).
        shortcut: where the shape changes: projection, a 1x1 convolution of stride 2; average, 2x2 mean and 1x1
            convolution (ResNet-D, arXiv:1812.01187); zero_pad, every other pixel and channels of zeros (option A).
        activation, norm: everywhere.
        attention: at the end of each branch: se (arXiv:1709.01507) or cbam (arXiv:1807.06521).
        attention_reduction: channels of a block divided by units of the attention's hidden layer.
        dropout: probability of zeroing an input of each block's last convolution.
        stochastic_depth: probability of leaving out the last block's branch while training; rises linearly from the
            first (arXiv:1603.09382).
        zero_init: each branch starts at zero, its last norm's scale being 0 (arXiv:1706.02677); with pre-activation
            or without norm, its last convolution.

    Raises:
        ContractError if `spec` is not of images, or the norm erases what is left of them at the end.
        ConfigError if widths and groups do not go together.
    """
    spec.require("resnet", Kind.IMAGE)
    expansion = EXPANSION if block == "bottleneck" else 1
    inner = inner_width or width
    _check_widths(block, width, inner, groups)
    if shortcut == "zero_pad" and stem_width > width * expansion:
        raise ConfigError(
            f"model.shortcut=zero_pad can add channels, not remove them: model.stem_width={stem_width} must be at "
            f"most the {width * expansion} of the first stage"
        )
    _check_pixels(spec, norm, stem, width * expansion, len(blocks))
    style = BlockStyle(
        bottleneck=block == "bottleneck",
        preactivation=preactivation,
        groups=groups,
        shortcut=shortcut,
        norm=norm,
        activation=activation,
        attention=attention,
        attention_reduction=attention_reduction,
        dropout=dropout,
        zero_init=zero_init,
    )
    channels, *size = spec.shape
    first = stem_modules(
        resolve_stem(stem, size),
        channels,
        stem_width,
        norm=norm,
        activation=activation,
        deep=deep_stem,
        last_norm=not preactivation,
    )
    modules = OrderedDict[str, nn.Module](stem=nn.Sequential(OrderedDict(first)))
    modules |= _stages(style, blocks, stem_width, inner, width * expansion, stochastic_depth)
    features = width * expansion * 2 ** (len(blocks) - 1)
    if preactivation:
        modules |= norm_activation(norm, activation, features)
    modules["pool"] = nn.AdaptiveAvgPool2d(1)
    modules["flatten"] = nn.Flatten()
    modules["output"] = nn.Linear(features, spec.num_outputs)
    return nn.Sequential(modules)


def _stages(
    style: BlockStyle, blocks: Sequence[int], stem_width: int, inner: int, width: int, last_drop: float
) -> dict[str, nn.Module]:
    """stage1, stage2 ...: `width` channels and `inner` within the blocks of the first, twice as many in each next."""
    drops = iter(linear_drops(last_drop, sum(blocks)))
    stages: dict[str, nn.Module] = {}
    features = stem_width
    for i, count in enumerate(blocks):
        stage = nn.Sequential()
        for j in range(count):
            stride = 2 if i > 0 and j == 0 else 1
            stage.append(residual_block(style, features, inner * 2**i, width * 2**i, stride, next(drops)))
            features = width * 2**i
        stages[f"stage{i + 1}"] = stage
    return stages


def _check_widths(block: str, width: int, inner: int, groups: int) -> None:
    if block == "basic" and (groups > 1 or inner != width):
        raise ConfigError(
            f"model.groups={groups} and model.inner_width={inner} are of bottlenecks: write model.block=bottleneck, or "
            "leave them at 1 and null"
        )
    if inner % groups:
        raise ConfigError(f"model.inner_width={inner} must be a multiple of model.groups={groups}")


def _check_pixels(spec: DataSpec, norm: Norm, stem: Stem, width: int, stages: int) -> None:
    """Refuse norms over the pixels of one channel where the last images are a single pixel."""
    size = stem_size(resolve_stem(stem, spec.shape[1:]), spec.shape[1:])
    features = width * 2 ** (stages - 1)
    over_pixels = norm == "instance" or (norm == "group" and num_groups(features) == features)
    if over_pixels and max(size) <= 2 ** (stages - 1):
        raise ContractError(
            f"model=resnet shrinks images in {stages} stages, and those of data={spec.name}, of shape {spec.shape}, to "
            f"a single pixel, of which model.norm={norm} leaves nothing: give fewer model.blocks, or model.norm=batch"
        )
