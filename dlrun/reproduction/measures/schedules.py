"""Schedules of the learning rate: what several peaks come to at the end, and what warm-up saves at the start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch

from dlrun import build
from dlrun.contracts import Splits
from dlrun.glossary.figures import label, panels, styles
from dlrun.glossary.measure import Measured
from dlrun.glossary.measures.common import Array, config, optimizer, schedule
from dlrun.reproduction.measures.common import at_validations, difference, finals, last
from dlrun.reproduction.measures.optimizers import best_lr, grids
from dlrun.run import Run

SHOWN = {
    "constant": "constant",
    "cosine": "cosine",
    "warm": "warm-up + cosine",
    "step": "step",
    "onecycle": "one-cycle",
}
STARTS, START_EPOCHS, BATCH = 20, 2, 64
START = ("data=digits", "model.widths=[64,64,64,64,64,64,64,64]", "model.norm=none", "optimizer=adam")
START_RATE = 0.03


def measure(runs: Mapping[str, Sequence[Run]]) -> Measured:
    """Final losses and accuracies by schedule and peak, and the steps and losses of a start with and without warm-up.

    Arms are SCHEDULE_PEAK.
    """
    found = grids(runs)
    numbers: dict[str, float] = {"seeds": float(len(found["constant"][max(found["constant"])]))}
    figure, (rates, losses, tests, starts) = panels("Learning-rate schedules", 4, width=4.0)
    line = styles(marker=True)
    loss: dict[str, Array] = {}  # (peaks, seeds)
    accuracy: dict[str, Array] = {}
    own: dict[str, int] = {}  # the place of the peak that validation chooses
    for name, shown in SHOWN.items():
        grid, style = found[name], next(line)
        peaks = list(grid)
        loss[name] = np.array([last(each, "train/loss") for each in grid.values()])
        accuracy[name] = np.array([100 * finals(each) for each in grid.values()])
        own[name] = peaks.index(best_lr(grid))
        rate = at_validations(grid[peaks[0]][0], "lr") / peaks[0]
        rates.plot(np.arange(1, len(rate) + 1), rate, **{**style, "marker": ""}, label=shown)
        losses.loglog(peaks, loss[name].mean(1), **style, label=shown)
        tests.semilogx(peaks, accuracy[name].mean(1), **style, label=shown)
        numbers |= {
            f"{name}_peak": peaks[own[name]],
            f"{name}_loss": float(loss[name][own[name]].mean()),
            f"{name}_test": float(accuracy[name][own[name]].mean()),
            f"{name}_high_loss": float(loss[name][-1].mean()),
            f"{name}_high_test": float(accuracy[name][-1].mean()),
            f"{name}_low_loss": float(loss[name][0].mean()),
        }
    logs = {name: np.log(loss[name]) for name in ("cosine", "constant")}
    for place, cosine, constant in (("own", own["cosine"], own["constant"]), ("high", -1, -1), ("low", 0, 0)):
        numbers |= difference(f"cosine_{place}", logs["cosine"][cosine], logs["constant"][constant])
    best = max(SHOWN, key=lambda name: numbers[f"{name}_test"])
    numbers |= difference("warm_behind", accuracy[best][own[best]], accuracy["warm"][own["warm"]])
    numbers |= difference("warm_over_constant", accuracy["warm"].mean(0), accuracy["constant"].mean(0))
    label(rates, "epoch", "rate at its end / peak", "five schedules")
    for each in (losses, tests):
        each.set_xticks(list(found["constant"]), [f"{peak:g}" for peak in found["constant"]])
        each.minorticks_off()
    label(losses, "peak of the learning rate", "training loss at the end", "momentum 0.9, digits, mean over seeds")
    label(tests, "peak of the learning rate", "test accuracy (%)", "the same", legend=False)
    return Measured(numbers | beginnings(starts), figure)


def beginnings(axes: Any) -> dict[str, float]:
    """Steps and losses of the first two epochs of a deep MLP with Adam at a high rate, with and without warm-up."""
    numbers: dict[str, float] = {}
    highest: dict[str, Array] = {}
    line = styles()
    for name, warmup, shown in (("cold", "0", "no warm-up"), ("warmed", "2ep", "warm-up over 2 epochs")):
        both = [beginning(warmup, seed) for seed in range(STARTS)]
        loss, step = (np.array([each[i] for each in both]) for i in (0, 1))
        style = next(line)
        axes.semilogy(np.arange(1, loss.shape[1] + 1), loss.mean(0), **style, label=shown)
        axes.fill_between(
            np.arange(1, loss.shape[1] + 1), loss.min(0), loss.max(0), color=style["color"], alpha=0.15, linewidth=0
        )
        highest |= {f"{name}_peak": loss.max(1), f"{name}_step": step.max(1)}
        numbers |= {f"{name}_peak": float(loss.max(1).mean()), f"{name}_step": float(step.max(1).mean())}
    label(axes, "step", "loss of the batch", f"Adam at {START_RATE}: mean, range of {STARTS} seeds")
    numbers |= difference("peak_saved", np.log(highest["cold_peak"]), np.log(highest["warmed_peak"]))
    numbers |= difference("step_saved", np.log(highest["cold_step"]), np.log(highest["warmed_step"]))
    return numbers | {"starts": float(STARTS), "step_ratio": numbers["warmed_step"] / numbers["cold_step"]}


@cache
def data() -> Splits:
    """The digits, normalised; they are the same whatever the seed."""
    return build.build_data(config(*START))


def beginning(warmup: str, seed: int) -> tuple[list[float], list[float]]:
    """Of every step of the first epochs the loss before it, and how far it moved the weights over their norm."""
    words = (*START, f"optimizer.lr={START_RATE}", "scheduler=cosine", f"scheduler.warmup={warmup}")
    splits = data()
    inputs, targets = splits.train.tensors()
    per_epoch = len(inputs) // BATCH
    torch.manual_seed(seed)
    model = build.build_model(config(*words), splits.spec)
    made = optimizer(words, model)
    rates = schedule(words, made, 15 * per_epoch, per_epoch)
    losses, steps = [], []
    for _ in range(START_EPOCHS):
        order = torch.randperm(len(inputs))
        for at in range(per_epoch):
            chosen = order[at * BATCH : (at + 1) * BATCH]
            loss = torch.nn.functional.cross_entropy(model(inputs[chosen]), targets[chosen])
            made.zero_grad()
            loss.backward()
            before = torch.cat([p.detach().reshape(-1).clone() for p in model.parameters()])
            made.step()
            rates.step()
            after = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
            losses.append(float(loss.detach()))
            steps.append(float((after - before).norm() / before.norm()))
    return losses, steps
