"""The rate of the warm-up, step by step; and trainings with and without one, with small batches and large."""

from __future__ import annotations

from typing import Any

import numpy as np

from dlrun.glossary.figures import label, panels, styles
from dlrun.glossary.measure import Arms, Measured
from dlrun.glossary.measures.common import Words, paired
from dlrun.glossary.measures.early_stopping import curve
from dlrun.glossary.measures.schedules import LR, WARMUP, by_formula, trace, warmup_formula

ARMS = {
    "small": "batch 32, no warm-up",
    "small_warm": "batch 32, warm-up",
    "large": "batch 512, no warm-up",
    "large_warm": "batch 512, warm-up",
}


def measure(words: Words = WARMUP, advance_every: int = 1, runs: Arms | None = None) -> Measured:
    """Whether the rate follows the straight line; and the highest training loss of each arm, over seeds."""
    rates = trace(words, 200, advance_every)
    figure, axes = panels("Warm-up", 2 if runs else 1)
    line = styles()
    axes[0].plot(rates, **next(line), label="scheduler.warmup=100")
    axes[0].plot(by_formula(warmup_formula, 200), **next(line), label="η (s + 1) / (W + 1)")
    label(axes[0], "optimizer step", "learning rate")
    numbers = {
        "formula_error": float(np.abs(rates - by_formula(warmup_formula, 200)).max()),
        "first": 100 * float(rates[0]) / LR,
        "smallest_rise": float(np.diff(rates[:101]).min()),
    }
    if runs:
        numbers |= _trainings(runs, axes[1])
    return Measured(numbers, figure)


def _trainings(runs: Arms, axes: Any) -> dict[str, float]:
    line, worst, test = styles(), {}, {}
    for name, shown in ARMS.items():
        curves = [curve(run, "train/loss") for run in runs[name]]
        worst[name] = [float(values.max()) for values in curves]
        test[name] = [100 * run.metrics["test/accuracy"] for run in runs[name]]
        mean = np.mean(curves, axis=0)
        axes.semilogy(np.arange(1, len(mean) + 1), mean, **next(line), label=shown)
    label(axes, "epoch", f"training loss, mean of {len(runs['small'])}", "digits")
    small, small_t = paired(np.log(worst["small"]), np.log(worst["small_warm"]))
    large, large_t = paired(np.log(worst["large"]), np.log(worst["large_warm"]))
    gain, gain_t = paired(test["large_warm"], test["large"])
    small_gain, small_gain_t = paired(test["small_warm"], test["small"])
    return {
        "small_ratio": float(np.exp(small)),
        "small_t": small_t,
        "large_ratio": float(np.exp(large)),
        "large_t": large_t,
        "large_gain": gain,
        "large_gain_t": gain_t,
        "small_gain": small_gain,
        "small_gain_t": small_gain_t,
        "large_more": float(np.exp(large - small)),
    }
