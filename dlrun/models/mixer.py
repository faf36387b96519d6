"""MLP-Mixer: an image as a table of patches and channels, mixed along one axis and then along the other."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

from torch import Tensor, nn

from dlrun.contracts import Activation, DataSpec, Kind, PositiveInt, Probability
from dlrun.errors import ContractError
from dlrun.layers import activation as make_activation
from dlrun.layers import norm as make_norm
from dlrun.layers.stochastic_depth import StochasticDepth, linear_drops

MixerNorm = Literal["layer", "rms"]


def mixer(
    spec: DataSpec,
    *,
    patch_size: PositiveInt = 4,
    width: PositiveInt = 128,
    depth: PositiveInt = 8,
    token_width: PositiveInt = 64,
    channel_width: PositiveInt = 512,
    activation: Activation = "gelu",
    norm: MixerNorm = "layer",
    dropout: Probability = 0.0,
    stochastic_depth: Probability = 0.0,
) -> nn.Module:
    """A linear embedding of patches, blocks that mix patches and then channels, norm, mean over patches, linear output.

    Inputs (B, C, H, W) → outputs (B, spec.num_outputs), without softmax.
    Source: Tolstikhin et al. 2021 (arXiv:2105.01601); Mixer-B/16 is patch_size=16 width=768 depth=12 token_width=384
    channel_width=3072.

    Args:
        spec: images whose sides are multiples of `patch_size`.
        patch_size: height and width of a patch in pixels.
        width: numbers for each patch, C in the paper.
        depth: blocks.
        token_width, channel_width: hidden units of the two MLPs of a block, D_S and D_C in the paper.
        activation: of both MLPs.
        norm: before each MLP and after the last block.
        dropout: probability of zeroing a hidden unit or an output of an MLP.
        stochastic_depth: probability of leaving the last block out for an example; it falls linearly to the first.

    Raises: ContractError if `spec` is not of images, or patches do not tile them.
    """
    spec.require("mixer", Kind.IMAGE)
    channels, height, columns = spec.shape
    if height % patch_size or columns % patch_size:
        raise ContractError(
            f"model.patch_size must divide height and width of the images of data={spec.name}, of shape {spec.shape}, "
            f"got {patch_size}"
        )
    patches = (height // patch_size) * (columns // patch_size)
    modules = OrderedDict[str, nn.Module](embed=PatchEmbedding(channels, width, patch_size))
    for i, drop in enumerate(linear_drops(stochastic_depth, depth), start=1):
        tokens = _mlp(patches, token_width, activation, dropout)
        mixed = _mlp(width, channel_width, activation, dropout)
        modules[f"block{i}"] = MixerBlock(make_norm(norm, width, 0), tokens, make_norm(norm, width, 0), mixed, drop)
    modules["norm"] = make_norm(norm, width, 0)
    modules["pool"] = MeanOverPatches()
    modules["output"] = nn.Linear(width, spec.num_outputs)
    return nn.Sequential(modules)


class PatchEmbedding(nn.Conv2d):
    """The same linear map of every patch: (B, C, H, W) → (B, patches, width), row by row."""

    def __init__(self, channels: int, width: int, patch_size: int) -> None:
        super().__init__(channels, width, patch_size, stride=patch_size)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).flatten(2).mT


class MixerBlock(nn.Module):
    """x + tokens(norm(x)ᵀ)ᵀ =: y, then y + channels(norm(y)); (B, patches, width) → the same. Eq. 1 of the paper."""

    def __init__(
        self, token_norm: nn.Module, tokens: nn.Module, channel_norm: nn.Module, channels: nn.Module, drop: float
    ) -> None:
        super().__init__()
        self.token_norm = token_norm
        self.tokens = tokens
        self.channel_norm = channel_norm
        self.channels = channels
        self.drop = StochasticDepth(drop)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop(self.tokens(self.token_norm(x).mT).mT)
        x = x + self.drop(self.channels(self.channel_norm(x)))
        return x


class MeanOverPatches(nn.Module):
    """(B, patches, width) → (B, width)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


def _mlp(features: int, hidden: int, activation: Activation, dropout: float) -> nn.Sequential:
    """features → hidden → features on the last axis."""
    first, last = nn.Linear(features, hidden), nn.Linear(hidden, features)
    drops = [nn.Dropout(dropout)] if dropout > 0 else []
    return nn.Sequential(first, make_activation(activation), *drops, last, *drops)
