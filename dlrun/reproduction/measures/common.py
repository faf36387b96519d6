"""What several measurements share: numbers of runs over seeds, and data as a model sees them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import t as student
from torch import Tensor, nn

from dlrun import build
from dlrun.glossary.measures.common import Array, config, paired
from dlrun.prediction import load_predictor
from dlrun.run import Run
from dlrun.runs.directory import RunDirectory


def finals(runs: Sequence[Run], name: str = "test/accuracy") -> Array:
    """A final metric of each run, by seed."""
    return np.array([run.metrics[name] for run in runs])


def mean(runs: Sequence[Run], name: str = "test/accuracy") -> float:
    """The mean of a final metric over seeds."""
    return float(finals(runs, name).mean())


def curve(run: Run, name: str) -> Array:
    """The values of one name over the validations."""
    values = run.history[name]
    return np.asarray(values[~np.isnan(values)])


def epochs_of(run: Run, name: str) -> Array:
    """The epochs after which the values of `curve` were taken."""
    return np.asarray(run.history["epoch"][~np.isnan(run.history[name])])


def at_validations(run: Run, name: str) -> Array:
    """The values of a name in the records of validations alone."""
    return np.asarray(run.history[name][~np.isnan(run.history["val/loss"])])


def last(runs: Sequence[Run], name: str) -> Array:
    """The last value of a name of metrics.jsonl, by seed."""
    return np.array([curve(run, name)[-1] for run in runs])


def last_model(run: Run) -> nn.Module:
    """The model with its last weights, on the CPU; `run.model` has the best ones."""
    return load_predictor(RunDirectory(run.path), "last").model


def gap(runs: Sequence[Run]) -> Array:
    """Training accuracy minus validation accuracy with the last weights, in points, by seed."""
    both = [[run.evaluate(split, "last")[f"{split}/accuracy"] for split in ("train", "val")] for run in runs]
    return np.array([100 * (train - val) for train, val in both])


def difference(name: str, ours: Sequence[float] | Array, others: Sequence[float] | Array) -> dict[str, float]:
    """How ours differ from the others, seed by seed: the paired t test.

    Returns: NAME, the mean difference; NAME_p, its two-sided p (1 if nothing differs); NAME_low and NAME_high, the 95 %
        interval of the mean difference.
    """
    mean, t = paired(list(ours), list(others))
    free = len(ours) - 1
    error = 0.0 if t == 0 or math.isinf(t) else mean / t
    reach = float(student.ppf(0.975, free)) * error
    p = float(2 * student.sf(abs(t), free))
    return {name: mean, f"{name}_p": p, f"{name}_low": mean - reach, f"{name}_high": mean + reach}


def examples(*words: str) -> tuple[Tensor, Tensor]:
    """Inputs and targets of the training split that words configure, normalised."""
    train = build.build_data(config(*words)).train
    inputs, targets = train.tensors()
    return inputs, targets
