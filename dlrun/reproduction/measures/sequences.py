"""What of the gradient reaches the first time step or layer, what helps, and how long the paths there are."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.utils.flop_counter import FlopCounterMode

from dlrun.glossary.figures import COLORS, label, panels, styles
from dlrun.glossary.measure import Measured
from dlrun.glossary.measures.depth import measured as in_depth
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
DEPTH = 50
DEEP: dict[str, tuple[str, ...]] = {  # a tanh MLP with PyTorch's start, and one thing changed
    "deep": ("model.activation=tanh", "init=default"),
    "relu": ("model.activation=relu", "init=default"),
    "gelu": ("model.activation=gelu", "init=default"),
    "relu_he": ("model.activation=relu", "init=he"),
    "gelu_he": ("model.activation=gelu", "init=he"),
    "start": ("model.activation=tanh", "init=xavier"),
    "batch": ("model.activation=tanh", "init=default", "model.norm=batch"),
    "layer": ("model.activation=tanh", "init=default", "model.norm=layer"),
    "skip": ("model.activation=tanh", "init=default", "model.residual=true"),
}
SHOWN_DEEP = {
    "deep": "tanh, PyTorch's start",
    "relu": "ReLU",
    "gelu": "GELU",
    "relu_he": "ReLU and He's start",
    "gelu_he": "GELU and He's start",
    "start": "Xavier's start",
    "batch": "batch norm",
    "layer": "layer norm",
    "skip": "skip connections",
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


def left(name: str, length: int, seed: int = 0, attention: bool = False) -> float:
    """‖∂L/∂x₁‖ / ‖∂L/∂x_T‖, L a random direction of the last outputs, or of the context that attention makes of all."""
    rnn = network(name, seed)
    inputs = torch.randn(BATCH, length, FEATURES, dtype=torch.float64).requires_grad_()
    outputs, _ = rnn(inputs)
    read = context(outputs) if attention else outputs[:, -1]
    (read * torch.randn(BATCH, HIDDEN, dtype=torch.float64)).sum().backward()
    assert inputs.grad is not None
    return float(inputs.grad[:, 0].norm() / inputs.grad[:, -1].norm())


def context(states: Tensor) -> Tensor:
    """Σ softmax(h_T · hᵢ) hᵢ: (B, T, H) to (B, H)."""
    weights = (states @ states[:, -1, :, None]).softmax(1)
    return (weights * states).sum(1)


def typical(name: str, length: int, attention: bool = False) -> float:
    """`left` over seeds: the geometric mean."""
    return float(np.exp(np.mean([np.log(left(name, length, seed, attention)) for seed in range(SEEDS)])))


def clipping(length: int = 80, limit: float = 1.0) -> dict[str, float]:
    """An RNN whose recurrent weights are four times PyTorch's: the gradient's norm before and after it is clipped."""
    rnn = network("rnn", 0)
    with torch.no_grad():
        rnn.rnn.all_weights[0][1].mul_(4)  # weight_hh
    outputs, _ = rnn(torch.randn(BATCH, length, FEATURES, dtype=torch.float64))
    (outputs[:, -1] * torch.randn(BATCH, HIDDEN, dtype=torch.float64)).sum().backward()
    before = nn.utils.clip_grad_norm_(rnn.parameters(), limit)
    after = nn.utils.get_total_norm([p.grad for p in rnn.parameters() if p.grad is not None])
    return {"exploded": float(before), "clipped": float(after)}


def reads(kind: str, length: int) -> tuple[Tensor, Tensor]:
    """A number that depends on a whole sequence, and the input of its first step: what autograd's graph is about."""
    torch.manual_seed(0)
    steps = [torch.randn(1, FEATURES, dtype=torch.float64).requires_grad_() for _ in range(length)]
    if kind == "self":
        x = torch.stack(steps, 1)
        layer = nn.MultiheadAttention(FEATURES, 2, batch_first=True).double()
        return layer(x, x, x)[0][:, -1].sum(), steps[0]
    cell = nn.LSTMCell(FEATURES, HIDDEN).double()
    state, states = None, []
    for step in steps:
        state = cell(step, state)
        states.append(state[0])
    return (context(torch.stack(states, 1)) if kind == "attention" else states[-1]).sum(), steps[0]


