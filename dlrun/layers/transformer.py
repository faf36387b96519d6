"""A stack of transformer blocks, of which encoders, decoders and vision transformers are made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from dlrun.layers.attention import Cache, CrossAttention, KeysValues, SelfAttention
from dlrun.layers.feed_forward import FeedForwardKind, feed_forward
from dlrun.layers.positions import Rotary
from dlrun.layers.stochastic_depth import StochasticDepth, linear_drops

TokenNorm = Literal["layer", "rms"]


@dataclass(frozen=True)
class Style:
    """What all blocks of a model have in common.

    Attributes:
        width: features of a token.
        heads: of each attention; divides `width`.
        hidden: units of the feed-forward part, before a gated one's reduction.
        activation: of the feed-forward part; see `feed_forward`.
        norm: over the features of each token: layer (arXiv:1607.06450) or rms (arXiv:1910.07467).
        eps: what the norm adds to the variance.
        pre_norm: norms at the beginning of each branch and at the end of the stack (arXiv:2002.04745); else after each
            sum, as in arXiv:1706.03762.
        bias: in linear maps and layer norms.
        dropout: of what each branch adds to a token, and of the stack's inputs.
        attention_dropout: of attention weights.
        qk_norm: of queries and keys in self-attention; see `SelfAttention`.
    """

    width: int
    heads: int
    hidden: int
    activation: FeedForwardKind = "gelu"
    norm: TokenNorm = "layer"
    eps: float = 1e-5
    pre_norm: bool = True
    bias: bool = True
    dropout: float = 0.0
    attention_dropout: float = 0.0
    qk_norm: bool = False

    def make_norm(self) -> nn.Module:
        if self.norm == "rms":
            return nn.RMSNorm(self.width, self.eps)
        return nn.LayerNorm(self.width, self.eps, bias=self.bias)


class Residual(nn.Module):
    """x + drop(f(norm(x), ...)), or with the norm at the end norm(x + drop(f(x, ...))).

    Args:
        inner: f, from (B, T, width) and what else it takes to (B, T, width).
        depth_drop: probability of leaving the branch of an example out while training.
    """

    def __init__(self, style: Style, inner: nn.Module, depth_drop: float = 0.0) -> None:
        super().__init__()
        self.pre_norm = style.pre_norm
        self.norm = style.make_norm()
        self.inner = inner
        drops: list[nn.Module] = [nn.Dropout(style.dropout)] if style.dropout > 0 else []
        drops += [StochasticDepth(depth_drop)] if depth_drop > 0 else []
        self.drop = nn.Sequential(*drops) if drops else None

    def forward(self, x: Tensor, *others: object) -> Tensor:
        branch: Tensor = self.inner(self.norm(x) if self.pre_norm else x, *others)
        if self.drop is not None:
            branch = self.drop(branch)
        y: Tensor = x + branch if self.pre_norm else self.norm(x + branch)
        return y


class Block(nn.Module):
    """Self-attention, attention to a memory where `cross`, and a feed-forward part: (B, T, width) → (B, T, width).

    Args:
        causal: each position sees those up to itself.
        depth_drop: see `Residual`.
    """

    def __init__(
        self, style: Style, *, causal: bool, cross: bool = False, rotary: Rotary | None = None, depth_drop: float = 0.0
    ) -> None:
        super().__init__()
        self_attention = SelfAttention(
            style.width,
            style.heads,
            causal=causal,
            rotary=rotary,
            qk_norm=style.qk_norm,
            bias=style.bias,
            dropout=style.attention_dropout,
        )
        self.attention = Residual(style, self_attention, depth_drop)
        self.cross: Residual | None = None
        if cross:
            inner = CrossAttention(style.width, style.heads, bias=style.bias, dropout=style.attention_dropout)
            self.cross = Residual(style, inner, depth_drop)
        units = feed_forward(style.activation, style.width, style.hidden, bias=style.bias)
        self.feed_forward = Residual(style, units, depth_drop)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        cache: Cache | None = None,
        memory: KeysValues | None = None,
        memory_mask: Tensor | None = None,
    ) -> Tensor:
        x = self.attention(x, mask, cache)
        if self.cross is not None:
            x = self.cross(x, memory, memory_mask)
        x = self.feed_forward(x)
        return x


class Stack(nn.Module):
    """Positions, dropout, `depth` blocks, and with pre-norm a last norm: (B, T, width) → (B, T, width).

    Weights start as `initialise` says; with pre-norm those that write into the sum of branches are divided by the root
    of the number of branches, so that the sum's size does not grow with the depth (GPT-2).

    Args:
        positions: added to the inputs, called as `positions(x, start)`; see `make_positions`.
        rotary: turns queries and keys in each self-attention.
        causal, cross: see `Block`.
        stochastic_depth: probability of leaving out a branch of the last block; it falls linearly towards the first.
    """

    def __init__(
        self,
        style: Style,
        depth: int,
        *,
        positions: nn.Module | None = None,
        rotary: Rotary | None = None,
        causal: bool = False,
        cross: bool = False,
        stochastic_depth: float = 0.0,
    ) -> None:
        super().__init__()
        self.positions = positions
        self.dropout = nn.Dropout(style.dropout) if style.dropout > 0 else None
        self.blocks = nn.ModuleList(
            Block(style, causal=causal, cross=cross, rotary=rotary, depth_drop=drop)
            for drop in linear_drops(stochastic_depth, depth)
        )
        self.norm = style.make_norm() if style.pre_norm else None
        branches = depth * (3 if cross else 2)
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                initialise(module, style.width)
        if style.pre_norm:
            for branch in self.blocks.modules():
                if isinstance(branch, Residual):
                    branch.inner.get_parameter("output.weight").data.div_(branches**0.5)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        caches: Sequence[Cache] | None = None,
        memories: Sequence[KeysValues] | None = None,
        memory_mask: Tensor | None = None,
    ) -> Tensor:
        """One pass over (B, T, width).

        Args:
            mask: which positions may be attended to, bool, broadcastable to (B, heads, T, T).
            caches: one for each block, of what came before `x`; each grows by `x`.
            memories: from `remember`, one for each block.
            memory_mask: which positions of the memory may be attended to, broadcastable to (B, heads, T, S).
        """
        if self.positions is not None:
            x = self.positions(x, len(caches[0]) if caches else 0)
        if self.dropout is not None:
            x = self.dropout(x)
        for i, block in enumerate(self.blocks):
            x = block(x, mask, caches[i] if caches else None, memories[i] if memories else None, memory_mask)
        return x if self.norm is None else self.norm(x)

    def remember(self, memory: Tensor) -> list[KeysValues]:
        """What each block attends to in a memory (B, S, width)."""
        crossings = [module for module in self.blocks.modules() if isinstance(module, CrossAttention)]
        return [crossing.remember(memory) for crossing in crossings]


def small_std(width: int) -> float:
    """√(2 / (5 · width)), the standard deviation of weights at the start.

    Source: Nguyen & Salazar 2019 (arXiv:1910.05895), sec. 3.1: Xavier's of a layer that is four times as wide as its
    inputs. It is about the 0.02 of GPT-2 and BERT at their widths, which is too little for narrow models.
    """
    return math.sqrt(2 / (5 * width))


def initialise(layer: nn.Linear, width: int) -> None:
    """Weights from N(0, 2 / (5 · width)), biases 0."""
    nn.init.normal_(layer.weight, std=small_std(width))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
