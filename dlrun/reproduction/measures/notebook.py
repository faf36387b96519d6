"""A course notebook on optimizers: its printed numbers beside ours, what its code does, and a fair version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import nn
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader

from dlrun.glossary.figures import label, panels, styles
from dlrun.glossary.measure import Measured
from dlrun.glossary.measures.common import Array
from dlrun.reproduction.entry import Printed
from dlrun.reproduction.measures.common import curve, difference, last, last_model
from dlrun.reproduction.measures.optimizers import best_lr, grids
from dlrun.reproduction.measures.printed import beside, draw_curve, draw_losses, values
from dlrun.run import Run

EXAMPLES, EPOCHS = 60_000, 200
FAIR, SOUND, LONG = "fair_", "sound_", "long_"


def measure(runs: Mapping[str, Sequence[Run]], printed: Sequence[Printed], full: bool) -> Measured:
    """The printed numbers, the order of the optimizers, and what the notebook's code does."""
    plain = {arm: each for arm, each in runs.items() if not arm.startswith((FAIR, SOUND))}
    fair = grids({arm.removeprefix(FAIR): each for arm, each in runs.items() if arm.startswith(FAIR)})
    numbers = {**beside(plain, printed), **code(), "seeds": float(len(runs["sgd"]))}
    numbers["step_lr_diverged"] = float(sum(run.status == "diverged" for run in runs["step_lr"]))
    losses = {arm: last(each, "train/loss") for arm, each in plain.items()}
    numbers |= {
        "sgd_fall": float((np.array([curve(r, "train/loss")[0] for r in runs["sgd"]]) - losses["sgd"]).mean()),
        "least_gain": float(
            np.minimum(losses["sgd"] - losses["momentum_09"], losses["momentum_09"] - losses["momentum_099"]).min()
        ),
        "seconds_200": float(np.mean([EPOCHS * r.summary["seconds"] / r.summary["epochs"] for r in runs["sgd"]])),
    }
    figure, (first, *others) = panels(
        "Optimizers on MNIST: the notebook's runs", 1 + bool(fair) + ("long_decay" in runs), width=5.4, height=4.4
    )
    short = {arm: each for arm, each in plain.items() if not arm.startswith(LONG)}
    draw_losses(first, short, printed if full else ())
    if "long_decay" in runs:
        numbers |= long_runs(runs)
        draw_long(others.pop(0), runs, printed if full else ())
    if fair:
        numbers |= fair_numbers(fair)
        for (name, grid), style in zip(fair.items(), styles(marker=True), strict=False):
            means = [100 * float(last(each, "val/accuracy").mean()) for each in grid.values()]
            others[0].semilogx(list(grid), means, **style, label=name)
        label(others[0], "learning rate", "validation accuracy (%)", "each with its own, 10 epochs")
    for arm in [arm for arm in runs if arm.startswith(SOUND)]:
        numbers[f"{arm}_test"] = float(values(runs[arm], "test/accuracy").mean())
    return Measured(numbers, figure)


def code() -> dict[str, float]:
    """What three lines of the notebook's code do, done as they stand there."""
    batch_size = 4096
    loader: DataLoader[int] = DataLoader(range(EXAMPLES), batch_size=batch_size)  # type: ignore[arg-type]
    batch_size = 1024
    weights = torch.tensor([1.0, -1.0])
    return {
        "steps_per_epoch": float(len(loader)),
        "steps_wanted": float(-(-EXAMPLES // batch_size)),
        "lr_stepped": final_lr(every=5),
        "lr_wanted": final_lr(every=1),
        "mean_of_signs": float(torch.tensor([weights.mean()]).abs().mean()),
    }


def final_lr(every: int) -> float:
    """The rate of the last of 200 epochs with StepLR(step_size=100, gamma=0.9), stepped each so many epochs."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = StepLR(optimizer, step_size=100, gamma=0.9)
    used = 0.0
    for epoch in range(EPOCHS):
        used = float(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if epoch % every == 0:
            scheduler.step()
    return used


def long_runs(runs: Mapping[str, Sequence[Run]]) -> dict[str, float]:
    """What weight decay does to the weights' size, to their signed mean, and to how far validation is from training."""
    size = {arm: np.array([mean_size(run) for run in runs[arm]]) for arm in ("long_plain", "long_decay")}
    gaps = {arm: last(runs[arm], "val/loss") - last(runs[arm], "train/loss") for arm in ("long_plain", "long_decay")}
    return {
        "size_ratio": float((size["long_decay"] / size["long_plain"]).mean()),
        "plain_gap": float(gaps["long_plain"].mean()),
        "decay_gap": float(gaps["long_decay"].mean()),
        **difference("size_change", size["long_decay"], size["long_plain"]),
        **difference("gap_change", gaps["long_decay"], gaps["long_plain"]),
    }


def draw_long(axes: Axes, runs: Mapping[str, Sequence[Run]], printed: Sequence[Printed]) -> None:
    """Training and validation loss with and without weight decay, and the losses that are printed."""
    stars = {item.arm: item.value for item in printed if item.metric == "train/loss"}
    for arm, style in zip(("long_plain", "long_decay"), styles(), strict=False):
        name = "weight decay 1e-3" if arm == "long_decay" else "no weight decay"
        draw_curve(axes, runs[arm], "train/loss", style | {"linestyle": "-"}, f"{name}, training", stars.get(arm))
        draw_curve(axes, runs[arm], "val/loss", style | {"linestyle": "--"}, f"{name}, validation")
    axes.set_yscale("log")
    label(axes, "epoch", "loss", "4000 epochs; stars: printed" if stars else "the long runs")


def mean_size(run: Run) -> float:
    """The mean of |w| over all weights: what the notebook's sentence is about."""
    with torch.no_grad():
        return float(torch.cat([p.abs().reshape(-1) for p in last_model(run).parameters()]).mean())


def fair_numbers(fair: Mapping[str, Mapping[float, Sequence[Run]]]) -> dict[str, float]:
    """Each optimizer's best learning rate, chosen on validation, the test accuracy there, and what it gains on SGD."""
    numbers: dict[str, float] = {}
    tests: dict[str, Array] = {}
    for name, grid in fair.items():
        lr = best_lr(grid)
        tests[name] = values(grid[lr], "test/accuracy")
        numbers |= {f"fair_{name}_lr": lr, f"fair_{name}_test": float(tests[name].mean())}
    for name in ("momentum", "rmsprop", "adam"):
        numbers |= difference(f"fair_{name}_gain", 100 * tests[name], 100 * tests["sgd"])
    means = [float(each.mean()) for each in tests.values()]
    return numbers | {"fair_spread": 100 * (max(means) - min(means))}
