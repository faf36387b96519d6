"""From what the data give to sequences (B, T, features), and from sequences to one vector."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlrun.contracts import DataSpec, Kind, Task
from dlrun.errors import ContractError

Readout = Literal["last", "mean", "max"]


class SequenceReader(nn.Module):
    """Reads a batch as sequences: tokens are embedded, an image is the sequence of its rows, from top to bottom.

    Tokens (B, T), sequences (B, T, F) or images (B, C, H, W) → (B, T, features) and the lengths (B,) of the sequences,
    None where nothing is padded. Those of a language model are not needed: it reads nothing behind a token anyway.

    Args:
        spec: of tokens, sequences or images.
        model: its name, for messages.
        embedding: numbers that stand for a token.
        embedding_std: with which they are drawn.
        dropout: probability of zeroing one of them.
        variational: with the same mask at all time steps.

    Attributes:
        features: numbers at each time step.

    Raises: ContractError if the data are of another kind, or of a sequence-to-sequence task.
    """

    def __init__(
        self,
        spec: DataSpec,
        model: str,
        *,
        embedding: int,
        embedding_std: float = 1.0,
        dropout: float = 0.0,
        variational: bool = False,
    ) -> None:
        super().__init__()
        spec.require(model, Kind.TOKENS, Kind.SEQUENCE, Kind.IMAGE)
        if spec.task is Task.SEQUENCE_TO_SEQUENCE:
            raise ContractError(
                f"model={model} reads one sequence, but data={spec.name} is to turn one into another: "
                "choose model=seq2seq"
            )
        self.kind = spec.kind
        self.padding = None if spec.task is Task.LANGUAGE_MODELLING else spec.padding
        if spec.kind is Kind.TOKENS:
            self.features = embedding
            self.embed = token_embedding(spec.vocabulary_size, embedding, embedding_std, spec.padding)
            self.drop = TimeDropout(dropout) if variational else nn.Dropout(dropout)
        else:
            self.features = spec.shape[1] if spec.kind is Kind.SEQUENCE else spec.shape[0] * spec.shape[2]

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.kind is Kind.IMAGE:
            return inputs.transpose(1, 2).flatten(2), None  # (B, C, H, W) → (B, H, C · W)
        if self.kind is Kind.SEQUENCE:
            return inputs, None
        return self.drop(self.embed(inputs)), None if self.padding is None else lengths_of(inputs, self.padding)


def token_embedding(count: int, width: int, std: float, padding: int | None) -> nn.Embedding:
    """Tokens (B, T) → (B, T, width), drawn from N(0, std²); that of `padding` is zero and stays so."""
    embed = nn.Embedding(count, width, padding_idx=padding)
    with torch.no_grad():
        embed.weight.mul_(std)
    return embed


class TimeDropout(nn.Module):
    """Zeroes a feature at all time steps together with probability p while training; divides the others by 1 - p.

    Inputs and outputs (B, T, F). Source: Gal & Ghahramani 2016 (arXiv:1512.05287).
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        return x * F.dropout(x.new_ones(len(x), 1, x.shape[2]), self.p)

    def extra_repr(self) -> str:
        return f"{self.p:g}"


def lengths_of(tokens: Tensor, padding: int) -> Tensor:
    """How many of the tokens (B, T) come before the padding, (B,); at least 1, so that an empty text has a state."""
    return (tokens != padding).sum(1).clamp(min=1)


def pooled(outputs: Tensor, lengths: Tensor | None, readout: Readout, *, backward: int = 0) -> Tensor:
    """One vector for each sequence, (B, T, F) → (B, F); what lies behind the end of a sequence has no influence.

    Args:
        lengths: (B,), None where all sequences fill T.
        readout: mean and max over time, or the last time step.
        backward: so many features, the last ones, were computed from the end to the beginning: their last is the first.
    """
    if readout == "last":
        ends = (
            outputs[:, -1]
            if lengths is None
            else outputs[torch.arange(len(outputs), device=outputs.device), lengths - 1]
        )
        return torch.cat([ends[:, :-backward], outputs[:, 0, -backward:]], 1) if backward else ends
    if lengths is None:
        return outputs.mean(1) if readout == "mean" else outputs.amax(1)
    behind = (torch.arange(outputs.shape[1], device=outputs.device) >= lengths[:, None])[:, :, None]
    if readout == "mean":
        return outputs.masked_fill(behind, 0).sum(1) / lengths[:, None]
    return outputs.masked_fill(behind, -torch.inf).amax(1)
