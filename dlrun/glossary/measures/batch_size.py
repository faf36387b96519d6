"""What the batch size changes: the noise of the gradient, memory, steps in an epoch, and how well is generalised."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dlrun import build
from dlrun.contracts import Splits
from dlrun.engine.footprint import peak_bytes
from dlrun.glossary.figures import label, panels, styles
from dlrun.glossary.measure import Arms, Measured
from dlrun.glossary.measures.common import config, paired_test, slope
from dlrun.glossary.measures.early_stopping import curve

SIZES = (4, 8, 16, 32, 64, 128, 256)
SMALL, LARGE = "16", "256"
Draw = Callable[[torch.Generator, int, int], Tensor]


def with_replacement(random: torch.Generator, count: int, size: int) -> Tensor:
    """A batch of indices."""
    return torch.randint(count, (size,), generator=random)


def measure(draw: Draw = with_replacement, runs: Arms | None = None) -> Measured:
    """Variance of the gradient and memory over batch size; trainings at equal epochs, equal steps and a scaled rate."""
    chosen = config("data=digits", "model.widths=[64]", "model.norm=none")
    splits = build.build_data(chosen)
    torch.manual_seed(0)
    model = build.build_model(chosen, splits.spec)
    variances = [variance(model, splits, size, draw) for size in SIZES]
    figure, axes = panels("Batch size", 2 if runs else 1)
    line = styles(marker=True)
    axes[0].loglog(SIZES, variances, **next(line), label="measured, 400 batches each")
    axes[0].loglog(SIZES, variances[0] * SIZES[0] / np.array(SIZES), **next(line), label="∝ 1 / B")
    label(axes[0], "batch size B", "variance of the gradient (sum over weights)", "noise")
    numbers = {
        "variance_power": slope(SIZES, variances),
        "memory_ratio": peak(model, splits, 1024) / peak(model, splits, 128),
    }
    if runs:
        numbers |= _updates(runs, len(splits.train)) | _trainings(runs, axes[1])
    return Measured(numbers, figure)


def variance(model: nn.Module, splits: Splits, size: int, draw: Draw, batches: int = 400) -> float:
    """The variance of a batch's gradient, summed over all weights."""
    random = torch.Generator().manual_seed(size)
    parameters = list(model.parameters())
    gradients = []
    for _ in range(batches):
        batch = splits.train.take(draw(random, len(splits.train), size))
        loss = nn.functional.cross_entropy(model(batch.arguments[0].float() / 16), batch.targets)
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)]))
    return float(torch.stack(gradients).var(0).sum())


def peak(model: nn.Module, splits: Splits, size: int) -> float:
    """The most memory that a forward and a backward pass have allocated at one time, bytes."""
    batch = splits.train.take(torch.arange(size))
    inputs = batch.arguments[0].float() / 16
    parameters = list(model.parameters())

    def compute() -> None:
        torch.autograd.grad(nn.functional.cross_entropy(model(inputs), batch.targets), parameters)

    return float(peak_bytes(compute, torch.device("cpu")))


def _updates(runs: Arms, examples: int) -> dict[str, float]:
    """Examples for each update of the weights, over data.batch_size, without accumulation and with two batches."""
    found = {}
    for name, arm in (("plain_ratio", SMALL), ("accumulated_ratio", "accumulated")):
        run = runs[arm][0]
        found[name] = examples * run.summary["epochs"] / run.summary["steps"] / run.config["data"]["batch_size"]
    return found


def _trainings(runs: Arms, axes: Any) -> dict[str, float]:
    """Test accuracies of small and large batches, pair by pair over seeds."""
    tests = {name: [100 * run.metrics["test/accuracy"] for run in each] for name, each in runs.items()}
    shown = {
        SMALL: "16",
        "16_lr4": "16,\nlr x 4",
        LARGE: "256",
        "256_lr4": "256,\nlr x 4",
        "256_scaled": "256,\nlr x 16",
        "256_steps": "256, 16 x\nthe steps",
    }
    for position, (name, style) in enumerate(zip(shown, styles(marker=True), strict=False)):
        axes.errorbar(
            [position], np.mean(tests[name]), np.std(tests[name], ddof=1), capsize=4, **{**style, "linestyle": ""}
        )
    axes.set_xticks(range(len(shown)), list(shown.values()))
    axes.set_xlim(-0.5, len(shown) - 0.5)
    label(axes, "batch size", "test accuracy, % (mean ± std)", f"digits, SGD, {len(tests[SMALL])} seeds", legend=False)
    small, large = (suited(runs, names) for names in ((SMALL, "16_lr4"), (LARGE, "256_lr4", "256_scaled")))
    epochs, steps = (paired_test(tests[SMALL], tests[name]) for name in (LARGE, "256_steps"))
    adapted, scaled = paired_test(small, large), paired_test(tests["256_scaled"], tests[LARGE])
    return {
        "epochs_gain": epochs.mean,
        "epochs_p": epochs.p,
        "adapted_gain": adapted.mean,
        "adapted_p": adapted.p,
        "steps_gain": steps.mean,
        "steps_p": steps.p,
        "steps_high": steps.high,
        "scaled_gain": scaled.mean,
        "scaled_p": scaled.p,
        "seeds": float(len(tests[SMALL])),
    }


def suited(runs: Arms, names: Sequence[str]) -> list[float]:
    """Test accuracies, %, by seed, of whichever of some arms is best on validation with that seed."""
    best = [
        max(same, key=lambda run: curve(run, "val/accuracy")[-1])
        for same in zip(*(runs[name] for name in names), strict=True)
    ]
    return [100 * run.metrics["test/accuracy"] for run in best]
