"""When training stops early, what that saves, and what is lost by too little or too much patience."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from dlrun.engine.callbacks import StopEarly
from dlrun.engine.training import Training
from dlrun.glossary.figures import label, panels, styles
from dlrun.glossary.measure import Arms, Measured
from dlrun.glossary.measures.common import Array, paired_test

PATIENCES = range(1, 21)
SETTINGS = {"long": "AdamW, lr 1e-3, batch 64", "noisy": "momentum, lr 0.02, batch 16"}
Make = Callable[[int], StopEarly]


def stops_after(values: Sequence[float] | Array, patience: int, make: Make = StopEarly) -> int:
    """How many of the validations there are before `patience` stops training; all of them if it does not."""
    stopper = make(patience)
    training = SimpleNamespace(monitor="val/loss", higher_is_better=False, status="running")
    training.improves = lambda *given: Training.improves(cast(Training, training), *given)
    for count, value in enumerate(values, start=1):
        stopper.on_validate(cast(Training, training), {"val/loss": float(value)})
        if training.status == "early_stopped":
            return count
    return len(values)


def early_stopping(runs: Arms) -> Measured:
    """When the stopped runs stopped; how much sooner; and whether they test better than those that went on."""
    stopped, long = runs["stopped"], runs["long"]
    waits = [run.summary["epochs"] - run.summary["best"]["epoch"] for run in stopped]
    patience = stopped[0].config["trainer"]["early_stopping"]["patience"]
    epochs = [run.summary["epochs"] for run in stopped]
    whole = long[0].summary["epochs"]
    losses = paired_test([run.metrics["test/loss"] for run in long], [run.metrics["test/loss"] for run in stopped])
    accuracy = paired_test(
        [100 * run.metrics["test/accuracy"] for run in stopped], [100 * run.metrics["test/accuracy"] for run in long]
    )
    figure, (axes,) = panels("Early stopping: digits, 300 examples, 20 % wrong labels")
    line = styles()
    for name, shown in (("train/loss", "training"), ("val/loss", "validation")):
        curves = np.array([curve(run, name) for run in long])
        axes.plot(
            np.arange(1, curves.shape[1] + 1), curves.mean(0), **next(line), label=f"{shown}, mean of {len(long)} runs"
        )
    axes.axvline(float(np.mean(epochs)), color="0.4", linewidth=1, linestyle=":", label="stopped, on average")
    axes.set_yscale("log")
    label(axes, "epoch", "loss")
    return Measured(
        {
            "shortest_wait": min(waits) / patience,
            "longest_wait": max(waits) / patience,
            "loss_gain": losses.mean,
            "loss_p": losses.p,
            "accuracy_gain": accuracy.mean,
            "accuracy_p": accuracy.p,
            "epochs": float(np.mean(epochs)),
            "saved": 100 * (1 - float(np.mean(epochs)) / whole),
        },
        figure,
    )


def patience(runs: Arms, make: Make = StopEarly) -> Measured:
    """The unit of patience; and what 1 … 20 of it cost and find, on the curves of runs that went on to the end."""
    falling = [1.0, 0.9, 0.8, *[0.8] * 30]
    waited = stops_after(falling, 3, make) - 3
    every_other = runs["every_other"][0]
    epochs_waited = every_other.summary["epochs"] - every_other.summary["best"]["epoch"]
    configured = every_other.config["trainer"]["early_stopping"]["patience"]
    settings = {name: [curve(run, "val/loss") for run in runs[name]] for name in SETTINGS}
    figure, (loss, length) = panels("Patience from 1 to 20, on the same curves", 2)
    line, other = styles(marker=True), styles(marker=True)
    costs = {name: cost_of_patience(curves, make) for name, curves in settings.items()}
    for name, (regret, epochs) in costs.items():
        loss.plot(PATIENCES, list(regret.values()), **next(line), label=SETTINGS[name])
        length.plot(PATIENCES, list(epochs.values()), **next(other), label=SETTINGS[name])
    label(loss, "patience", "best validation loss found,\n% above the best of all epochs")
    label(length, "patience", "epochs trained")
    for axes in (loss, length):
        axes.axvspan(5, 10, color="0.85", zorder=0)
        axes.set_xticks([1, 5, 10, 15, 20])
    compared = (1, 2, 5, 10, 20)
    return Measured(
        {
            "waited": float(waited),
            "epochs_waited": epochs_waited / configured,
            **{f"regret_{p}": max(regret[p] for regret, _ in costs.values()) for p in compared},
            **{f"epochs_{p}": float(np.mean([epochs[p] for _, epochs in costs.values()])) for p in compared},
            "longer": float(np.mean([epochs[20] / epochs[10] for _, epochs in costs.values()])),
            "whole": float(len(settings["long"][0])),
        },
        figure,
    )


def cost_of_patience(curves: Sequence[Array], make: Make = StopEarly) -> tuple[dict[int, float], dict[int, float]]:
    """By patience, means over curves: how far the best value found is above the best of all, %, and epochs trained."""
    stops = {p: [stops_after(values, p, make) for values in curves] for p in PATIENCES}
    regret = {
        p: 100 * float(np.mean([v[:n].min() / v.min() - 1 for v, n in zip(curves, stops[p], strict=True)]))
        for p in PATIENCES
    }
    return regret, {p: float(np.mean(stops[p])) for p in PATIENCES}


def curve(run: Any, name: str) -> Array:
    """The values of one name over the epochs."""
    values = run.history[name]
    return np.asarray(values[~np.isnan(values)])
