"""The rate of the warm-up, step by step; and the first steps of trainings with and without one."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from dlrun import build
from dlrun.contracts import Splits
from dlrun.engine.loaders import Preparation
from dlrun.glossary.figures import label, panels, styles
from dlrun.glossary.measure import Measured
from dlrun.glossary.measures.common import Array, Words, config, optimizer, paired, schedule
from dlrun.glossary.measures.schedules import LR, WARMUP, by_formula, trace, warmup_formula

SEEDS, STEPS, WARM = 4, 120, 50
RATES = (0.1, 0.2)  # near the highest that this network bears
BATCHES = {"large": 512, "small": 32}


def measure(words: Words = WARMUP, advance_every: int = 1, warm: int = WARM) -> Measured:
    """Whether the rate follows the straight line; and what trainings at a high rate come to with it and without.

    Args:
        warm: steps of the warm-up in the trainings.
    """
    rates = trace(words, 200, advance_every)
    figure, (line_up, losses) = panels("Warm-up", 2)
    line = styles()
    line_up.plot(rates, **next(line), label="scheduler.warmup=100")
    line_up.plot(by_formula(warmup_formula, 200), **next(line), label="η (s + 1) / (W + 1)")
    label(line_up, "optimizer step", "learning rate")
    numbers = {
        "formula_error": float(np.abs(rates - by_formula(warmup_formula, 200)).max()),
        "first": 100 * float(rates[0]) / LR,
        "smallest_rise": float(np.diff(rates[:101]).min()),
    }
    splits = build.build_data(config("data=digits"))
    line = styles()
    for name, size in BATCHES.items():
        pairs = [(lr, seed) for lr in RATES for seed in range(SEEDS)]
        both = {w: np.array([first_steps(splits, size, lr, w, seed) for lr, seed in pairs]) for w in (0, warm)}
        ends = {w: np.log(values[:, -20:].mean(1)) for w, values in both.items()}
        gain, t = paired(ends[0], ends[warm])
        numbers |= {f"{name}_ratio": float(np.exp(-gain)), f"{name}_t": t, "pairs": float(len(pairs))}
        for w, values in both.items():
            shown = f"batch {size}, {f'warm-up {w}' if w else 'no warm-up'}"
            losses.semilogy(np.median(values, axis=0), **next(line), label=shown)
    numbers["large_over_small"] = numbers["large_ratio"] / numbers["small_ratio"]
    label(losses, "optimizer step", "training loss, median", "digits, 4 hidden layers, lr 0.1 and 0.2")
    return Measured(numbers, figure)


def first_steps(splits: Splits, size: int, lr: float, warm: int, seed: int) -> Array:
    """The losses of the first steps of a deep MLP on digits under momentum; those that are no number count as 1e3."""
    words = ("optimizer=momentum", f"optimizer.lr={lr}", "scheduler=constant", f"scheduler.warmup={warm}")
    torch.manual_seed(seed)
    chosen = config("data=digits", "model.widths=[64,64,64,64]", "model.norm=none")
    model = build.build_model(chosen, splits.spec)
    made = optimizer(words, model)
    plan = schedule(words, made, STEPS, STEPS)
    prepare, losses = Preparation(splits.spec, (), 0, torch.device("cpu")), []
    for _ in range(STEPS):
        batch = prepare(splits.train.take(torch.randint(len(splits.train), (size,))), 0)
        made.zero_grad()
        loss = nn.functional.cross_entropy(model(batch.inputs), batch.targets)
        loss.backward()
        made.step()
        plan.step()
        losses.append(min(loss.item(), 1e3) if loss.isfinite() else 1e3)
    return np.array(losses)
