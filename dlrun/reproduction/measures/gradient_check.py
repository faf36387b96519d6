"""The slides' rules for checking gradients, each followed and each broken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dlrun.diagnostics.gradcheck import check_gradients, gradcheck
from dlrun.glossary.figures import label, panels, styles
from dlrun.glossary.measure import Measured
from dlrun.glossary.measures.common import config

MODELS = {
    "mlp": ("data=digits", "model=mlp", "model.norm=batch", "model.widths=[32,16]"),
    "cnn": ("data=digits", "model=cnn"),
    "lstm": ("data=sequence_mean", "model=lstm", "model.hidden=16"),
}


def worst(*words: str, **more: Any) -> float:
    """The largest relative error of a configuration's tensors."""
    return max(item.error for item in gradcheck(config(*words), **more))


def measure() -> Measured:
    """Models that pass; then ε too large and too small, float32, dropout on, and a backward pass that is wrong."""
    good = {name: worst(*words) for name, words in MODELS.items()}
    steps = 10.0 ** np.arange(-13, 0)
    double = np.array([small(float(e)) for e in steps])
    single = np.array([small(float(e), dtype=torch.float32) for e in steps])
    figure, (axes,) = panels("The error of (L(θ + ε) - L(θ - ε)) / 2ε", 1)
    line = styles(marker=True)
    axes.loglog(steps, np.maximum(double, 1e-13), **next(line), label="float64")
    axes.loglog(steps, np.maximum(single, 1e-13), **next(line), label="float32")
    axes.loglog(steps[8:], 0.05 * steps[8:] ** 2, color="#555555", linewidth=0.9, label="∝ ε²: the curve")
    axes.loglog(steps[:9], 1e-16 / steps[:9], color="#555555", linestyle=":", linewidth=0.9, label="∝ 1 / ε: rounding")
    label(axes, "ε", "largest relative error", "tanh MLP; too large an ε sees the curve, too small a one rounding")
    return Measured(
        {
            **{f"{name}_error": value for name, value in good.items()},
            "best": float(double.min()),
            "best_epsilon": float(steps[double.argmin()]),
            "large_epsilon": float(double[-1]),
            "small_epsilon": float(double[0]),
            "single_best": float(single.min()),
            "dropout": small(1e-5, dropout=0.5),
            "dropout_seeded": small(1e-5, dropout=0.5, seeded=True),
            "wrong": small(1e-5, activation=WrongTanh.apply),
        },
        figure,
    )


class WrongTanh(torch.autograd.Function):
    """tanh, whose gradient is taken to be 1 - y instead of 1 - y²: a slip that still trains."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.tanh()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        return gradient * (1 - y)


def small(
    epsilon: float,
    *,
    dtype: torch.dtype = torch.float64,
    dropout: float = 0.0,
    seeded: bool = False,
    activation: Callable[[Tensor], Tensor] = torch.tanh,
) -> float:
    """The largest error on a small MLP with a smooth activation."""
    torch.manual_seed(0)
    first, second = nn.Linear(6, 12), nn.Linear(12, 3)
    model = nn.ModuleList([first, second]).to(dtype)
    x, y = torch.randn(16, 6).to(dtype), torch.randint(3, (16,))

    def loss() -> Tensor:
        if seeded:
            torch.manual_seed(1)
        hidden = nn.functional.dropout(activation(first(x)), dropout)
        return nn.functional.cross_entropy(second(hidden), y)

    generator = torch.Generator().manual_seed(0)
    return max(item.error for item in check_gradients(model, loss, generator, 10, epsilon))
