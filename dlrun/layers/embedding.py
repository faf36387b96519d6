"""Vectors for tokens, of the size that goes with the positions added to them."""

from __future__ import annotations

import math

from torch import Tensor, nn

from dlrun.layers.positions import Positions
from dlrun.layers.transformer import STD


class TokenEmbedding(nn.Embedding):
    """(B, T) → (B, T, width). Rows from N(0, 0.02²), as in GPT-2.

    With sinusoidal positions, whose features are sines of amplitude 1, rows are from N(0, 1 / width) and are multiplied
    by √width, so that at the start what a token is weighs as much as where it stands, and the same rows still serve
    as the weights of an output layer. Source: Vaswani et al. 2017 (arXiv:1706.03762), sec. 3.4.
    """

    def __init__(self, count: int, width: int, positions: Positions) -> None:
        super().__init__(count, width)
        self.scale = math.sqrt(width) if positions == "sinusoidal" else None
        nn.init.normal_(self.weight, std=STD if self.scale is None else 1 / self.scale)

    def forward(self, tokens: Tensor) -> Tensor:
        vectors = super().forward(tokens)
        return vectors if self.scale is None else vectors * self.scale
