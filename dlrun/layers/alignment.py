"""Attention of a recurrent decoder: which parts of the source matter for the next token."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

Score = Literal["dot", "general"]


class Memory(NamedTuple):
    """What a decoder can look at.

    Attributes:
        values: (B, S, H), the encoder's outputs.
        keys: (B, S, H), what queries are compared with.
        ignored: (B, S), true for padding.
    """

    values: Tensor
    keys: Tensor
    ignored: Tensor


class LuongAttention(nn.Module):
    """Multiplicative: weights are the softmax of q · v (dot) or q · W v (general).

    Queries (B, T, H) → contexts (B, T, H), the weighted means of the values, and weights (B, T, S).
    Source: Luong et al. 2015 (arXiv:1508.04025), global attention, eq. 7 and 8.
    """

    def __init__(self, hidden: int, score: Score) -> None:
        super().__init__()
        self.key = nn.Linear(hidden, hidden, bias=False) if score == "general" else nn.Identity()

    def remember(self, values: Tensor, ignored: Tensor) -> Memory:
        return Memory(values, self.key(values), ignored)

    def forward(self, queries: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        return _attend(queries @ memory.keys.transpose(1, 2), memory)


class BahdanauAttention(nn.Module):
    """Additive: weights are the softmax of a · tanh(W q + U v). The rest is as in `LuongAttention`.

    Source: Bahdanau et al. 2014 (arXiv:1409.0473), appendix A.1.2.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.key = nn.Linear(hidden, hidden, bias=False)
        self.query = nn.Linear(hidden, hidden, bias=False)
        self.score = nn.Linear(hidden, 1, bias=False)

    def remember(self, values: Tensor, ignored: Tensor) -> Memory:
        return Memory(values, self.key(values), ignored)

    def forward(self, queries: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        sums = self.query(queries)[:, :, None] + memory.keys[:, None]  # (B, T, S, H)
        return _attend(self.score(torch.tanh(sums)).squeeze(3), memory)


def _attend(scores: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
    """Contexts (B, T, H) and weights (B, T, S) of scores (B, T, S)."""
    weights = scores.masked_fill(memory.ignored[:, None], -torch.inf).softmax(2)
    return weights @ memory.values, weights
