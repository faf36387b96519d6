"""Learning rates as dlrun's schedules give them, step by step, beside their formulas."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import lr_scheduler

from dlrun.glossary.figures import label, panels, styles
from dlrun.glossary.measure import Measured
from dlrun.glossary.measures.common import Array, Words, optimizer, schedule

LR = 0.1
BASE: Words = ("optimizer=momentum", f"optimizer.lr={LR}")
STEPS, PER_EPOCH = 600, 20  # optimizer steps in all, and in an epoch
COSINE: Words = ("scheduler=cosine", "scheduler.warmup=0", "scheduler.eta_min=1e-3")
STEP: Words = ("scheduler=step", "scheduler.step_size=10", "scheduler.gamma=0.1")
ONECYCLE: Words = ("scheduler=onecycle",)
WARMUP: Words = ("scheduler=constant", "scheduler.warmup=100")


def trace(words: Words, steps: int = STEPS, advance_every: int = 1, calls: int = 1) -> Array:
    """The learning rate of each step.

    Args:
        advance_every: call the schedule only so often, as a loop does that takes epochs for steps.
        calls: how often it is called then.
    """
    made = optimizer(BASE, nn.Linear(2, 1))
    plan = schedule([*BASE, *words], made, STEPS, PER_EPOCH)
    rates = []
    for step in range(1, steps + 1):
        rates.append(float(made.param_groups[0]["lr"]))
        for _ in range(calls if step % advance_every == 0 else 0):
            plan.step()
    return np.array(rates)


def by_formula(formula: Callable[[int], float], steps: int = STEPS) -> Array:
    return np.array([formula(step) for step in range(steps)])


def cosine_formula(step: int) -> float:
    """η_min + (η_max - η_min) (1 + cos(π t / T)) / 2."""
    return 1e-3 + (LR - 1e-3) * (1 + math.cos(math.pi * step / STEPS)) / 2


def one_cycle_formula(step: int) -> float:
    """Half a cosine from max/25 up to max in 30 % of the steps, another down to max / 25 / 10⁴."""
    top = 0.3 * STEPS - 1
    start, end = LR / 25, LR / 25 / 1e4
    if step <= top:
        return LR + (start - LR) * (1 + math.cos(math.pi * step / top)) / 2
    return end + (LR - end) * (1 + math.cos(math.pi * (step - top) / (STEPS - 1 - top))) / 2


def cosine(words: Words = COSINE, calls: int = 1) -> Measured:
    """The formula; that it falls, smoothly; and that it rises again after T."""
    rates, wanted = trace(words, calls=calls), by_formula(cosine_formula)
    bare = lr_scheduler.CosineAnnealingLR(torch.optim.SGD([torch.zeros(1)], lr=LR), T_max=STEPS)
    beyond = torch_trace(bare, 2 * STEPS)
    steep = trace(STEP)
    figure, (axes,) = panels("Cosine annealing, 600 steps")
    line = styles()
    for name, values in (("scheduler=cosine", rates), ("scheduler=step", steep)):
        axes.plot(values, **next(line), label=name)
    axes.plot(beyond, **next(line), label="torch's, beyond T")
    label(axes, "optimizer step", "learning rate")
    return Measured(
        {
            "formula_error": float(np.abs(rates - wanted).max()),
            "largest_rise": float(np.diff(rates).max()),
            "largest_fall": float(-np.diff(rates).min() / LR),
            "step_fall": float(-np.diff(steep).min() / LR),
            "beyond": float(beyond[-1] / LR),
        },
        figure,
    )


def step(words: Words = STEP, advance_every: int = PER_EPOCH) -> Measured:
    """The formula; and how soon it falls if torch's scheduler is called after every batch."""
    rates = trace(words)
    wanted = by_formula(lambda s: LR * 0.1 ** (s // PER_EPOCH // 10))
    first = {}
    figure, (axes,) = panels("StepLR: what N counts is calls of step()")
    line = styles()
    for name, every in (("epoch", advance_every), ("batch", 1)):
        bare = lr_scheduler.StepLR(torch.optim.SGD([torch.zeros(1)], lr=LR), step_size=10, gamma=0.1)
        values = torch_trace(bare, STEPS, every)
        first[name] = float(np.argmax(values < 0.5 * LR)) / PER_EPOCH
        axes.semilogy(
            np.arange(STEPS) / PER_EPOCH, np.maximum(values, 1e-9), **next(line), label=f"step() after each {name}"
        )
    axes.semilogy(np.arange(STEPS) / PER_EPOCH, rates, **next(line), label="scheduler=step")
    label(axes, "epoch (20 batches)", "learning rate")
    return Measured(
        {
            "formula_error": float(np.abs(rates - wanted).max()),
            "factor": float(rates[200] / rates[199]),
            "epoch_first": first["epoch"],
            "batch_first": first["batch"],
        },
        figure,
    )


def one_cycle(words: Words = ONECYCLE, advance_every: int = 1) -> Measured:
    """Both halves by the formula, the peak, the end; and what is left of it if it is stepped once an epoch."""
    rates = trace(words, advance_every=advance_every)
    per_epoch = trace(words, advance_every=PER_EPOCH)
    figure, (axes,) = panels("OneCycleLR, max_lr 0.1, 30 epochs of 20 batches")
    line = styles()
    for name, values in (("stepped after every batch", rates), ("stepped after every epoch", per_epoch)):
        axes.plot(values, **next(line), label=name)
    label(axes, "optimizer step", "learning rate")
    bare = lr_scheduler.OneCycleLR(torch.optim.SGD([torch.zeros(1)], lr=LR, momentum=0.9), max_lr=LR, total_steps=STEPS)
    return Measured(
        {
            "formula_error": float(np.abs(rates - by_formula(one_cycle_formula)).max()),
            "peak": float(rates.max()),
            "end": float(rates[-1]),
            "end_error": float(abs(rates[-1] - bare.optimizer.param_groups[0]["min_lr"])),
            "per_epoch_peak": float(per_epoch.max() / LR),
            "per_epoch_end": float(per_epoch[-1] / LR),
        },
        figure,
    )


def warmup_formula(step: int) -> float:
    """η · min((s + 1) / (W + 1), 1)."""
    return LR * min((step + 1) / 101, 1.0)


def kinds(words: Sequence[Words] = (STEP, COSINE, ONECYCLE)) -> Measured:
    """The four kinds: that their names are torch's, and that each changes the rate."""
    names = ("StepLR", "CosineAnnealing", "OneCycleLR", "ReduceOnPlateau")
    true_names = ("StepLR", "CosineAnnealingLR", "OneCycleLR", "ReduceLROnPlateau")
    figure, (axes,) = panels("Learning rate schedules, 30 epochs of 20 steps")
    line, changed = styles(), 0
    for chosen in words:
        rates = trace(chosen)
        changed += len(np.unique(rates)) > 1
        axes.plot(np.arange(STEPS) / PER_EPOCH, rates, **next(line), label=chosen[0])
    stalled = plateau_trace([1.0] * 30)[:30]
    changed += len(np.unique(stalled)) > 1
    axes.step(np.arange(30), stalled, where="post", **next(line), label="scheduler=plateau, a metric that stalls")
    label(axes, "epoch", "learning rate")
    return Measured(
        {
            "names_found": float(sum(hasattr(lr_scheduler, name) for name in names)),
            "true_names_found": float(sum(hasattr(lr_scheduler, name) for name in true_names)),
            "kinds_that_change": float(changed),
        },
        figure,
    )


def plateau_trace(metric: Sequence[float], words: Words = ("scheduler=plateau",)) -> Array:
    """The learning rate after each of the values of a metric that should fall."""
    made = optimizer(BASE, nn.Linear(2, 1))
    plan = schedule([*BASE, *words], made, len(metric), 1)
    rates = []
    for value in metric:
        plan.step()
        plan.on_metric(value)
        rates.append(float(made.param_groups[0]["lr"]))
    return np.array(rates)


def plateau(words: Words = ("scheduler=plateau", "scheduler.patience=5", "scheduler.factor=0.1")) -> Measured:
    """After how many evaluations without improvement the rate falls, by how much, and what step() says to no metric."""
    metric = [1.0, 0.8, 0.6, 0.5, *[0.5] * 16]
    rates = plateau_trace(metric, words)
    stalled = int(np.argmax(rates < LR)) - 3  # evaluations that did not improve, this one included
    improving = plateau_trace([1 / (n + 1) for n in range(20)], words)
    figure, (axes,) = panels("ReduceLROnPlateau, patience 5")
    line = styles(marker=True)
    axes.plot(np.arange(1, 21), metric, **next(line), label="metric")
    axes.step(np.arange(1, 21), rates / LR, where="mid", **next(line), label="learning rate / its start")
    axes.axvline(4, color="0.6", linewidth=0.8)
    axes.annotate("last improvement", (4.2, 0.95), fontsize=8, color="0.4")
    label(axes, "evaluation", "value")
    axes.set_xticks(range(0, 21, 2))
    return Measured(
        {
            "waited": float(stalled),
            "tolerated": float(stalled - 1),
            "factor": float(rates[stalled + 3] / LR),
            "improving_factor": float(improving[-1] / LR),
            "refuses_no_metric": float(refuses_no_metric()),
        },
        figure,
    )


def refuses_no_metric(make: Any = lr_scheduler.ReduceLROnPlateau) -> bool:
    """Whether step() without a metric is an error."""
    try:
        make(torch.optim.SGD([torch.zeros(1)], lr=LR)).step()
    except TypeError:
        return True
    return False


def torch_trace(bare: Any, steps: int, every: int = 1) -> Array:
    """The learning rates of torch's scheduler alone, called every so many steps."""
    rates = []
    for step in range(1, steps + 1):
        rates.append(float(bare.optimizer.param_groups[0]["lr"]))
        bare.optimizer.step()
        if step % every == 0:
            bare.step()
    return np.array(rates)
