"""What the learning rate does: the size of a step, when descent diverges, how slow a small one is and where it ends."""

from __future__ import annotations

from typing import Any

import numpy as np

from dlrun.glossary.figures import label, panels, styles
from dlrun.glossary.measure import Arms, Measured
from dlrun.glossary.measures.common import Array, Words, path, slope
from dlrun.glossary.measures.quadratic import descend

SGD: Words = ("optimizer=sgd",)
RATES = np.array([1e-4, 1e-3, 1e-2, 1e-1])
ARMS = {"low": "too low", "good": "good", "high": "too high"}


def measure(words: Words = SGD, curvature: float = 4.0, runs: Arms | None = None) -> Measured:
    """Steps over lr; the rate from which a parabola diverges; three trainings; valleys that noise leaves or not.

    Args:
        curvature: of the parabola; what is reported is the critical rate times this.
    """
    sizes = [float(np.linalg.norm(np.diff(path([*words, f"optimizer.lr={lr}"], steps=1)[0], axis=0))) for lr in RATES]
    below, above = (descend(np.array([curvature]), r / curvature, 0.0, 40)[:, 0] for r in (1.9, 2.1))
    numbers = {
        "step_power": slope(RATES, sizes),
        "critical": critical_rate(curvature) * curvature,
        "reversals": float((np.diff(np.sign(above)) != 0).mean()),
        "grown": float(abs(above[-1])),
        "low_escapes": 100 * escapes(0.001),
        "good_escapes": 100 * escapes(0.03),
    }
    figure, axes = panels("Learning rate: too low, good, too high", 2 if runs else 1)
    line = styles()
    for name, points in (("lr = 1.9 / curvature", below), ("lr = 2.1 / curvature", above)):
        axes[0].plot(points, **next(line), label=name)
    label(axes[0], "step", "position", "gradient descent on a parabola")
    if runs:
        numbers |= _trainings(runs, axes[1])
    return Measured(numbers, figure)


def critical_rate(curvature: float) -> float:
    """The learning rate from which descent on c w² / 2 diverges, by bisection."""
    low, high = 0.0, 10.0 / curvature
    for _ in range(25):
        middle = (low + high) / 2
        grew = bool(np.abs(descend(np.array([curvature]), middle, 0.0, 1000)[-1]).max() > 1)
        low, high = (low, middle) if grew else (middle, high)
    return high


def escapes(lr: float, starts: int = 400, noise: float = 6.0) -> float:
    """Share of starts from which noisy descent on x² / 4 - cos 3x, 2000 steps, ends in the lowest of its valleys."""
    random = np.random.default_rng(0)
    x = np.linspace(-6, 6, starts)
    for _ in range(2000):
        x = x - lr * (_slope_of_valleys(x) + noise * random.standard_normal(starts))
    for _ in range(2000):  # to the bottom of the valley it is in
        x = x - 0.01 * _slope_of_valleys(x)
    return float((np.abs(x) < 0.5).mean())


def _slope_of_valleys(x: Array) -> Array:
    return np.asarray(x / 2 + 3 * np.sin(3 * x))


def _trainings(runs: Arms, axes: Any) -> dict[str, float]:
    """The training loss of each arm, epoch by epoch, mean over seeds."""
    line, ends = styles(), {}
    for name, shown in ARMS.items():
        losses = [run.history["train/loss"][~np.isnan(run.history["train/loss"])] for run in runs[name]]
        shortest = min(map(len, losses))
        mean = np.mean([loss[:shortest] for loss in losses], axis=0)
        ends[name] = float(mean[-1])
        words = next(
            word for word in runs[name][0].path.joinpath(".hydra/overrides.yaml").read_text().split() if "lr=" in word
        )
        axes.semilogy(np.arange(1, shortest + 1), mean, **next(line), label=f"{shown}: {words.rpartition('=')[2]}")
    label(axes, "epoch", "training loss", "digits, an MLP under SGD")
    return {
        "low_loss": ends["low"],
        "good_loss": ends["good"],
        "high_loss": ends["high"],
        "low_ratio": ends["low"] / ends["good"],
        "high_ratio": ends["high"] / ends["good"],
    }
