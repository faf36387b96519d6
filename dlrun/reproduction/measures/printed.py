"""Numbers that a source prints, beside ours over seeds: could one more of our runs have given the printed one?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy.stats import t as student

from dlrun.errors import ConfigError
from dlrun.glossary.figures import label, panels, styles
from dlrun.glossary.measure import Measured
from dlrun.glossary.measures.common import Array
from dlrun.reproduction.entry import Printed
from dlrun.reproduction.measures.common import curve, epochs_of, last, last_model
from dlrun.run import Run

WEIGHTS = "weights/mean"


def probability(ours: Array, printed: float) -> float:
    """How likely one more run would be as far from the mean of ours as the printed value: two-sided.

    With n runs of mean m and standard deviation s, (y - m) / (s √(1 + 1/n)) of one more run y has Student's t
    distribution with n - 1 degrees of freedom, if runs are Gaussian.
    """
    count = len(ours)
    spread = float(ours.std(ddof=1)) * math.sqrt(1 + 1 / count)
    distance = abs(printed - float(ours.mean()))
    if spread == 0:
        return float(distance == 0)
    return float(2 * student.sf(distance / spread, count - 1))


def beside(runs: Mapping[str, Sequence[Run]], printed: Sequence[Printed]) -> dict[str, float]:
    """Mean, standard deviation and probability of every printed number whose arm was trained, as NAME_mean, …

    The probability of a loss is that of its logarithm, for losses are positive and span orders of magnitude.
    """
    numbers: dict[str, float] = {}
    for item in printed:
        if item.arm in runs:
            ours = values(runs[item.arm], item.metric)
            likely = probability(ours, item.value)
            if item.metric.endswith("/loss") and min(item.value, *ours) > 0:  # skewed where they are small
                likely = probability(np.log(ours), math.log(item.value))
            numbers |= {
                f"{item.name}_mean": float(ours.mean()),
                f"{item.name}_std": float(ours.std(ddof=1)),
                f"{item.name}_p": likely,
            }
    return numbers


def values(runs: Sequence[Run], metric: str) -> Array:
    """A number of each run at its end, with its last weights."""
    if metric == WEIGHTS:
        return np.array([mean_of_means(run) for run in runs])
    if metric.startswith("test/"):
        return np.array([run.evaluate("test", "last")[metric] for run in runs])
    if any(metric not in run.history for run in runs):
        raise ConfigError(f"printed: runs record no '{metric}', only {', '.join(runs[0].history)}.")
    return last(runs, metric)


def mean_of_means(run: Run) -> float:
    """The mean over parameter tensors of |mean of the tensor|, as the notebook takes it."""
    with torch.no_grad():
        return float(np.mean([abs(p.mean().item()) for p in last_model(run).parameters()]))


def measure(runs: Mapping[str, Sequence[Run]], printed: Sequence[Printed], full: bool) -> Measured:
    """Nothing but the printed numbers: all that a source needs whose claims are numbers it prints."""
    figure, (axes,) = panels("Printed, and here", 1, height=4.4)
    draw_losses(axes, runs, printed if full else ())
    return Measured(beside(runs, printed), figure)


def draw_losses(axes: Any, runs: Mapping[str, Sequence[Run]], printed: Sequence[Printed]) -> None:
    """A line for each arm, the range over seeds around it, a star at the end for a loss that is printed.

    Runs that diverged are left out, and so is an arm of which all did.
    """
    stars = {item.arm: item.value for item in printed if item.metric == "train/loss"}
    for (arm, each), style in zip(runs.items(), styles(), strict=False):
        draw_curve(axes, each, "train/loss", style, arm, stars.get(arm))
    axes.set_xscale("log")
    axes.set_yscale("log")
    lines = "lines: mean and range over seeds"
    label(axes, "epoch", "training loss", f"{lines}; stars: printed" if stars else lines)


def draw_curve(
    axes: Any, runs: Sequence[Run], metric: str, style: Mapping[str, Any], name: str, star: float | None = None
) -> None:
    """One metric over the epochs: the mean of the runs that came to their end, their range, and a star at the end."""
    completed = [run for run in runs if run.status == "completed"]
    if not completed:
        return
    curves = np.array([curve(run, metric) for run in completed])
    epochs = epochs_of(completed[0], metric)
    axes.plot(epochs, curves.mean(0), **style, label=name)
    axes.fill_between(epochs, curves.min(0), curves.max(0), color=style["color"], alpha=0.2, linewidth=0)
    if star is not None:
        axes.plot(epochs[-1], star, "*", color=style["color"], markersize=11, markeredgecolor="k")
