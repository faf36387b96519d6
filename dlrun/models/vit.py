"""Vision transformer: an image is read as a sequence of square patches."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from dlrun.contracts import DataSpec, Kind, PositiveInt, Probability
from dlrun.errors import ConfigError, ContractError
from dlrun.layers.attention import attention_weights
from dlrun.layers.embedding import NumberEmbedding
from dlrun.layers.feed_forward import FeedForwardKind
from dlrun.layers.positions import GridPositions, LearnedPositions
from dlrun.layers.transformer import Stack, Style, TokenNorm, initialise


def vit(
    spec: DataSpec,
    *,
    patch: PositiveInt = 4,
    width: PositiveInt = 128,
    depth: PositiveInt = 6,
    heads: PositiveInt = 4,
    expansion: PositiveInt = 4,
    activation: FeedForwardKind = "gelu",
    norm: TokenNorm = "layer",
    positions: Literal["learned", "sinusoidal"] = "learned",
    readout: Literal["mean", "cls"] = "mean",
    dropout: Probability = 0.0,
    attention_dropout: Probability = 0.0,
    stochastic_depth: Probability = 0.0,
) -> nn.Module:
    """Images (B, C, H, W) → (B, spec.num_outputs), without softmax, by a transformer encoder over patches.

    Pre-norm, as in Dosovitskiy et al. 2020 (arXiv:2010.11929); conf/model/vit_b16.yaml is that paper's ViT-B/16.

    Args:
        spec: images.
        patch: side of a patch in pixels; divides height and width of the images.
        width: features of a token.
        depth: blocks.
        heads: of each attention; divides `width`.
        expansion: units of the feed-forward part are so many times `width`, two thirds of it if gated.
        activation: of the feed-forward part: gelu, relu, its square relu2 (arXiv:2109.08668), silu, or the gated swiglu
            and geglu (arXiv:2002.05202).
        norm: over the features of each token.
        positions: a learned vector for each patch, or sines of row and column, which stay as they are.
        readout: how the outputs become one vector: mean over the patches (arXiv:2205.01580), or what a token of its
            own has gathered (cls).
        dropout: probability of zeroing a number that a branch adds, or one of the embedded patches.
        attention_dropout: probability of zeroing an attention weight.
        stochastic_depth: probability of leaving out the branches of the last block; less in those before.

    Raises:
        ContractError if `spec` is not of images, or `patch` does not divide their height and width.
        ConfigError if `heads` does not divide `width`, or `width` is too odd for sinusoidal positions.
    """
    spec.require("vit", Kind.IMAGE)
    _, height, breadth = spec.shape
    if height % patch or breadth % patch:
        raise ContractError(_no_fit(spec, patch))
    if positions == "sinusoidal" and width % 4:
        raise ConfigError(
            "model.positions=sinusoidal gives a sine and a cosine to the row and to the column, so model.width must be "
            f"a multiple of 4, got {width}: choose {width // 4 * 4 + 4}, or model.positions=learned"
        )
    style = Style(
        width=width,
        heads=heads,
        hidden=expansion * width,
        activation=activation,
        norm=norm,
        eps=1e-6,
        dropout=dropout,
        attention_dropout=attention_dropout,
    )
    return VisionTransformer(
        spec, style, patch, depth, positions=positions, readout=readout, stochastic_depth=stochastic_depth
    )


class VisionTransformer(nn.Module):
    """See `vit`."""

    def __init__(
        self,
        spec: DataSpec,
        style: Style,
        patch: int,
        depth: int,
        *,
        positions: Literal["learned", "sinusoidal"],
        readout: Literal["mean", "cls"],
        stochastic_depth: float,
    ) -> None:
        super().__init__()
        channels, height, breadth = spec.shape
        rows, columns = height // patch, breadth // patch
        self.patch = patch
        # A convolution with stride = kernel, as the matrix product that it is: on a CPU up to 3.5 times as fast.
        self.embedding = NumberEmbedding(channels * patch * patch, style.width)
        self.cls_token = nn.Parameter(torch.randn(style.width)) if readout == "cls" else None
        places = (
            LearnedPositions(rows * columns + (readout == "cls"), style.width, std=1.0)
            if positions == "learned"
            else GridPositions(rows, columns, style.width, extra=readout == "cls")
        )
        self.stack = Stack(style, depth, positions=places, stochastic_depth=stochastic_depth)
        self.output = nn.Linear(style.width, spec.num_outputs)
        initialise(self.output, style.width)

    def forward(self, images: Tensor) -> Tensor:
        x = self.embedding(patches(images, self.patch))
        if self.cls_token is not None:
            x = torch.cat((self.cls_token.expand(len(x), 1, -1), x), dim=1)
        x = self.stack(x)  # (B, N, width)
        outputs: Tensor = self.output(x.mean(1) if self.cls_token is None else x[:, 0])
        return outputs

    def attention_weights(self, images: Tensor) -> dict[str, Tensor]:
        """See `dlrun.layers.attention.attention_weights`; patches row by row, with readout=cls that token first."""
        return attention_weights(self, images)


def patches(images: Tensor, side: int) -> Tensor:
    """(B, C, H, W) → (B, H / side · W / side, C · side · side), patches row by row, each a channel after the other."""
    batch, channels, height, width = images.shape
    cut = images.reshape(batch, channels, height // side, side, width // side, side)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * side * side)


def _no_fit(spec: DataSpec, patch: int) -> str:
    _, height, breadth = spec.shape
    fitting = [n for n in range(1, min(height, breadth) + 1) if height % n == 0 and breadth % n == 0]
    near = sorted(sorted(fitting, key=lambda n: abs(math.log(n / patch)))[:3])
    return (
        f"model=vit cuts images into squares of model.patch={patch} pixels, which does not divide those of "
        f"data={spec.name}, of shape {spec.shape}: choose model.patch={', '.join(map(str, near[:-1]))}"
        f"{' or ' if len(near) > 1 else ''}{near[-1]}"
    )
