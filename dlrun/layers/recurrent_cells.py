"""One time step of RNN, GRU and LSTM, written out, with layer norm where it is wanted.

The weights are torch.nn's, whose matrices hold the gates one below the other: LSTM input, forget, cell, output; GRU
reset, update, new.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlrun.layers.recurrent import CellName, State


class Cell(nn.Module):
    """A step in two halves: what the gates read of the inputs, of all time steps at once, and what they read of h.

    Args:
        hidden: H, units.
        norm: layer norm of either half before they are added (Ba et al. 2016, arXiv:1607.06450, eq. 20 to 27), the
            biases of the cell being those of the norms. The plain RNN, which the paper normalises after adding, is
            treated like the others, so that its inputs are still read at once.
    """

    groups: Sequence[int]  # gates that are normalised together

    def __init__(self, hidden: int, norm: bool = False) -> None:
        super().__init__()
        sizes = [gates * hidden for gates in self.groups]
        self.norm_inputs = GateNorm(sizes) if norm else None
        self.norm_hidden = GateNorm(sizes) if norm else None

    def read(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """(..., features) → (..., gates · H)."""
        return _gates(x, weight, bias, self.norm_inputs)

    def recall(self, h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """(B, H) → (B, gates · H)."""
        return _gates(h, weight, bias, self.norm_hidden)

    def advance(self, inputs: Tensor, hidden: Tensor, state: State) -> State:
        """The next state, of what `read` and `recall` give, (B, gates · H) each, and the state before, (B, H) each."""
        raise NotImplementedError


class RNNStep(Cell):
    """h' = tanh(x + h)."""

    groups = (1,)

    def advance(self, inputs: Tensor, hidden: Tensor, state: State) -> State:
        return (torch.tanh(inputs + hidden),)


class GRUStep(Cell):
    """h' = (1 - z) · n + z · h with n = tanh(x_n + r · h_n): torch's form, with the reset behind the matrix.

    Source: Cho et al. 2014 (arXiv:1406.1078); the place of the reset is that of its first version and of cuDNN.
    """

    groups = (2, 1)

    def advance(self, inputs: Tensor, hidden: Tensor, state: State) -> State:
        x_reset, x_update, x_new = inputs.chunk(3, 1)
        h_reset, h_update, h_new = hidden.chunk(3, 1)
        new = torch.tanh(x_new + torch.sigmoid(x_reset + h_reset) * h_new)
        return (new + torch.sigmoid(x_update + h_update) * (state[0] - new),)


class LSTMStep(Cell):
    """c' = f · c + i · g, h' = o · tanh(c').

    Source: Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000.
    """

    groups = (4,)

    def __init__(self, hidden: int, norm: bool = False) -> None:
        super().__init__(hidden, norm)
        self.norm_cell = nn.LayerNorm(hidden) if norm else nn.Identity()

    def advance(self, inputs: Tensor, hidden: Tensor, state: State) -> State:
        i, f, g, o = (inputs + hidden).chunk(4, 1)
        c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(self.norm_cell(c)), c


class GateNorm(nn.Module):
    """Layer norm of groups of gates that lie side by side, each over its own numbers, with a given bias.

    Inputs and outputs (..., sum(sizes)).
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.sizes = list(sizes)
        self.norms = nn.ModuleList(nn.LayerNorm(size, bias=False) for size in sizes)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        return (
            torch.cat([norm(part) for norm, part in zip(self.norms, x.split(self.sizes, -1), strict=True)], -1) + bias
        )


STEPS: dict[CellName, type[Cell]] = {"rnn": RNNStep, "gru": GRUStep, "lstm": LSTMStep}


def _gates(x: Tensor, weight: Tensor, bias: Tensor, norm: GateNorm | None) -> Tensor:
    if norm is None:
        return F.linear(x, weight, bias)
    normed: Tensor = norm(F.linear(x, weight), bias)
    return normed
