"""Optimizers at equal budget: at one learning rate for all, and each with its own from a small grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dlrun.glossary.figures import label, panels, styles
from dlrun.glossary.measure import Measured
from dlrun.glossary.measures.common import Array, paired
from dlrun.reproduction.measures.common import curve, finals, last
from dlrun.run import Run

COMMON = 1e-3


def grids(runs: Mapping[str, Sequence[Run]]) -> dict[str, dict[float, Sequence[Run]]]:
    """The runs of arms named OPTIMIZER_LR, by optimizer and learning rate, in rising order."""
    found: dict[str, dict[float, Sequence[Run]]] = {}
    for arm, each in runs.items():
        name, _, lr = arm.rpartition("_")
        found.setdefault(name, {})[float(lr)] = each
    return {name: dict(sorted(grid.items())) for name, grid in found.items()}


def best_lr(grid: Mapping[float, Sequence[Run]]) -> float:
    """The learning rate with the highest mean validation accuracy at the end; the test set has no say."""
    return max(grid, key=lambda lr: float(last(grid[lr], "val/accuracy").mean()))


def lr_range(grid: Mapping[float, Sequence[Run]], below: float = 0.02) -> float:
    """How many powers of ten of learning rates come within `below` of the best mean validation accuracy."""
    means = {lr: float(last(each, "val/accuracy").mean()) for lr, each in grid.items()}
    good = [lr for lr, value in means.items() if value >= max(means.values()) - below]
    return float(np.log10(max(good) / min(good)))


def measure(runs: Mapping[str, Sequence[Run]]) -> Measured:
    """Test accuracies at the common and at each one's own learning rate, ranges that work, and speed."""
    found = grids(runs)
    figure, (by_lr, by_epoch) = panels("Optimizers at equal budget", 2, width=5.0)
    line = styles(marker=True)
    numbers: dict[str, float] = {}
    test: dict[str, Array] = {}
    for name, grid in found.items():
        style = next(line)
        means = [100 * float(last(each, "val/accuracy").mean()) for each in grid.values()]
        by_lr.semilogx(list(grid), means, **style, label=name)
        lr = best_lr(grid)
        mean = 100 * np.mean([curve(run, "val/accuracy") for run in grid[lr]], axis=0)
        by_epoch.plot(np.arange(1, len(mean) + 1), mean, **style, label=f"{name}, lr {lr:g}")
        test[name] = finals(grid[lr])
        numbers |= {
            f"{name}_lr": lr,
            f"{name}_range": lr_range(grid),
            f"{name}_first": float(np.mean([curve(run, "val/accuracy")[0] for run in grid[lr]])),
            f"{name}_own": float(test[name].mean()),
            f"{name}_common": float(finals(grid[COMMON]).mean()),
        }
    by_lr.axvline(COMMON, color="#555555", linewidth=0.9, linestyle=":")
    label(by_lr, "learning rate", "validation accuracy at the end (%)", "each one's grid; dotted: one rate for all")
    label(by_epoch, "epoch", "validation accuracy (%)", "each at its own best rate")
    common = [numbers[f"{name}_common"] for name in found]
    own = [numbers[f"{name}_own"] for name in found]
    numbers |= {"common_spread": 100 * (max(common) - min(common)), "own_spread": 100 * (max(own) - min(own))}
    numbers["spread_ratio"] = numbers["own_spread"] / numbers["common_spread"]
    gain, t = paired(list(100 * test["momentum"]), list(100 * test["adam"]))
    numbers |= {"momentum_gain": gain, "momentum_t": t, "seeds": float(len(test["adam"]))}
    gain, t = paired(list(100 * test["adamw"]), list(100 * test["adam_l2"]))
    return Measured(numbers | {"adamw_gain": gain, "adamw_t": t}, figure)
