"""A recurrent encoder and decoder, with or without attention: one sequence of tokens into another."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from dlrun.contracts import DataSpec, Fraction, Kind, NonNegativeInt, PositiveFloat, PositiveInt, Probability, Task
from dlrun.errors import ConfigError, ContractError
from dlrun.layers.alignment import BahdanauAttention, LuongAttention, Memory, Score
from dlrun.layers.recurrent import CellName, Recurrent, State
from dlrun.layers.sequence import lengths_of, token_embedding

AttentionName = Literal["none", "luong", "bahdanau"]


def seq2seq(
    spec: DataSpec,
    *,
    cell: CellName = "lstm",
    hidden: PositiveInt = 128,
    layers: PositiveInt = 1,
    bidirectional: bool = True,
    attention: AttentionName = "luong",
    score: Score = "general",
    embedding: PositiveInt = 64,
    embedding_std: PositiveFloat = 1.0,
    dropout: Probability = 0.0,
    teacher_forcing: Fraction = 1.0,
    sampling_steps: NonNegativeInt = 0,
) -> nn.Module:
    """An encoder whose last state is the first of a decoder, which reads the target token by token.

    Inputs (source (B, S), shifted (B, T)) → logits (B, T, spec.num_outputs). Padding of the source has no influence.

    Args:
        spec: of a sequence-to-sequence task.
        cell: of encoder and decoder: rnn, gru or lstm.
        hidden: units of each layer; a bidirectional encoder shares them between its directions.
        layers: of encoder and of decoder.
        bidirectional: the encoder reads the source in both directions.
        attention: none: all there is to know of the source is the state (Sutskever et al. 2014, arXiv:1409.3215,
            without its reversal of the source); luong: the decoder's outputs look at the source (arXiv:1508.04025,
            without input feeding, so that all time steps train at once); bahdanau: the state before each step looks,
            and the step reads what it saw (arXiv:1409.0473), which goes step by step.
        score: of luong: dot compares as it is, general through a matrix.
        embedding: numbers that stand for a token.
        embedding_std: with which they are drawn; smaller than 1, PyTorch's, for thousands of words.
        dropout: probability of zeroing an embedded token, a connection between layers, or an input of the output layer.
        teacher_forcing: probability with which a training decoder reads the right token before; else its own likeliest
            one (scheduled sampling, arXiv:1506.03099). 1 trains all time steps at once.
        sampling_steps: training batches (of trainer.accumulate, micro-batches) in which that probability falls linearly
            from 1; 0: it holds from the start.

    Raises:
        ContractError for any other task.
        ConfigError if `hidden` cannot be shared between two directions.
    """
    if spec.task is not Task.SEQUENCE_TO_SEQUENCE:
        raise ContractError(
            f"model=seq2seq turns one sequence of tokens into another, and the task of data={spec.name} is "
            f"{spec.task.value}: choose another model"
        )
    spec.require("seq2seq", Kind.TOKENS)
    if bidirectional and hidden % 2:
        raise ConfigError(
            f"model.hidden must be even to be shared between the two directions of model.bidirectional=true, "
            f"got {hidden}"
        )
    read = token_embedding(spec.vocabulary_size, embedding, embedding_std, spec.padding)
    encoder = Encoder(read, cell, hidden, layers, bidirectional, dropout)
    embed = token_embedding(spec.num_outputs, embedding, embedding_std, spec.padding)
    decoder: Decoder
    if attention == "bahdanau":
        rnn = Recurrent(cell, embedding + hidden, hidden, layers, dropout=dropout)
        decoder = BahdanauDecoder(embed, rnn, dropout, spec.num_outputs, BahdanauAttention(hidden))
    else:
        rnn = Recurrent(cell, embedding, hidden, layers, dropout=dropout)
        looking = LuongAttention(hidden, score) if attention == "luong" else None
        decoder = Decoder(embed, rnn, dropout, spec.num_outputs, looking)
    return Seq2Seq(encoder, decoder, teacher_forcing, sampling_steps)


class DecoderState(NamedTuple):
    """Everything a decoder knows, the batch first in all of it. Without attention there is no memory."""

    rnn: State
    memory: Memory | None


class Seq2Seq(nn.Module):
    """Encoder and decoder; see `seq2seq`. Training batches are counted in a buffer, so that a resumed run is exact."""

    forwards: Tensor

    def __init__(
        self, encoder: Encoder, decoder: Decoder, teacher_forcing: float = 1.0, sampling_steps: int = 0
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.teacher_forcing = teacher_forcing
        self.sampling_steps = sampling_steps
        if teacher_forcing < 1:
            self.register_buffer("forwards", torch.zeros((), dtype=torch.int64))

    def forward(self, source: Tensor, shifted: Tensor) -> Tensor:
        state = self.begin(source)
        if self.training and self.teacher_forcing < 1:
            return self._sampled(shifted, state)
        return self.step(shifted, state)[0]

    def begin(self, source: Tensor) -> DecoderState:
        """The state before the first target token, of sources (B, S)."""
        outputs, state, ignored = self.encoder(source)
        return DecoderState(state, self.decoder.remember(outputs, ignored))

    def step(self, tokens: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Logits (B, t, num_outputs) after each of the tokens (B, t), and the new state."""
        logits, _, after = self.decoder(tokens, state)
        return logits, after

    def attention_weights(self, source: Tensor, shifted: Tensor) -> Tensor:
        """How much each target token looked at each source token, (B, T, S); each row sums to 1, padding has 0.

        Raises: ConfigError for a model without attention.
        """
        _, weights, _ = self.decoder(shifted, self.begin(source))
        if weights is None:
            raise ConfigError("model.attention=none has no weights to look at: train with luong or bahdanau")
        seen: Tensor = weights
        return seen

    def _sampled(self, shifted: Tensor, state: DecoderState) -> Tensor:
        """Logits (B, T, num_outputs) where some of the tokens before are the model's own; each draws for itself."""
        share = (self.forwards / self.sampling_steps).clamp(max=1) if self.sampling_steps else 1.0
        self.forwards += 1
        given = torch.rand(shifted.shape, device=shifted.device) < 1 - (1 - self.teacher_forcing) * share
        logits: list[Tensor] = []
        for t in range(shifted.shape[1]):
            tokens = shifted[:, t : t + 1]
            if logits:
                tokens = torch.where(given[:, t : t + 1], tokens, logits[-1].argmax(2))
            output, state = self.step(tokens, state)
            logits.append(output)
        return torch.cat(logits, 1)


