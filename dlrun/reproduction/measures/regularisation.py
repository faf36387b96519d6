"""What each regularisation does to the gap between training and validation, where few noisy examples are learnt."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from dlrun import build
from dlrun.glossary.figures import COLORS, label, panels, styles
from dlrun.glossary.measure import Measured
from dlrun.glossary.measures.common import Array
from dlrun.reproduction.measures.common import curve, difference, finals, gap, last_model
from dlrun.run import Run

SHOWN = {"none": "none", "l2": "L2", "dropout": "dropout", "batchnorm": "batch norm", "early": "early stopping"}


def best_gap(runs: Sequence[Run]) -> Array:
    """As `gap`, with the best weights, which are what early stopping keeps."""
    both = [[run.evaluate(split, "best")[f"{split}/accuracy"] for split in ("train", "val")] for run in runs]
    return np.array([100 * (train - val) for train, val in both])


def weight_norm(run: Run) -> float:
    """The norm of all weight matrices together, at the end."""
    with torch.no_grad():
        squares = [float(p.square().sum()) for p in last_model(run).parameters() if p.ndim > 1]
    return math.sqrt(sum(squares))


def scales(model: nn.Module, inputs: Tensor) -> Array:
    """The standard deviation over examples of what goes into each hidden unit's activation."""
    kept: list[Tensor] = []
    found = [m for m in model.modules() if type(m).__module__.endswith("activation")]
    hooks = [m.register_forward_pre_hook(lambda _, given: kept.append(given[0])) for m in found]
    with torch.no_grad():
        model.train()(inputs)  # with the norm of a batch, as in training; there is no dropout where this is asked
    for hook in hooks:
        hook.remove()
    return np.array([part.std(0).numpy() for part in kept]).ravel()


def scale_numbers(runs: Mapping[str, Sequence[Run]]) -> dict[str, float]:
    """How far scales are apart after training, and by what they grow when all weight matrices are multiplied by 10.

    The spread is the standard deviation of log₁₀ of the units' scales, those that never vary left out.
    """
    numbers: dict[str, float] = {}
    spreads: dict[str, Array] = {}
    for name in ("none", "batchnorm"):
        each, grown = [], []
        for run in runs[name]:
            model, (inputs, _) = last_model(run), build.build_data(run.config).train.tensors()
            before = scales(model, inputs)
            each.append(np.log10(before[before > 0]).std())
            with torch.no_grad():
                for p in model.parameters():
                    p.mul_(10.0 if p.ndim > 1 else 1.0)
            after = scales(model, inputs)
            grown.append(np.median(after[before > 0] / before[before > 0]))
        spreads[name] = np.array(each)
        numbers |= {f"{name}_scales": float(spreads[name].mean()), f"{name}_grown": float(np.mean(grown))}
    return numbers | difference("scales_change", spreads["batchnorm"], spreads["none"])


def measure(runs: Mapping[str, Sequence[Run]]) -> Measured:
    """Gaps, test losses and accuracies of five trainings, and what each technique changes, with p over seeds."""
    gaps = {name: best_gap(each) if name == "early" else gap(each) for name, each in runs.items()}
    loss = {name: 100 * finals(each, "test/loss") for name, each in runs.items()}
    accuracy = {name: 100 * finals(each) for name, each in runs.items()}
    numbers: dict[str, float] = {"seeds": float(len(gaps["none"]))}
    for name in runs:
        numbers |= {f"{name}_gap": float(gaps[name].mean()), f"{name}_test": float(accuracy[name].mean())}
        numbers[f"{name}_loss"] = float(loss[name].mean()) / 100
        if name != "none":
            numbers |= difference(f"{name}_change", gaps[name], gaps["none"])
            numbers |= difference(f"{name}_gain", accuracy[name], accuracy["none"])
    norms = {name: np.array([weight_norm(run) for run in runs[name]]) for name in ("none", "l2")}
    numbers |= {"norm_ratio": float((norms["l2"] / norms["none"]).mean())}
    numbers |= difference("norm_change", norms["l2"], norms["none"])
    numbers |= scale_numbers(runs)
    epochs = [len(curve(run, "val/loss")) for run in runs["early"]]
    numbers["early_epochs"] = float(np.mean(epochs))
    numbers["none_rise"] = float(np.mean([curve(r, "val/loss")[-1] / curve(r, "val/loss").min() for r in runs["none"]]))
    figure, (losses, bars) = panels("Regularisation: 250 digits, a fifth with wrong labels", 2, width=5.0)
    line = styles()
    for name, each in runs.items():
        shortest = min(len(curve(run, "val/loss")) for run in each)
        mean = np.mean([curve(run, "val/loss")[:shortest] for run in each], axis=0)
        losses.plot(np.arange(1, shortest + 1), mean, **next(line), label=SHOWN[name])
    label(losses, "epoch", "validation loss", "mean over seeds")
    at = np.arange(len(runs))
    bars.bar(
        at, [g.mean() for g in gaps.values()], yerr=[g.std(ddof=1) for g in gaps.values()], color=COLORS[0], width=0.6
    )
    bars.set_xticks(at, [f"{SHOWN[name]}\ntest {accuracy[name].mean():.1f} %" for name in runs], fontsize=8)
    label(
        bars, "", "training - validation accuracy (points)", "gap at the end; early stopping: at its best", legend=False
    )
    return Measured(numbers, figure)
