"""An MLP on two moons: what the activation is for, and what capacity does where there are few noisy examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dlrun import build
from dlrun.glossary.figures import label, panels
from dlrun.glossary.measure import Measured
from dlrun.reproduction.measures.common import gap, mean
from dlrun.run import Run

SHOWN = {
    "linear": "one neuron: a straight line",
    "identity": "MLP without activation",
    "relu": "MLP with ReLU",
    "large": "large MLP, few noisy examples",
}


def measure(runs: Mapping[str, Sequence[Run]]) -> Measured:
    """Accuracies, how far the MLP without activation is from one linear map, and generalisation gaps."""
    gaps = {name: gap(runs[name]) for name in ("small", "large")}
    figure, axes = panels("Two moons: what each model decides", 4, width=3.1, height=3.4)
    for (name, title), each in zip(SHOWN.items(), axes, strict=True):
        boundary(each, runs[name][0], f"{title}\n{100 * mean(runs[name]):.1f} % test accuracy")
    axes[0].set_ylabel("second feature, normalised")
    return Measured(
        {
            "linear": mean(runs["linear"]),
            "identity": mean(runs["identity"]),
            "relu": mean(runs["relu"]),
            "collapse_error": max(distance_from_linear(run.model) for run in runs["identity"]),
            "relu_distance": min(distance_from_linear(run.model) for run in runs["relu"]),
            "small_gap": float(gaps["small"].mean()),
            "large_gap": float(gaps["large"].mean()),
            "least_widening": float((gaps["large"] - gaps["small"]).min()),
        },
        figure,
    )


def distance_from_linear(model: nn.Module, points: int = 500) -> float:
    """What the best linear map leaves of the outputs at random points, relative to their size."""
    inputs = torch.randn(points, 2, generator=torch.Generator().manual_seed(0))
    outputs = logits(model, inputs)
    design = np.column_stack([inputs.numpy(), np.ones(points)])
    fitted = design @ np.linalg.lstsq(design, outputs, rcond=None)[0]
    return float(np.abs(outputs - fitted).max() / np.abs(outputs).max())


def logits(model: nn.Module, inputs: Tensor) -> Any:
    """The outputs, without gradients, in float64 NumPy."""
    with torch.no_grad():
        return model.eval()(inputs).double().numpy()


def boundary(axes: Any, run: Run, title: str) -> None:
    """Draw what a run decides where, and its training examples, told apart by colour and marker."""
    inputs, targets = build.build_data(run.config).train.tensors()
    points, classes = inputs.numpy(), targets.numpy()
    low, high = points.min(0) - 0.4, points.max(0) + 0.4
    x, y = np.meshgrid(np.linspace(low[0], high[0], 160), np.linspace(low[1], high[1], 160))
    out = logits(run.model, torch.tensor(np.column_stack([x.ravel(), y.ravel()]), dtype=torch.float32))
    score = (out[:, -1] - out[:, 0] if out.shape[1] > 1 else out[:, 0]).reshape(x.shape)
    axes.contourf(x, y, score > 0, levels=[-0.5, 0.5, 1.5], colors=["#D9E8F3", "#F6DFCC"])
    axes.contour(x, y, score, levels=[0.0], colors="#000000", linewidths=1.2)
    for number, (color, marker) in enumerate((("#0072B2", "o"), ("#D55E00", "x"))):
        chosen = points[classes == number]
        axes.scatter(*chosen.T, s=9, color=color, marker=marker, linewidth=0.8, label=f"class {number}")
    label(axes, "first feature, normalised", "", title, legend=number == 1 and "straight" in title)
