"""A transformer encoder that reads tokens, a sequence or the rows of an image and answers once."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from dlrun.contracts import DataSpec, Kind
from dlrun.layers.attention import attention_weights
from dlrun.layers.embedding import NumberEmbedding, TokenEmbedding
from dlrun.layers.positions import Positions, Rotary, make_positions
from dlrun.layers.transformer import Stack, Style, initialise, small_std

Readout = Literal["mean", "cls"]


class TransformerClassifier(nn.Module):
    """Inputs as `spec.kind` says → (B, spec.num_outputs): classes, labels, numbers or a forecast.

    Padding is never attended to nor averaged: what fills a batch up changes no output. See `transformer`.
    """

    def __init__(
        self,
        spec: DataSpec,
        style: Style,
        depth: int,
        *,
        positions: Positions,
        stochastic_depth: float,
        readout: Readout,
    ) -> None:
        super().__init__()
        self.kind = spec.kind
        self.padding = spec.padding
        length = (spec.shape[1] if spec.kind is Kind.IMAGE else spec.shape[0]) + (readout == "cls")
        if spec.kind is Kind.TOKENS:
            self.embedding: nn.Module = TokenEmbedding(spec.vocabulary_size, style.width, positions)
        else:
            self.embedding = NumberEmbedding(spec.num_features // spec.shape[spec.kind is Kind.IMAGE], style.width)
        std = small_std(style.width) if spec.kind is Kind.TOKENS else 1.0
        self.cls_token = nn.Parameter(torch.randn(style.width) * std) if readout == "cls" else None
        self.stack = Stack(
            style,
            depth,
            positions=make_positions(positions, length, style.width, std),
            rotary=Rotary(length, style.width // style.heads) if positions == "rotary" else None,
            stochastic_depth=stochastic_depth,
        )
        self.output = nn.Linear(style.width, spec.num_outputs)
        initialise(self.output, style.width)

    def forward(self, inputs: Tensor) -> Tensor:
        counted = inputs != self.padding if self.kind is Kind.TOKENS and self.padding is not None else None
        if self.kind is Kind.IMAGE:
            inputs = inputs.transpose(1, 2).flatten(2)  # (B, H, C · W)
        x = self.embedding(inputs)  # (B, T, width)
        if self.cls_token is not None:
            x = torch.cat((self.cls_token.expand(len(x), 1, -1), x), dim=1)
            counted = None if counted is None else nn.functional.pad(counted, (1, 0), value=True)
        x = self.stack(x, None if counted is None else counted[:, None, None, :])
        outputs: Tensor = self.output(self._one_vector(x, counted))
        return outputs

    def attention_weights(self, inputs: Tensor) -> dict[str, Tensor]:
        """See `dlrun.layers.attention.attention_weights`; with readout=cls, position 0 is that token."""
        return attention_weights(self, inputs)

    def _one_vector(self, x: Tensor, counted: Tensor | None) -> Tensor:
        """(B, T, width) → (B, width); an input of padding alone has mean 0."""
        if self.cls_token is not None:
            return x[:, 0]
        if counted is None:
            return x.mean(1)
        return (x * counted[:, :, None]).sum(1) / counted.sum(1, keepdim=True).clamp(min=1)
