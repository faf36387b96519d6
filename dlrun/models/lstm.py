"""Recurrent networks: RNN, GRU and LSTM for classes, numbers and the next token; conf/model/gru.yaml is a setting."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from dlrun.contracts import DataSpec, PositiveFloat, PositiveInt, Probability, Task
from dlrun.errors import ConfigError, ContractError
from dlrun.layers.recurrent import CellName, Recurrent, RecurrentInit, State, detached
from dlrun.layers.recurrent_stepped import SteppedRecurrent
from dlrun.layers.sequence import Readout, SequenceReader, TimeDropout, pooled


def lstm(
    spec: DataSpec,
    *,
    cell: CellName = "lstm",
    hidden: PositiveInt = 128,
    layers: PositiveInt = 1,
    bidirectional: bool = False,
    embedding: PositiveInt = 128,
    embedding_std: PositiveFloat = 0.1,
    readout: Readout = "last",
    dropout: Probability = 0.0,
    variational: bool = False,
    zoneout: Probability = 0.0,
    zoneout_cell: Probability = 0.0,
    norm: Literal["none", "layer"] = "none",
    forget_bias: float | None = 1.0,
    recurrent_init: RecurrentInit = "orthogonal",
    truncate: PositiveInt | None = None,
    carry: bool = False,
    tie_weights: bool = False,
) -> nn.Module:
    """Recurrent layers over a sequence, and a linear output, without softmax.

    Reads sequences (B, T, F), images (B, C, H, W) as the sequence of their rows, and tokens (B, T), whose padding has
    no influence. Outputs (B, spec.num_outputs); for language modelling (B, T, spec.num_outputs), of which each has
    seen the tokens up to its own. Features of a table have no order, so vectors are refused. torch.nn's kernels run
    unless variational dropout, zoneout or layer norm ask for steps of our own, which take about twice the time.

    Args:
        spec: sequences, images or tokens, of any task but sequence-to-sequence.
        cell: rnn (tanh; Elman 1990), gru (arXiv:1406.1078) or lstm (Hochreiter & Schmidhuber 1997).
        hidden: units of each layer and direction.
        layers: recurrent layers, each reading the outputs of the one below.
        bidirectional: read from the end to the beginning too.
        embedding: numbers that stand for a token.
        embedding_std: with which they are drawn. Words, each of which is rarely seen, need small ones; characters
            learn faster from 1, PyTorch's.
        readout: of the last layer's outputs: the last, or their mean or maximum over time; in language modelling each.
        dropout: probability of zeroing a connection that is not recurrent: of embedded tokens, between layers, before
            the output (arXiv:1409.2329).
        variational: dropout with one mask for all time steps, and of the recurrent connections too (arXiv:1512.05287).
        zoneout: probability with which a unit keeps its state for a step (arXiv:1606.01305).
        zoneout_cell: the same of an LSTM's cell.
        norm: layer norm in the cells (arXiv:1607.06450).
        forget_bias: start of an LSTM's forget gates (Jozefowicz et al. 2015); null: PyTorch's, about 0.
        recurrent_init: orthogonal matrices from state to state, gate by gate, or PyTorch's uniform ones.
        truncate: time steps through which gradients flow back; null: all.
        carry: a language model that is training begins each batch with the state after the last one, for
            data.order=contiguous. A batch of another size begins anew, and so does evaluation, which leaves the state
            alone. It is part of checkpoints.
        tie_weights: of embedding and output in language modelling (arXiv:1608.05859); needs embedding = hidden.

    Raises:
        ContractError for data of other kinds, or options that make no sense for their task.
        ConfigError for options that contradict one another.
    """
    reader = SequenceReader(
        spec, "lstm", embedding=embedding, embedding_std=embedding_std, dropout=dropout, variational=variational
    )
    _check(spec, cell, bidirectional, zoneout_cell, truncate, carry, tie_weights, embedding == hidden)
    make: Callable[..., Recurrent] = Recurrent
    if (variational and dropout > 0) or zoneout > 0 or zoneout_cell > 0 or norm == "layer":
        make = partial(
            SteppedRecurrent,
            variational=variational,
            zoneout=zoneout,
            zoneout_cell=zoneout_cell,
            norm=norm == "layer",
        )
    rnn = make(
        cell,
        reader.features,
        hidden,
        layers,
        bidirectional=bidirectional,
        dropout=dropout,
        forget_bias=forget_bias,
        recurrent_init=recurrent_init,
        truncate=truncate,
    )
    output = nn.Linear(rnn.directions * hidden, spec.num_outputs)
    if spec.task is not Task.LANGUAGE_MODELLING:
        return RecurrentReader(reader, rnn, readout, nn.Dropout(dropout), output)
    if tie_weights:
        reader.embed.weight = output.weight  # drawn as those of an output: logits of an embedding's would be large
    drop = TimeDropout(dropout) if variational else nn.Dropout(dropout)
    return RecurrentLanguageModel(reader, rnn, drop, output, carry)


class RecurrentReader(nn.Module):
    """A sequence to one row of outputs. Inputs as `SequenceReader` takes them → (B, num_outputs)."""

    def __init__(
        self, reader: SequenceReader, rnn: Recurrent, readout: Readout, drop: nn.Module, output: nn.Linear
    ) -> None:
        super().__init__()
        self.reader = reader
        self.rnn = rnn
        self.readout = readout
        self.drop = drop
        self.output = output

    def forward(self, inputs: Tensor) -> Tensor:
        x, lengths = self.reader(inputs)
        bidirectional = self.rnn.directions == 2
        # Forwards nothing comes from behind the end, so that all may run over the padding at once.
        outputs, _ = self.rnn(x, None, lengths if bidirectional else None)
        vector = pooled(outputs, lengths, self.readout, backward=outputs.shape[2] // 2 if bidirectional else 0)
        result: Tensor = self.output(self.drop(vector))
        return result


class RecurrentLanguageModel(nn.Module):
    """Tokens (B, T) → (B, T, num_outputs), logits of the token after each.

    Args:
        carry: begin each training batch with the state after the last one.
    """

    def __init__(self, reader: SequenceReader, rnn: Recurrent, drop: nn.Module, output: nn.Linear, carry: bool) -> None:
        super().__init__()
        self.reader = reader
        self.rnn = rnn
        self.drop = drop
        self.output = output
        self.carried = CarriedState() if carry else None

    def forward(self, tokens: Tensor) -> Tensor:
        if self.carried is None or not self.training:
            return self.step(tokens)[0]
        logits, state = self.step(tokens, self.carried.before(tokens))
        self.carried.state = detached(state)
        return logits

    def step(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Logits (B, t, num_outputs) after each of the tokens (B, t), and the state; None begins a text."""
        x, _ = self.reader(tokens)
        outputs, after = self.rnn(x, state)
        return self.output(self.drop(outputs)), after


