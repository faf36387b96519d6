"""Temporal convolutional network: causal, dilated convolutions in place of recurrence."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dlrun.contracts import Activation, DataSpec, PositiveFloat, PositiveInt, Probability, Task
from dlrun.errors import ContractError
from dlrun.layers.causal_convolution import CausalNorm, TemporalBlock, receptive_field
from dlrun.layers.sequence import Readout, SequenceReader, pooled


def tcn(
    spec: DataSpec,
    *,
    channels: Sequence[PositiveInt] = (25,) * 8,
    kernel_size: PositiveInt = 7,
    dilation_base: PositiveInt = 2,
    embedding: PositiveInt = 64,
    embedding_std: PositiveFloat = 0.1,
    readout: Readout = "last",
    dropout: Probability = 0.0,
    norm: CausalNorm = "weight",
    activation: Activation = "relu",
) -> nn.Module:
    """Residual blocks of causal convolutions whose dilation grows from block to block, and a linear output.

    Reads sequences (B, T, F), images (B, C, H, W) as the sequence of their rows, and tokens (B, T), whose padding has
    no influence but on the statistics of norm=batch. Outputs (B, spec.num_outputs), without softmax; for language
    modelling (B, T, spec.num_outputs).
    An output depends on the 1 + 2 (kernel_size - 1) Σ dilation_base^i time steps up to its own, i from 0: 3061 with
    the default values. Source: Bai et al. 2018 (arXiv:1803.01271).

    Args:
        spec: sequences, images or tokens, of any task but sequence-to-sequence.
        channels: of each block.
        kernel_size: time steps that a convolution combines.
        dilation_base: they lie dilation_base^i apart in block i, counted from 0.
        embedding: numbers that stand for a token.
        embedding_std: with which they are drawn: small for words, which are rarely seen, 1 for characters.
        readout: of the last block: the last time step, or the mean or maximum over time; in language modelling each.
        dropout: probability of zeroing a channel of a convolution, or a number of an embedded token.
        norm: weight: of the convolutions' filters (arXiv:1602.07868); rms: of each time step; batch; none.
        activation: after each convolution and each block.

    Raises: ContractError for data of other kinds, or norm=batch in language modelling, where it would see the future.
    """
    reader = SequenceReader(spec, "tcn", embedding=embedding, embedding_std=embedding_std, dropout=dropout)
    if norm == "batch" and spec.task is Task.LANGUAGE_MODELLING:
        raise ContractError(
            f"model.norm=batch takes its statistics from all time steps, and data={spec.name} asks to predict the next "
            "token (language_modelling), which it would see: choose model.norm=weight, rms or none"
        )
    blocks, features = [], reader.features
    dilations = [dilation_base**i for i in range(len(channels))]
    for width, dilation in zip(channels, dilations, strict=True):
        block = TemporalBlock(features, width, kernel_size, dilation, norm=norm, activation=activation, dropout=dropout)
        blocks.append(block)
        features = width
    output = nn.Linear(features, spec.num_outputs)
    if spec.task is Task.LANGUAGE_MODELLING:
        return TemporalLanguageModel(reader, nn.Sequential(*blocks), output, receptive_field(kernel_size, dilations))
    return TemporalReader(reader, nn.Sequential(*blocks), output, readout)


class TemporalReader(nn.Module):
    """A sequence to one row of outputs. Inputs as `SequenceReader` takes them → (B, num_outputs)."""

    def __init__(self, reader: SequenceReader, blocks: nn.Module, output: nn.Linear, readout: Readout) -> None:
        super().__init__()
        self.reader = reader
        self.blocks = blocks
        self.output = output
        self.readout = readout

    def forward(self, inputs: Tensor) -> Tensor:
        x, lengths = self.reader(inputs)
        outputs = self.blocks(x.transpose(1, 2)).transpose(1, 2)
        result: Tensor = self.output(pooled(outputs, lengths, self.readout))
        return result


class TemporalLanguageModel(nn.Module):
    """Tokens (B, T) → (B, T, num_outputs), logits of the token after each.

    Attributes:
        receptive_field: tokens, its own included, that an output depends on.
    """

    def __init__(self, reader: SequenceReader, blocks: nn.Module, output: nn.Linear, receptive_field: int) -> None:
        super().__init__()
        self.reader = reader
        self.blocks = blocks
        self.output = output
        self.receptive_field = receptive_field

    def forward(self, tokens: Tensor) -> Tensor:
        x, _ = self.reader(tokens)
        logits: Tensor = self.output(self.blocks(x.transpose(1, 2)).transpose(1, 2))
        return logits

    def step(self, tokens: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits (B, t, num_outputs) after each of the tokens (B, t), and the state; None begins a text.

        The state is what can still be seen of the text: tokens (B, at most receptive_field - 1), read again each time.
        """
        seen = tokens if state is None else torch.cat([state, tokens], 1)
        kept = min(seen.shape[1], self.receptive_field - 1)
        return self(seen)[:, -tokens.shape[1] :], seen[:, seen.shape[1] - kept :]
