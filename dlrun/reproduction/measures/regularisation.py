"""What each regularisation does to the gap between training and validation, where few noisy examples are learnt."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from dlrun.glossary.figures import COLORS, label, panels, styles
from dlrun.glossary.measure import Measured
from dlrun.glossary.measures.common import Array, paired
from dlrun.reproduction.measures.common import curve, finals, gap, last_model
from dlrun.run import Run

SHOWN = {"none": "none", "l2": "L2", "dropout": "dropout", "batchnorm": "batch norm", "early": "early stopping"}


def best_gap(runs: Sequence[Run]) -> Array:
    """As `gap`, with the best weights, which are what early stopping keeps."""
    both = [[run.evaluate(split, "best")[f"{split}/accuracy"] for split in ("train", "val")] for run in runs]
    return np.array([100 * (train - val) for train, val in both])


def weight_norm(run: Run) -> float:
    """The norm of all weight matrices together, at the end."""
    with torch.no_grad():
        squares = [float(p.square().sum()) for p in last_model(run).parameters() if p.ndim > 1]
    return math.sqrt(sum(squares))


def measure(runs: Mapping[str, Sequence[Run]]) -> Measured:
    """Gaps, test losses and accuracies of five trainings, and what each technique changes, with t over seeds."""
    gaps = {name: best_gap(each) if name == "early" else gap(each) for name, each in runs.items()}
    loss = {name: 100 * finals(each, "test/loss") for name, each in runs.items()}
    accuracy = {name: 100 * finals(each) for name, each in runs.items()}
    numbers: dict[str, float] = {"seeds": float(len(gaps["none"]))}
    for name in runs:
        numbers |= {f"{name}_gap": float(gaps[name].mean()), f"{name}_test": float(accuracy[name].mean())}
        numbers[f"{name}_loss"] = float(loss[name].mean()) / 100
        if name != "none":
            change, t = paired(list(gaps[name]), list(gaps["none"]))
            numbers |= {f"{name}_change": change, f"{name}_t": t}
            change, t = paired(list(accuracy[name]), list(accuracy["none"]))
            numbers |= {f"{name}_gain": change, f"{name}_gain_t": t}
    norms = {name: float(np.mean([weight_norm(run) for run in runs[name]])) for name in ("none", "l2")}
    numbers["norm_ratio"] = norms["l2"] / norms["none"]
    epochs = [len(curve(run, "val/loss")) for run in runs["early"]]
    numbers["early_epochs"] = float(np.mean(epochs))
    numbers["none_rise"] = float(np.mean([curve(r, "val/loss")[-1] / curve(r, "val/loss").min() for r in runs["none"]]))
    figure, (losses, bars) = panels("Regularisation: 250 digits, a fifth with wrong labels", 2, width=5.0)
    line = styles()
    for name, each in runs.items():
        shortest = min(len(curve(run, "val/loss")) for run in each)
        mean = np.mean([curve(run, "val/loss")[:shortest] for run in each], axis=0)
        losses.plot(np.arange(1, shortest + 1), mean, **next(line), label=SHOWN[name])
    label(losses, "epoch", "validation loss", "mean over seeds")
    at = np.arange(len(runs))
    bars.bar(
        at, [g.mean() for g in gaps.values()], yerr=[g.std(ddof=1) for g in gaps.values()], color=COLORS[0], width=0.6
    )
    bars.set_xticks(at, [f"{SHOWN[name]}\ntest {accuracy[name].mean():.1f} %" for name in runs], fontsize=8)
    label(
        bars, "", "training - validation accuracy (points)", "gap at the end; early stopping: at its best", legend=False
    )
    return Measured(numbers, figure)
