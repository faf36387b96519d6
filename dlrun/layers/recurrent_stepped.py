"""Recurrent layers run step by step, for what torch.nn's own do not have: zoneout, layer norm, variational dropout."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlrun.layers.recurrent import CellName, Recurrent, RecurrentInit, State, detached
from dlrun.layers.recurrent_cells import STEPS, Cell
from dlrun.layers.sequence import TimeDropout


class SteppedRecurrent(Recurrent):
    """What `Recurrent` is, with the same parameters under the same names, and more options.

    Args:
        variational: `dropout` has one mask for all time steps, and h is dropped with the same probability, by one mask
            too, where the gates read it (Gal & Ghahramani 2016, arXiv:1512.05287, with one mask for all gates).
        zoneout: probability with which a unit keeps its h of the step before while training; evaluation takes the
            mean, p · h_before + (1 - p) · h (Krueger et al. 2016, arXiv:1606.01305).
        zoneout_cell: the same of an LSTM's c.
        norm: layer norm in the cells.
        The others are those of `Recurrent`.
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
        variational: bool = False,
        zoneout: float = 0.0,
        zoneout_cell: float = 0.0,
        norm: bool = False,
        forget_bias: float | None = 1.0,
        recurrent_init: RecurrentInit = "orthogonal",
        truncate: int | None = None,
    ) -> None:
        super().__init__(
            cell,
            features,
            hidden,
            layers,
            bidirectional=bidirectional,
            forget_bias=forget_bias,
            recurrent_init=recurrent_init,
            truncate=truncate,
        )
        self.scans = nn.ModuleList(
            Scan(
                STEPS[cell](hidden, norm),
                backward=bool(index % self.directions),
                recurrent_dropout=dropout if variational else 0.0,
                zoneout=(zoneout, zoneout_cell),
                truncate=truncate,
            )
            for index in range(layers * self.directions)
        )
        self.drop = TimeDropout(dropout) if variational else nn.Dropout(dropout)

    def forward(self, x: Tensor, state: State | None = None, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        if state is None:
            zero = x.new_zeros(len(x), len(self.scans), self.rnn.hidden_size)
            state = (zero, zero) if isinstance(self.rnn, nn.LSTM) else (zero,)
        # (T, B, 1): whether a sequence has not ended yet.
        alive = None if lengths is None else (torch.arange(x.shape[1], device=x.device)[:, None] < lengths)[:, :, None]
        finals = []
        for layer in range(self.rnn.num_layers):
            x = self.drop(x) if layer else x
            outputs = []
            for index in range(layer * self.directions, (layer + 1) * self.directions):
                before = tuple(part[:, index] for part in state)
                output, final = self.scans[index](x, before, self.rnn.all_weights[index], alive)
                outputs.append(output)
                finals.append(final)
            x = outputs[0] if len(outputs) == 1 else torch.cat(outputs, 2)
        return x, tuple(torch.stack(parts, 1) for parts in zip(*finals, strict=True))


class Scan(nn.Module):
    """One layer in one direction: (B, T, features) and the state before, (B, H) each → (B, T, H) and the state after.

    Args:
        backward: from the end to the beginning.
        recurrent_dropout: probability of dropping a number of h where the gates read it, the same at all time steps.
        zoneout: of h and of c.
        The others are those of `Recurrent`.
    """

    def __init__(
        self,
        cell: Cell,
        *,
        backward: bool,
        recurrent_dropout: float,
        zoneout: tuple[float, float],
        truncate: int | None,
    ) -> None:
        super().__init__()
        self.cell = cell
        self.backward = backward
        self.recurrent_dropout = recurrent_dropout
        self.zoneout = zoneout
        self.truncate = truncate

    def forward(self, x: Tensor, state: State, weights: Sequence[Tensor], alive: Tensor | None) -> tuple[Tensor, State]:
        """See the class.

        Args:
            weights: torch's weight_ih, weight_hh, bias_ih and bias_hh.
            alive: (T, B, 1), false where a sequence has ended and its state stays as it is; None: nowhere.
        """
        weight_x, weight_h, bias_x, bias_h = weights
        # Unbound, not indexed: the backward pass of an index fills a tensor as large as all time steps.
        gates = self.cell.read(x.transpose(0, 1), weight_x, bias_x).unbind()
        mask = F.dropout(torch.ones_like(state[0]), self.recurrent_dropout, self.training)
        times = range(x.shape[1])
        outputs: list[Tensor] = [state[0]] * len(times)
        for t in reversed(times) if self.backward else times:
            if self.truncate is not None and t % self.truncate == 0:
                state = detached(state)
            h = state[0] * mask if self.recurrent_dropout else state[0]
            new = self._zoned_out(self.cell.advance(gates[t], self.cell.recall(h, weight_h, bias_h), state), state)
            if alive is not None:
                new = tuple(torch.where(alive[t], n, o) for n, o in zip(new, state, strict=True))
            state = new
            outputs[t] = state[0]
        return torch.stack(outputs, 1), state

    def _zoned_out(self, new: State, old: State) -> State:
        return tuple(
            zoneout(n, o, p, self.training) if p else n for n, o, p in zip(new, old, self.zoneout, strict=False)
        )


def zoneout(new: Tensor, old: Tensor, p: float, training: bool) -> Tensor:
    """Each number of `old` with probability `p`, else of `new`; outside training the mean of that."""
    if training:
        return torch.where(torch.rand_like(new) < p, old, new)
    return p * old + (1 - p) * new