class Encoder(nn.Module):
    """Sources (B, S) → outputs (B, S, hidden), the state for a decoder, and which positions are padding, (B, S)."""

    def __init__(
        self, embed: nn.Embedding, cell: CellName, hidden: int, layers: int, bidirectional: bool, dropout: float
    ) -> None:
        super().__init__()
        self.padding = embed.padding_idx
        self.layers = layers
        self.embed = embed
        self.drop = nn.Dropout(dropout)
        each = hidden // 2 if bidirectional else hidden
        self.rnn = Recurrent(cell, embed.embedding_dim, each, layers, bidirectional=bidirectional, dropout=dropout)

    def forward(self, source: Tensor) -> tuple[Tensor, State, Tensor]:
        lengths = None if self.padding is None else lengths_of(source, self.padding)
        outputs, state = self.rnn(self.drop(self.embed(source)), None, lengths)
        positions = torch.arange(source.shape[1], device=source.device).expand(source.shape)
        ignored = positions < 0 if lengths is None else positions >= lengths[:, None]
        # (B, layers · directions, each) → (B, layers, hidden): both directions of a layer side by side.
        return outputs, tuple(part.reshape(len(source), self.layers, -1) for part in state), ignored


class Decoder(nn.Module):
    """Tokens (B, T) and a state → logits (B, T, num_outputs), weights (B, T, S) or None, and the state after.

    The outputs of the recurrent layers, joined with what they look at if there is attention, as tanh(W [c; h]).
    """

    def __init__(
        self,
        embed: nn.Embedding,
        rnn: Recurrent,
        dropout: float,
        num_outputs: int,
        attention: LuongAttention | BahdanauAttention | None,
    ) -> None:
        super().__init__()
        hidden = rnn.rnn.hidden_size
        self.embed = embed
        self.rnn = rnn
        self.drop = nn.Dropout(dropout)
        self.attention = attention
        self.join = nn.Linear(2 * hidden, hidden, bias=False) if attention is not None else None
        self.output = nn.Linear(hidden, num_outputs)

    def remember(self, outputs: Tensor, ignored: Tensor) -> Memory | None:
        """What there is to look at, of an encoder's outputs (B, S, hidden)."""
        return None if self.attention is None else self.attention.remember(outputs, ignored)

    def forward(self, tokens: Tensor, state: DecoderState) -> tuple[Tensor, Tensor | None, DecoderState]:
        outputs, after = self.rnn(self.drop(self.embed(tokens)), state.rnn)
        contexts, weights = None, None
        if self.attention is not None:
            contexts, weights = self.attention(outputs, state.memory)
        return self._logits(outputs, contexts), weights, DecoderState(after, state.memory)

    def _logits(self, outputs: Tensor, contexts: Tensor | None) -> Tensor:
        if self.join is not None and contexts is not None:
            outputs = torch.tanh(self.join(torch.cat([contexts, outputs], 2)))
        logits: Tensor = self.output(self.drop(outputs))
        return logits


class BahdanauDecoder(Decoder):
    """A decoder that looks before each step, with the state of its last layer, and reads what it saw."""

    def forward(self, tokens: Tensor, state: DecoderState) -> tuple[Tensor, Tensor | None, DecoderState]:
        assert self.attention is not None
        rnn, memory = state
        seen = []
        for token in self.drop(self.embed(tokens)).split(1, dim=1):
            context, weights = self.attention(rnn[0][:, -1:], memory)
            output, rnn = self.rnn(torch.cat([token, context], 2), rnn)
            seen.append((output, context, weights))
        outputs, contexts, all_weights = (torch.cat(parts, 1) for parts in zip(*seen, strict=True))
        return self._logits(outputs, contexts), all_weights, DecoderState(rnn, memory)
