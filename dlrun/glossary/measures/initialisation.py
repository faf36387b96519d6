"""He and Xavier: the variance of the weights, and what becomes of activations through 50 layers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dlrun import build
from dlrun.contracts import DataSpec, Kind, Task
from dlrun.glossary.figures import label, panels, styles
from dlrun.glossary.measure import Measured
from dlrun.glossary.measures.common import Array, Words, config
from dlrun.glossary.measures.depth import HE, XAVIER, measured

SHAPES = ((512, 512), (800, 200), (200, 800))  # inputs and outputs of layers; 160,000 weights or more
Fill = Callable[[Tensor], Any]


def weights(words: Words, inputs: int, outputs: int) -> Tensor:
    """The weight matrix of a hidden layer of dlrun's MLP with that init."""
    torch.manual_seed(0)
    spec = DataSpec("noise", Task.REGRESSION, Kind.VECTOR, (inputs,), num_outputs=1)
    model = build.build_model(config("model=mlp", f"model.widths=[{outputs}]", "model.norm=none", *words), spec)
    return next(m.weight for m in model.modules() if isinstance(m, nn.Linear)).detach()


def by_torch(fill: Fill, inputs: int, outputs: int) -> Tensor:
    """A matrix that one of torch.nn.init's functions fills."""
    torch.manual_seed(0)
    made = torch.empty(outputs, inputs)
    fill(made)
    return made


def he_normal(weight: Tensor) -> None:
    """As in the source's example."""
    nn.init.kaiming_normal_(weight, nonlinearity="relu")


def table(xavier: Words = XAVIER, he: Words = HE) -> Measured:
    """Variance of the weights over the table's formula, for square and oblong layers, of the worst of them."""
    formulas: dict[str, tuple[Words, Callable[[int, int], float]]] = {
        "xavier": (xavier, lambda i, o: 2 / (i + o)),
        "he": (he, lambda i, o: 2 / i),
    }
    ratios = {
        name: [float(weights(words, i, o).var()) / formula(i, o) for i, o in SHAPES]
        for name, (words, formula) in formulas.items()
    }
    figure, (axes,) = panels("Variance of the weights over the table's formula")
    line = styles(marker=True)
    for name, shown in (("xavier", "Xavier: 2 / (n_in + n_out)"), ("he", "He: 2 / n_in")):
        axes.plot(range(len(SHAPES)), ratios[name], **{**next(line), "linestyle": ""}, label=shown)
    axes.axhline(1, color="0.5", linewidth=0.8)
    axes.set_ylim(0.9, 1.1)
    axes.set_xticks(range(len(SHAPES)), [f"{i} → {o}" for i, o in SHAPES])
    axes.set_xlim(-0.5, len(SHAPES) - 0.5)
    label(axes, "inputs → outputs of the layer", "variance / formula")
    return Measured({f"{name}_ratio": max(values, key=lambda r: abs(r - 1)) for name, values in ratios.items()}, figure)


def he(fill: Fill = he_normal, words: Words = HE) -> Measured:
    """Which reading of N(0, √(2/n)) is PyTorch's; 50 ReLU layers; the half that ReLU takes away."""
    x = torch.randn(1_000_000, generator=torch.Generator().manual_seed(0))
    relu = ("model.activation=relu",)
    figure, (axes,) = panels("Activations through 50 ReLU layers, 128 wide")
    found = _layers(
        axes, {"He (√2/√n)": (*relu, *words), "Xavier": (*relu, *XAVIER), "PyTorch's": (*relu, "init=default")}
    )
    return Measured(
        {
            **readings(fill, 2 / SHAPES[0][0]),
            "layer_factor": _factor(found["He (√2/√n)"]),
            "xavier_factor": _factor(found["Xavier"]),
            "zeros": float((x.relu() == 0).float().mean()),
            "square_left": float(x.relu().square().mean() / x.square().mean()),
        },
        figure,
    )


def xavier(fill: Fill = nn.init.xavier_normal_, words: Words = XAVIER) -> Measured:
    """Which reading is PyTorch's; linear, tanh and sigmoid networks; layers whose two sides differ."""
    figure, (axes, gradients) = panels("Xavier through 50 layers, 128 wide", 2)
    names = {name: (f"model.activation={name}", *words) for name in ("identity", "tanh", "sigmoid")}
    found = _layers(axes, {"linear" if name == "identity" else name: chosen for name, chosen in names.items()})
    line, spreads = styles(), {}
    for name, chosen in names.items():
        both = measured(chosen)
        spreads[name] = both.spread
        g = both.gradients / both.gradients[-1]
        shown = "linear" if name == "identity" else name
        gradients.semilogy(np.arange(1, len(g) + 1), np.maximum(g, 1e-30), **next(line), label=shown)
    label(gradients, "layer (1 is next to the input)", "gradient norm / that of the last layer", "backwards")
    wide, tall = weights(words, 800, 200), weights(words, 200, 800)
    return Measured(
        {
            **readings(fill, 2 / sum(SHAPES[0])),
            "linear_factor": _factor(found["linear"]),
            "linear_spread": spreads["identity"],
            "tanh_spread": spreads["tanh"],
            "tanh_left": float(found["tanh"][-1] / found["tanh"][0]),
            "sigmoid_spread": spreads["sigmoid"],
            "square_kept": variance_kept(weights(words, 512, 512)),
            "narrowing_kept": variance_kept(wide),
            "narrowing_back": variance_kept(wide.T),
            "widening_kept": variance_kept(tall),
        },
        figure,
    )


def variance_kept(weight: Tensor) -> float:
    """Variance of W x over that of x, for Gaussian x."""
    x = torch.randn(4000, weight.shape[1], generator=torch.Generator().manual_seed(0))
    return float((x @ weight.T).var() / x.var())


def readings(fill: Fill, variance: float) -> dict[str, float]:
    """The weights' variance over √v, the formula read as N(mean, variance), and over v, read as N(mean, std)."""
    made = by_torch(fill, *SHAPES[0])
    return {"as_variance": float(made.var()) / math.sqrt(variance), "as_std": float(made.var()) / variance}


def _layers(axes: Any, arms: dict[str, Words]) -> dict[str, Array]:
    """The mean square of activations of each layer."""
    line, found = styles(), {}
    for name, words in arms.items():
        found[name] = measured(words).activations
        axes.semilogy(np.arange(1, len(found[name]) + 1), np.maximum(found[name], 1e-30), **next(line), label=name)
    label(axes, "layer", "mean square of the activations", "forwards")
    return found


def _factor(squares: Array) -> float:
    """By what the mean square is multiplied from layer to layer, on average."""
    return float((squares[-1] / squares[0]) ** (1 / (len(squares) - 1)))
