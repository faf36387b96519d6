"""Activations in a deep MLP: their slopes, the gradients of the first layers, and what training makes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes

from dlrun.contracts import Activation
from dlrun.glossary.figures import label, panels, styles
from dlrun.glossary.measure import Measured
from dlrun.glossary.measures.depth import measured
from dlrun.layers.named import activation as named_activation
from dlrun.reproduction.measures.common import curve, difference, finals
from dlrun.run import Run

DEPTH = 20
SUITED: dict[Activation, str] = {"sigmoid": "xavier", "tanh": "xavier", "relu": "he", "gelu": "he"}
SHOWN = {"relu": "ReLU", "gelu": "GELU"}


def slope(name: Activation, spread: float) -> float:
    """Root mean square of φ' at Gaussian inputs of a standard deviation: what a layer leaves of a gradient's length."""
    x = (spread * torch.randn(100_000, generator=torch.Generator().manual_seed(0))).requires_grad_()
    named_activation(name)(x).sum().backward()
    assert x.grad is not None
    return float(x.grad.square().mean().sqrt())


def measure(runs: Mapping[str, Sequence[Run]]) -> Measured:
    """Slopes of four activations, gradients of a deep start, and accuracies of deep MLPs over seeds.

    Arms are NAME_default and NAME_suited, by the start, and what has a norm.
    """
    figure, (slopes, gradients, training) = panels("Activations in deep MLPs", 3, width=4.4, height=4.3)
    spreads, line = np.geomspace(0.1, 10, 13), styles(marker=True)
    numbers: dict[str, float] = {"seeds": float(len(runs["tanh_suited"]))}
    for name in SUITED:
        slopes.semilogx(spreads, [slope(name, s) for s in spreads], **next(line), label=SHOWN.get(name, name))
        numbers[f"{name}_saturated"] = slope(name, 5.0) / slope(name, 0.001)
    label(
        slopes, "standard deviation of the inputs", "root mean square of φ'", "large inputs saturate sigmoid and tanh"
    )
    return Measured(numbers | at_the_start(gradients) | trained(runs, training), figure)


def at_the_start(axes: Axes) -> dict[str, float]:
    """What of the last layer's gradient reaches the first, from either start, and how it compares; drawn."""
    numbers: dict[str, float] = {}
    line = styles()
    for name, suited in SUITED.items():
        style = next(line)
        for start, init in (("default", "default"), ("suited", suited)):
            found = measured((f"model.activation={name}", f"init={init}"), DEPTH)
            look = {**style, "linewidth": 0.8} if start == "default" else style
            shown = {"default": "PyTorch's", "xavier": "Xavier's", "he": "He's"}[init]
            share = found.gradients / found.gradients[-1]
            axes.semilogy(np.arange(1, DEPTH + 1), share, **look, label=f"{SHOWN.get(name, name)}, {shown}")
            numbers[f"{name}_{start}"] = found.spread
    for ours in SHOWN:
        for start in ("default", "suited"):
            for other in ("tanh", "sigmoid"):
                numbers[f"{ours}_to_{other}_{start}"] = numbers[f"{ours}_{start}"] / numbers[f"{other}_{start}"]
    label(axes, "layer (1 is next to the input)", "gradient norm / that of the last", f"{DEPTH} layers, at the start")
    return numbers


def trained(runs: Mapping[str, Sequence[Run]], axes: Axes) -> dict[str, float]:
    """Test accuracies of the arms (%), and how they differ seed by seed; drawn."""
    tests = {arm: 100 * finals(each) for arm, each in runs.items()}
    numbers = {f"{arm}_accuracy": float(each.mean()) for arm, each in tests.items()}
    for name in SHOWN:
        for start in ("default", "suited"):
            for other in ("tanh", "sigmoid"):
                ours, others = tests[f"{name}_{start}"], tests[f"{other}_{start}"]
                numbers |= difference(f"{name}_over_{other}_{start}", ours, others)
    numbers |= difference("batch_gain", tests["sigmoid_batch"], tests["sigmoid_default"])
    numbers |= difference("layer_gain", tests["relu_layer"], tests["relu_default"])
    line = styles()
    looks = {name: next(line) for name in (*SUITED, "batch", "layer")}
    for arm in runs:
        name, _, kind = arm.partition("_")
        look = {**looks[kind if kind in looks else name], **({"linewidth": 0.8} if kind == "default" else {})}
        accuracy = 100 * np.mean([curve(run, "val/accuracy") for run in runs[arm]], axis=0)
        axes.plot(np.arange(1, len(accuracy) + 1), accuracy, **look, label=arm.replace("_", ", "))
    label(axes, "epoch", "validation accuracy (%)", "digits, 10 layers of 64, mean over seeds", legend=False)
    axes.legend(frameon=False, fontsize=7, ncols=4, loc="upper center", bbox_to_anchor=(0.45, -0.14))  # below
    return numbers