class CarriedState(nn.Module):
    """The state between one training batch and the next. It is saved with the weights, as a resumed run needs it."""

    def __init__(self) -> None:
        super().__init__()
        self.state: State | None = None  # after the batch
        self._batch: tuple[Tensor, State | None] | None = None  # its tokens and the state before

    def begin_epoch(self) -> None:
        """Forget: the text begins again."""
        self.state = self._batch = None

    def before(self, tokens: Tensor) -> State | None:
        """The state to begin with for tokens (B, T): None, zero, if the batch before had another size.

        The very tokens of the last time are the same batch seen once more, as by SAM, and not the one after.
        """
        if self._batch is None or self._batch[0] is not tokens:
            fits = self.state is not None and len(self.state[0]) == len(tokens)
            self._batch = (tokens, self.state if fits else None)
        state = self._batch[1]
        return None if state is None else tuple(part.to(tokens.device) for part in state)

    def get_extra_state(self) -> Tensor:
        return torch.empty(0) if self.state is None else torch.stack(self.state)

    def set_extra_state(self, state: Tensor) -> None:
        self.state, self._batch = (state.unbind() if len(state) else None), None


def _check(
    spec: DataSpec,
    cell: CellName,
    bidirectional: bool,
    zoneout_cell: float,
    truncate: int | None,
    carry: bool,
    tie_weights: bool,
    is_square: bool,
) -> None:
    """Refuse what contradicts the task or itself; `is_square`: embedding and hidden are equal."""
    predicts_next = spec.task is Task.LANGUAGE_MODELLING
    if bidirectional and predicts_next:
        raise ContractError(
            f"model.bidirectional=true reads tokens from the end, and data={spec.name} asks to predict the next one "
            "(language_modelling), which it would see: choose model.bidirectional=false"
        )
    for key, given in (("carry", carry), ("tie_weights", tie_weights)):
        if given and not predicts_next:
            raise ContractError(
                f"model.{key}=true is for language modelling, and the task of data={spec.name} is {spec.task.value}: "
                f"choose model.{key}=false"
            )
    if tie_weights and not (is_square and spec.vocabulary_size == spec.num_outputs):
        raise ConfigError(
            "model.tie_weights=true uses one matrix for embedding and output, so model.embedding must be equal to "
            "model.hidden, and the tokens to predict those that are read"
        )
    if truncate is not None and bidirectional:
        raise ConfigError(
            "model.truncate cuts a sequence into parts that are read in turn, and model.bidirectional=true needs its "
            "end at once: choose model.truncate=null or model.bidirectional=false"
        )
    if zoneout_cell > 0 and cell != "lstm":
        raise ConfigError(
            f"model.zoneout_cell={zoneout_cell:g} keeps the cell c of an LSTM, which model.cell={cell} does not have: "
            "use model.zoneout"
        )
