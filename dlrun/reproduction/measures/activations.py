"""Activations in a deep MLP: their slopes, the gradients of the first layers, and what training makes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from dlrun.contracts import Activation
from dlrun.glossary.figures import label, panels, styles
from dlrun.glossary.measure import Measured
from dlrun.glossary.measures.depth import measured
from dlrun.layers.named import activation as named_activation
from dlrun.reproduction.measures.common import curve, mean
from dlrun.run import Run

DEPTH = 20
STARTS: dict[Activation, str] = {"sigmoid": "xavier", "tanh": "xavier", "relu": "he", "gelu": "he"}
SHOWN = {"relu": "ReLU", "gelu": "GELU"}


def slope(name: Activation, spread: float) -> float:
    """Root mean square of φ' at Gaussian inputs of a standard deviation: what a layer leaves of a gradient's length."""
    x = (spread * torch.randn(100_000, generator=torch.Generator().manual_seed(0))).requires_grad_()
    named_activation(name)(x).sum().backward()
    assert x.grad is not None
    return float(x.grad.square().mean().sqrt())


def measure(runs: Mapping[str, Sequence[Run]]) -> Measured:
    """Slopes of four activations, gradients of a deep start, and accuracies of deep MLPs over seeds."""
    figure, (slopes, gradients, training) = panels("Activations in deep MLPs", 3, width=4.2)
    spreads, line = np.geomspace(0.1, 10, 13), styles(marker=True)
    numbers: dict[str, float] = {}
    for name in STARTS:
        slopes.semilogx(spreads, [slope(name, s) for s in spreads], **next(line), label=SHOWN.get(name, name))
        numbers |= {f"{name}_slope": slope(name, 1.0), f"{name}_saturated": slope(name, 5.0)}
    label(
        slopes, "standard deviation of the inputs", "root mean square of φ'", "large inputs saturate sigmoid and tanh"
    )
    line = styles()
    for name, init in STARTS.items():
        found = measured((f"model.activation={name}", f"init={init}"), DEPTH)
        shown = f"{SHOWN.get(name, name)}, {'He' if init == 'he' else 'Xavier'}"
        gradients.semilogy(np.arange(1, DEPTH + 1), found.gradients / found.gradients[-1], **next(line), label=shown)
        numbers[f"{name}_spread"] = found.spread
    label(
        gradients, "layer (1 is next to the input)", "gradient norm / that of the last", f"{DEPTH} layers, at the start"
    )
    line = styles()
    for arm, each in runs.items():
        accuracy = 100 * np.mean([curve(run, "val/accuracy") for run in each], axis=0)
        training.plot(np.arange(1, len(accuracy) + 1), accuracy, **next(line), label=arm.replace("_", " + "))
        numbers[f"{arm}_accuracy"] = mean(each)
    for arm in ("relu", "gelu"):
        numbers[f"{arm}_over_tanh"] = 100 * (numbers[f"{arm}_accuracy"] - numbers["tanh_accuracy"])
    label(training, "epoch", "validation accuracy (%)", "digits, 10 layers of 64, mean over seeds")
    return Measured(numbers, figure)
