"""What of the gradient at the last time step reaches the first, by length, in three recurrent networks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from dlrun.glossary.figures import label, panels, styles
from dlrun.glossary.measure import Measured
from dlrun.layers.recurrent import CellName
from dlrun.layers.recurrent_stepped import SteppedRecurrent

LENGTHS, FEATURES, HIDDEN, BATCH, SEEDS = (5, 10, 20, 40, 80), 8, 32, 16, 3
NETWORKS: dict[str, tuple[CellName, bool, bool]] = {  # cell, layer norm, dlrun's start or PyTorch's
    "rnn": ("rnn", False, False),
    "rnn_orthogonal": ("rnn", False, True),
    "lstm": ("lstm", False, False),
    "lstm_forget": ("lstm", False, True),
    "lstm_norm": ("lstm", True, True),
}
SHOWN = {
    "rnn": "RNN, PyTorch's start",
    "rnn_orthogonal": "RNN, orthogonal",
    "lstm": "LSTM, PyTorch's start",
    "lstm_forget": "LSTM, forget bias 1",
    "lstm_norm": "LSTM, LayerNorm",
}


def network(name: str, seed: int) -> SteppedRecurrent:
    """One of the networks, in float64."""
    cell, norm, own = NETWORKS[name]
    torch.manual_seed(seed)
    return SteppedRecurrent(
        cell,
        FEATURES,
        HIDDEN,
        norm=norm,
        forget_bias=1.0 if own else None,
        recurrent_init="orthogonal" if own else "uniform",
    ).double()


def left(name: str, length: int, seed: int = 0) -> float:
    """‖∂L/∂x₁‖ / ‖∂L/∂x_T‖, L a random direction of the last outputs."""
    rnn = network(name, seed)
    inputs = torch.randn(BATCH, length, FEATURES, dtype=torch.float64).requires_grad_()
    outputs, _ = rnn(inputs)
    (outputs[:, -1] * torch.randn(BATCH, HIDDEN, dtype=torch.float64)).sum().backward()
    assert inputs.grad is not None
    return float(inputs.grad[:, 0].norm() / inputs.grad[:, -1].norm())


def operations(length: int) -> int:
    """Multiply-adds, twice, of a pass through an LSTM."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network("lstm_norm", 0)(torch.randn(BATCH, length, FEATURES, dtype=torch.float64))
    return int(counter.get_total_flops())


def power(x: Sequence[float], y: Sequence[float]) -> float:
    """The power that y grows by as x does."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def measure() -> Measured:
    """The shares by length, what a step keeps on average, and how operations grow."""
    figure, (axes,) = panels("What of the gradient arrives at the first time step", 1)
    line = styles(marker=True)
    numbers: dict[str, float] = {}
    for name in NETWORKS:
        shares = [float(np.exp(np.mean([np.log(left(name, n, seed)) for seed in range(SEEDS)]))) for n in LENGTHS]
        axes.semilogy(LENGTHS, shares, **next(line), label=SHOWN[name])
        numbers |= {f"{name}_left": shares[-1], f"{name}_keeps": (shares[-1] / shares[0]) ** (1 / (80 - 5))}
    label(axes, "sequence length T", "gradient norm, first step / last step", f"at the start, {HIDDEN} units, 3 seeds")
    numbers["orthogonal_gain"] = numbers["rnn_orthogonal_left"] / numbers["rnn_left"]
    numbers["forget_gain"] = numbers["lstm_forget_left"] / numbers["lstm_left"]
    numbers["norm_gain"] = numbers["lstm_norm_left"] / numbers["lstm_forget_left"]
    numbers["cost_power"] = power(LENGTHS, [operations(n) for n in LENGTHS])
    return Measured(numbers, figure)
