"""The rate of the warm-up, step by step; and the first steps of trainings with and without one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dlrun import build
from dlrun.contracts import Splits
from dlrun.engine.loaders import Preparation
from dlrun.glossary.figures import label, panels, styles
from dlrun.glossary.measure import Measured
from dlrun.glossary.measures.common import Array, Words, config, optimizer, paired_test, schedule
from dlrun.glossary.measures.schedules import LR, WARMUP, by_formula, trace, warmup_formula

SEEDS, STEPS, WARM = 5, 100, 50
RATES = (0.005, 0.01, 0.02)  # for 32 examples; the rate is proportional to the batch
BATCHES = {"small": 32, "large": 512}
MARGIN = 0.1  # of the logarithm of the highest loss; what changes it by less is no help and no harm
DEEP_RATE, DEEP_STEPS, DEEP_SEEDS = 0.01, 120, range(100, 105)  # of the transformer; a pilot had seeds 0 to 2
Losses = dict[tuple[str, float, int], Array]  # by batch, rate and warm-up: (seeds, steps)


def measure(words: Words = WARMUP, advance_every: int = 1, warm: int = WARM) -> Measured:
    """Whether the rate follows the straight line; how high the loss rises in trainings with it and without.

    Args:
        warm: steps of the warm-up in the trainings.
    """
    rates = trace(words, 200, advance_every)
    figure, (line_up, losses, peaks) = panels("Warm-up", 3, width=3.8)
    line = styles()
    line_up.plot(rates, **next(line), label="scheduler.warmup=100")
    line_up.plot(by_formula(warmup_formula, 200), **next(line), label="η (s + 1) / (W + 1)")
    label(line_up, "optimizer step", "learning rate")
    found = trainings(warm) | transformers(warm)
    _draw(peaks, losses, found, warm)
    return Measured(
        {
            "formula_error": float(np.abs(rates - by_formula(warmup_formula, 200)).max()),
            "first": 100 * float(rates[0]) / LR,
            "smallest_rise": float(np.diff(rates[:101]).min()),
            **learnt(found, warm),
            **stability(found, warm),
        },
        figure,
    )


def trainings(warm: int = WARM, seeds: int = SEEDS, steps: int = STEPS) -> Losses:
    """The losses of all trainings, without a warm-up and with one of `warm` steps."""
    splits = build.build_data(config("data=digits"))
    return {
        (name, rate, w): np.array(
            [first_steps(splits, perceptron, _momentum(rate, size), size, w, seed, steps) for seed in range(seeds)]
        )
        for name, size in BATCHES.items()
        for rate in RATES
        for w in {0, warm}
    }


def _momentum(rate: float, size: int) -> Words:
    return ("optimizer=momentum", f"optimizer.lr={rate * size / BATCHES['small']:g}")


def height(losses: Array) -> Array:
    """By seed, the logarithm of the highest loss over the first one: 0 if it never rises above its start."""
    return np.asarray(np.log(losses.max(1) / losses[:, 0]))


def stability(found: Losses, warm: int = WARM) -> dict[str, float]:
    """What a warm-up takes off the highest loss, by seed; of more than a tenth, p times the number of comparisons."""
    cases = [(name, rate) for name in BATCHES for rate in RATES]
    taken = {case: height(found[*case, 0]) - height(found[*case, warm]) for case in cases}
    tests = {case: paired_test(gains, np.zeros(len(gains))) for case, gains in taken.items()}
    helps, harms = ({case: test.p for case, test in tests.items() if sign * test.mean > MARGIN} for sign in (1, -1))
    better = min(helps, key=lambda case: helps[case]) if helps else max(cases, key=lambda case: tests[case].mean)
    small, large = (np.mean([taken[name, rate] for rate in RATES], axis=0) for name in ("small", "large"))
    more = paired_test(large, small)
    return {
        "seeds": float(len(small)),
        "best_batch": float(BATCHES[better[0]]),
        "best_rate": better[1] * BATCHES[better[0]] / BATCHES["small"],
        "best_without": float(np.exp(height(found[*better, 0]).mean())),
        "best_with": float(np.exp(height(found[*better, warm]).mean())),
        "helps_p": min(1.0, len(cases) * min(helps.values(), default=1.0)),
        "harms_p": min(1.0, len(cases) * min(harms.values(), default=1.0)),
        "small_ratio": float(np.exp(-small.mean())),
        "large_ratio": float(np.exp(-large.mean())),
        "more": more.mean,
        "more_p": more.p,
    }


def _draw(peaks: Any, losses: Any, found: Losses, warm: int) -> None:
    line, other = styles(marker=True), styles()
    for w in (0, warm):
        shown = f"warm-up {w}" if w else "no warm-up"
        losses.plot(np.median(found["rows", DEEP_RATE, w], axis=0), **next(other), label=shown)
    label(losses, "optimizer step", "training loss, median", f"transformer (post-LN), Adam, lr {DEEP_RATE:g}")
    for name, size in BATCHES.items():
        for w in (0, warm):
            heights = [float(np.exp(height(found[name, rate, w]).mean())) for rate in RATES]
            peaks.loglog(RATES, heights, **next(line), label=f"batch {size}, {f'warm-up {w}' if w else 'no warm-up'}")
    peaks.set_xticks(RATES, [f"{rate:g}" for rate in RATES])
    peaks.set_xticks([], minor=True)
    label(peaks, "lr · 32 / batch size", "highest loss / first loss (mean)", "MLP, momentum")


class Rows(nn.Module):
    """A transformer whose norms come after the sums (post-LN), on the eight rows of a digit."""

    def __init__(self, width: int = 32, layers: int = 6) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.position = nn.Parameter(0.02 * torch.randn(8, width))
        parts = [
            nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=False)
            for _ in range(layers)
        ]
        self.layers = nn.Sequential(*parts)
        self.head = nn.Linear(width, 10)

    def forward(self, images: Tensor) -> Tensor:
        rows = images.reshape(-1, 8, 8)  # (B, 64) -> (B, tokens, features)
        return self.head(self.layers(self.embed(rows) + self.position).mean(1))  # type: ignore[no-any-return]


def perceptron(splits: Splits) -> nn.Module:
    """dlrun's MLP with four hidden layers."""
    return build.build_model(config("data=digits", "model.widths=[64,64,64,64]", "model.norm=none"), splits.spec)


