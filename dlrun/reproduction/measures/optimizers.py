"""Optimizers at equal budget: at one learning rate for all, and each with its own from a small grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import nn

from dlrun.glossary.figures import label, panels, styles
from dlrun.glossary.measure import Measured
from dlrun.glossary.measures.common import Array, optimizer
from dlrun.reproduction.measures.common import curve, difference, finals, last
from dlrun.run import Run

COMMON = 1e-3
LONG = "long_"  # arms that train on until the training set is fitted, OPTIMIZER_LR behind it


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
    """Test accuracies at the common and at each one's own learning rate, ranges that work, speed, and decoupling."""
    found = grids({arm: each for arm, each in runs.items() if not arm.startswith(LONG)})
    figure, (by_lr, by_epoch, fitted) = panels("Optimizers at equal budget", 3, width=4.6)
    line = styles(marker=True)
    numbers: dict[str, float] = {}
    test: dict[str, Array] = {}
    first: dict[str, Array] = {}
    for name, grid in found.items():
        style = next(line)
        means = [100 * float(last(each, "val/accuracy").mean()) for each in grid.values()]
        by_lr.semilogx(list(grid), means, **style, label=name)
        lr = best_lr(grid)
        mean = 100 * np.mean([curve(run, "val/accuracy") for run in grid[lr]], axis=0)
        by_epoch.plot(np.arange(1, len(mean) + 1), mean, **style, label=f"{name}, lr {lr:g}")
        test[name] = 100 * finals(grid[lr])
        first[name] = np.array([100 * curve(run, "val/accuracy")[0] for run in grid[lr]])
        numbers |= {
            f"{name}_lr": lr,
            f"{name}_range": lr_range(grid),
            f"{name}_first": float(first[name].mean()),
            f"{name}_own": float(test[name].mean()),
            f"{name}_common": 100 * float(finals(grid[COMMON]).mean()),
        }
    by_lr.axvline(COMMON, color="#555555", linewidth=0.9, linestyle=":")
    label(by_lr, "learning rate", "validation accuracy at the end (%)", "each one's grid; dotted: one rate for all")
    label(by_epoch, "epoch", "validation accuracy (%)", "each at its own best rate")
    common = [numbers[f"{name}_common"] for name in found]
    own = [numbers[f"{name}_own"] for name in found]
    numbers |= {"common_spread": max(common) - min(common), "own_spread": max(own) - min(own)}
    numbers["spread_ratio"] = numbers["own_spread"] / numbers["common_spread"]
    numbers |= difference("adam_over_momentum", first["adam"], first["momentum"])
    numbers |= difference("adam_over_sgd", first["adam"], first["sgd"])
    numbers |= difference("adamw_gain", test["adamw"], test["adam_l2"])
    numbers |= until_fitted(runs, fitted)
    return Measured(numbers | decoupling() | {"seeds": float(len(test["adam"]))}, figure)


def until_fitted(runs: Mapping[str, Sequence[Run]], axes: Axes) -> dict[str, float]:
    """Momentum's test accuracy over Adam's where both have fitted the training set, each at its own rate; drawn."""
    found = grids({arm.removeprefix(LONG): each for arm, each in runs.items() if arm.startswith(LONG)})
    numbers: dict[str, float] = {}
    test: dict[str, Array] = {}
    line = styles()
    for name, grid in found.items():
        lr, style = best_lr(grid), next(line)
        test[name] = 100 * finals(grid[lr])
        fit = 100 * np.mean([curve(run, "val/accuracy") for run in grid[lr]], axis=0)
        axes.plot(np.arange(1, len(fit) + 1), fit, **style, label=f"{name}, lr {lr:g}")
        numbers |= {f"{name}_fit": float(last(grid[lr], "train/loss").mean()), f"{name}_long": float(test[name].mean())}
    label(axes, "epoch", "validation accuracy (%)", "until the training set is fitted")
    axes.set_ylim(90, 100)
    return numbers | difference("momentum_gain", test["momentum"], test["adam"])


def decoupling(decay: float = 0.1, lr: float = 0.01) -> dict[str, float]:
    """What weight decay takes off a weight in a first step, over lr · decay · w: 1 if it is decoupled.

    Of gradients of 0.01, 1 and 100, AdamW's and Adam's with L2; the one furthest from 1.
    """
    numbers = {}
    for name in ("adamw", "adam"):
        found = []
        for size in (0.01, 1.0, 100.0):
            steps = []
            for used in (0.0, decay):
                layer = nn.Linear(1, 1, bias=False).double()
                nn.init.constant_(layer.weight, 2.0)
                made = optimizer((f"optimizer={name}", f"optimizer.lr={lr}", f"optimizer.weight_decay={used}"), layer)
                layer.weight.grad = torch.full_like(layer.weight, size)
                made.step()
                steps.append(float(layer.weight.detach()))
            found.append((steps[0] - steps[1]) / (lr * decay * 2.0))
        numbers[f"{name}_decays"] = max(found, key=lambda share: abs(share - 1))
    return numbers
