"""Recurrent layers by torch.nn's own implementation, with the initialisation and truncation that it lacks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

CellName = Literal["rnn", "gru", "lstm"]
RecurrentInit = Literal["orthogonal", "uniform"]
State = tuple[Tensor, ...]  # h, and for an LSTM c; each (B, layers · directions, hidden)

MODULES: dict[CellName, Callable[..., nn.RNNBase]] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


class Recurrent(nn.Module):
    """Layers of RNN, GRU or LSTM, in one or both directions.

    Inputs (B, T, features) → outputs (B, T, directions · hidden) of the last layer and the state after the last step.
    States have the batch first, unlike torch's, so that they are cut and selected like everything else of a batch.

    One module of torch's holds all layers, `rnn`. With dropout between them it holds the first, and each of the others
    has its own, in `above`: on a GPU, torch's own dropout draws from a state that is no part of the generator's, so
    that a resumed run would draw other masks (https://github.com/pytorch/pytorch/issues/104697).

    Args:
        cell: rnn (with tanh), gru or lstm.
        features: numbers at each time step.
        hidden: units of each layer and direction.
        dropout: probability of zeroing an output of a layer before the next one reads it.
        forget_bias: what the forget gate of an LSTM starts with (Jozefowicz et al. 2015); None leaves PyTorch's.
        recurrent_init: orthogonal: the matrix of each gate, from state to state, keeps lengths at the start
            (arXiv:1312.6120); uniform: PyTorch's.
        truncate: gradients flow back to the last multiple of so many time steps and no further; None: to the first.
    """

    def __init__(
        self,
        cell: CellName,
        features: int,
        hidden: int,
        layers: int = 1,
        *,
        bidirectional: bool = False,
        dropout: float = 0.0,
        forget_bias: float | None = 1.0,
        recurrent_init: RecurrentInit = "orthogonal",
        truncate: int | None = None,
    ) -> None:
        super().__init__()
        self.directions = 2 if bidirectional else 1
        self.truncate = truncate
        self.drop: nn.Module = nn.Dropout(dropout)
        apart = layers - 1 if dropout else 0
        widths = [features, *[self.directions * hidden] * apart]
        self.rnn, *above = (
            MODULES[cell](width, hidden, layers - apart, batch_first=True, bidirectional=bidirectional)
            for width in widths
        )
        self.above = nn.ModuleList(above)
        for module in (self.rnn, *above):
            initialise(module, forget_bias, recurrent_init)

    def forward(self, x: Tensor, state: State | None = None, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """Outputs and last state of `x`.

        Args:
            state: before the first step; None is zero.
            lengths: (B,), where each sequence ends: the state is that of its own last step, and the direction from end
                to beginning starts there. Reading them waits for the device; one direction alone can do without where
                only outputs are wanted, and those behind the end mean nothing.
        """
        if self.truncate is None or x.shape[1] <= self.truncate:
            return self._run(x, state, lengths)
        assert lengths is None
        outputs = []
        for part in x.split(self.truncate, dim=1):
            output, state = self._run(part, state and detached(state), None)
            outputs.append(output)
        assert state is not None
        return torch.cat(outputs, 1), state

    def _run(self, x: Tensor, state: State | None, lengths: Tensor | None) -> tuple[Tensor, State]:
        if x.device.type == "cpu":
            x = x.to(next(self.rnn.parameters()).dtype)  # what autocast left in bfloat16
        before = None if state is None else tuple(part.transpose(0, 1).contiguous() for part in state)
        after = []
        with _full_precision(x):
            outputs: Any = (
                x if lengths is None else pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
            )
            for layer, module in enumerate((self.rnn, *self.above)):
                given = before
                if self.above:
                    outputs = self._dropped(outputs) if layer else outputs
                    rows = slice(layer * self.directions, (layer + 1) * self.directions)
                    given = before and tuple(part[rows] for part in before)
                outputs, last = module(outputs, given[0] if given and len(given) == 1 else given)
                after.append(last if isinstance(last, tuple) else (last,))
            if lengths is not None:
                outputs, _ = pad_packed_sequence(outputs, batch_first=True, total_length=x.shape[1])
        final = after[0] if len(after) == 1 else tuple(torch.cat(parts) for parts in zip(*after, strict=True))
        return outputs, tuple(part.transpose(0, 1) for part in final)

    def _dropped(self, x: Any) -> Any:
        return x._replace(data=self.drop(x.data)) if isinstance(x, PackedSequence) else self.drop(x)


def _full_precision(x: Tensor) -> AbstractContextManager[object]:
    """No autocast on the CPU, where torch's LSTM in bfloat16 fails on most processors."""
    return torch.autocast("cpu", enabled=False) if x.device.type == "cpu" else nullcontext()


def detached(state: State) -> State:
    """The same numbers; gradients do not flow through them."""
    return tuple(part.detach() for part in state)


@torch.no_grad()
def initialise(rnn: nn.RNNBase, forget_bias: float | None, recurrent_init: RecurrentInit) -> None:
    """Set the recurrent matrices and forget-gate biases of a torch module as `Recurrent` says."""
    for name, parameter in rnn.named_parameters():
        if recurrent_init == "orthogonal" and name.startswith("weight_hh"):
            for gate in parameter.split(rnn.hidden_size):
                nn.init.orthogonal_(gate)
        if forget_bias is not None and isinstance(rnn, nn.LSTM) and name.startswith("bias"):
            # Gates lie in the order input, forget, cell, output; the two biases are added.
            forget = parameter[rnn.hidden_size : 2 * rnn.hidden_size]
            forget.fill_(forget_bias if name.startswith("bias_ih") else 0.0)
