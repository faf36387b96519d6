"""Vectors for what a transformer reads, of the size that goes with the positions added to them."""

from __future__ import annotations

import math

from torch import Tensor, nn

from dlrun.layers.positions import Positions
from dlrun.layers.transformer import small_std


class TokenEmbedding(nn.Embedding):
    """(B, T) → (B, T, width). Rows from N(0, `small_std`²).

    With sinusoidal positions, whose features are sines of amplitude 1, rows are from N(0, 1 / width) and are multiplied
    by √width, so that at the start what a token is weighs as much as where it stands, and the same rows still serve
    as the weights of an output layer. Source: Vaswani et al. 2017 (arXiv:1706.03762), sec. 3.4.
    """

    def __init__(self, count: int, width: int, positions: Positions) -> None:
        super().__init__(count, width)
        self.scale = math.sqrt(width) if positions == "sinusoidal" else None
        nn.init.normal_(self.weight, std=small_std(width) if self.scale is None else 1 / self.scale)

    def forward(self, tokens: Tensor) -> Tensor:
        vectors = super().forward(tokens)
        return vectors if self.scale is None else vectors * self.scale


class NumberEmbedding(nn.Linear):
    """(B, T, features) → (B, T, width), a linear map; standardised features become vectors of numbers of size 1.

    Weights start from N(0, 1 / features), biases at 0. Under autocast too the outputs have the type of the weights:
    they are what all blocks add to.
    """

    def __init__(self, features: int, width: int) -> None:
        super().__init__(features, width)
        nn.init.normal_(self.weight, std=features**-0.5)
        nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).to(self.weight.dtype)