def transformers(warm: int = WARM, seeds: Sequence[int] = DEEP_SEEDS, steps: int = DEEP_STEPS) -> Losses:
    """The losses of transformers under Adam at a high rate, without a warm-up and with one."""
    splits = build.build_data(config("data=digits"))
    words = ("optimizer=adam", f"optimizer.lr={DEEP_RATE}")
    return {
        ("rows", DEEP_RATE, w): np.array(
            [first_steps(splits, lambda _: Rows(), words, 32, w, seed, steps) for seed in seeds]
        )
        for w in {0, warm}
    }


def learnt(found: Losses, warm: int = WARM) -> dict[str, float]:
    """The loss of the last 20 steps of the transformers, geometric means, and p of the difference over seeds."""
    without, with_it = (np.log(found["rows", DEEP_RATE, w][:, -20:].mean(1)) for w in (0, warm))
    test = paired_test(without, with_it)
    return {
        "deep_without": float(np.exp(without.mean())),
        "deep_with": float(np.exp(with_it.mean())),
        "deep_gain": test.mean,
        "deep_p": test.p,
    }


def first_steps(
    splits: Splits, make: Callable[[Splits], nn.Module], words: Words, size: int, warm: int, seed: int, steps: int
) -> Array:
    """The losses of the first steps of a network on digits; those that are no number count as 1e3."""
    torch.manual_seed(seed)
    model = make(splits)
    chosen = (*words, "scheduler=constant", f"scheduler.warmup={warm}")
    made = optimizer(chosen, model)
    plan = schedule(chosen, made, steps, steps)
    prepare, losses = Preparation(splits.spec, (), 0, torch.device("cpu")), []
    for _ in range(steps):
        batch = prepare(splits.train.take(torch.randint(len(splits.train), (size,))), 0)
        made.zero_grad()
        loss = nn.functional.cross_entropy(model(batch.inputs), batch.targets)
        loss.backward()
        made.step()
        plan.step()
        losses.append(min(loss.item(), 1e3) if loss.isfinite() else 1e3)
    return np.array(losses)