def paths(output: Tensor, leaf: Tensor) -> tuple[int, int]:
    """The fewest operations from the output back to a leaf, and the longest chain of operations in the whole graph."""
    row: list[Node] = [output.grad_fn] if output.grad_fn else []
    level, shortest = 0, -1
    while row:  # the first row that holds the leaf is its distance; the last row is as far as any chain goes
        if shortest < 0 and any(getattr(node, "variable", None) is leaf for node in row):
            shortest = level
        row = list({after: None for node in row for after, _ in node.next_functions if after})
        level += 1
    return shortest, level - 1


def operations(length: int) -> int:
    """Multiply-adds, twice, of a pass through an LSTM."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network("lstm_norm", 0)(torch.randn(BATCH, length, FEATURES, dtype=torch.float64))
    return int(counter.get_total_flops())


def power(x: Sequence[float], y: Sequence[float]) -> float:
    """The power that y grows by as x does."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def measure() -> Measured:
    """The shares by length and by depth, what each remedy leaves, lengths of paths, and how operations grow."""
    figure, (axes, deep, chains) = panels("What of the gradient arrives at the first time step or layer", 3, width=4.4)
    line = styles(marker=True)
    numbers: dict[str, float] = {}
    for name in NETWORKS:
        shares = [typical(name, length) for length in LENGTHS]
        axes.semilogy(LENGTHS, shares, **next(line), label=SHOWN[name])
        numbers |= {f"{name}_left": shares[-1], f"{name}_keeps": (shares[-1] / shares[0]) ** (1 / (80 - 5))}
    shares = [typical("lstm", length, attention=True) for length in LENGTHS]
    axes.semilogy(LENGTHS, shares, **next(line), label="LSTM, PyTorch's start, attention")
    numbers["attention_left"] = shares[-1]
    label(axes, "sequence length T", "gradient norm, first step / last step", f"at the start, {HIDDEN} units, 3 seeds")
    line = styles()
    for number, (name, words) in enumerate(DEEP.items()):
        found, style = in_depth(words, DEPTH), next(line)
        style |= {"marker": "x", "markevery": 6} if number >= len(COLORS) else {}  # colours come again
        deep.semilogy(np.arange(1, DEPTH + 1), found.gradients / found.gradients[-1], **style, label=SHOWN_DEEP[name])
        numbers[f"{name}_left"] = found.spread
    label(
        deep, "layer (1 is next to the input)", "gradient norm / that of the last", f"{DEPTH} layers, one thing changed"
    )
    numbers |= {
        name.replace("_left", "_decades"): math.log10(value) for name, value in numbers.items() if "_left" in name
    }
    line = styles(marker=True)
    for kind, shown in (("lstm", "LSTM"), ("attention", "LSTM with attention"), ("self", "self-attention")):
        both = np.array([paths(*reads(kind, length)) for length in LENGTHS])
        numbers |= {f"{kind}_path": float(both[-1, 0]), f"{kind}_chain": float(both[-1, 1])}
        path, chain = (both[-1] - both[0]) / (LENGTHS[-1] - LENGTHS[0])
        numbers |= {f"{kind}_path_grows": float(path), f"{kind}_chain_grows": float(chain)}
        style = next(line)
        chains.semilogy(LENGTHS, both[:, 1], **style, label=f"{shown}: longest chain")
        chains.semilogy(
            LENGTHS, both[:, 0], **{**style, "linewidth": 0.8, "fillstyle": "none"}, label=f"{shown}: shortest path"
        )
    label(chains, "sequence length T", "operations", "from the last output back to the first input")
    numbers |= clipping()
    numbers["cost_power"] = power(LENGTHS, [operations(n) for n in LENGTHS])
    return Measured(numbers, figure)
