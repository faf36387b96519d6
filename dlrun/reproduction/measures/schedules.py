"""Schedules of the learning rate on one training: what is gained at the end, and what warm-up saves at the start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dlrun.glossary.figures import label, panels, styles
from dlrun.glossary.measure import Measured
from dlrun.glossary.measures.common import paired
from dlrun.reproduction.measures.common import at_validations, curve, finals, last
from dlrun.run import Run

SHOWN = {
    "constant": "constant",
    "cosine": "cosine",
    "warm": "warm-up + cosine",
    "step": "step",
    "onecycle": "one-cycle",
}


def measure(runs: Mapping[str, Sequence[Run]]) -> Measured:
    """Final losses and accuracies by schedule, and how high the loss rises at first where the rate is high."""
    numbers: dict[str, float] = {"seeds": float(len(runs["constant"]))}
    figure, (rates, losses, starts) = panels("Learning-rate schedules", 3, width=4.2)
    line = styles()
    for name, shown in SHOWN.items():
        each, style = runs[name], next(line)
        epochs = np.arange(1, len(curve(each[0], "val/loss")) + 1)
        rates.plot(epochs, at_validations(each[0], "lr"), **style, label=shown)
        losses.semilogy(epochs, np.mean([curve(run, "train/loss") for run in each], axis=0), **style, label=shown)
        numbers |= {f"{name}_loss": float(last(each, "train/loss").mean()), f"{name}_test": 100 * finals(each).mean()}
        if name != "constant":
            change, t = paired(list(last(each, "train/loss")), list(last(runs["constant"], "train/loss")))
            numbers |= {f"{name}_change": change, f"{name}_t": t}
    ranks = sorted(SHOWN, key=lambda name: -numbers[f"{name}_test"])
    numbers["warm_rank"] = 1.0 + ranks.index("warm")
    numbers["warm_behind"] = numbers[f"{ranks[0]}_test"] - numbers["warm_test"]
    label(rates, "epoch", "learning rate at its end", "momentum 0.9, digits")
    label(losses, "epoch", "training loss", "mean over seeds")
    line = styles()
    for name, shown in (("high", "no warm-up"), ("high_warm", "warm-up over 2 epochs")):
        first = np.array([curve(run, "train/loss")[:8] for run in runs[name]])
        starts.semilogy(np.arange(1, first.shape[1] + 1), first.mean(0), **next(line), label=shown)
        numbers |= {f"{name}_peak": float(first.max(1).mean()), f"{name}_end": 100 * float(finals(runs[name]).mean())}
    change, t = paired(list(100 * finals(runs["high_warm"])), list(100 * finals(runs["high"])))
    numbers |= {"high_change": change, "high_t": t}
    label(starts, "epoch", "training loss", "Adam at a rate of 0.03, 8 layers")
    return Measured(numbers, figure)
