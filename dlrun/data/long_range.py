"""Sequences of numbers whose target depends on what came many steps before: tests of a model's memory.

`seed` makes the data; the run's own seed never changes them.
"""

from typing import Annotated, Literal

import numpy as np
import torch

from dlrun.contracts import Arrays, DataSpec, Interval, Kind, NonNegativeFloat, PositiveInt, Splits, Task


def adding(
    *, samples: PositiveInt, length: Annotated[int, Interval(2)], marks: Literal["halves", "anywhere"], seed: int
) -> Splits:
    """Regression of the sum of two marked numbers: inputs (T, 2), numbers uniform in [0, 1] and marks 0 or 1.

    Always to say 1, the mean, has a mean squared error of 1/6 = 0.167, rmse 0.408: twice the variance of a number.

    Args:
        length: T, steps.
        marks: one in each half of the sequence, or two different ones anywhere.

    Source: Hochreiter & Schmidhuber 1997, experiment 4, as simplified by Le et al. 2015 (arXiv:1504.00941).
    """
    rng = np.random.default_rng(seed)
    inputs = np.zeros((samples, length, 2), dtype=np.float32)
    inputs[:, :, 0] = rng.random((samples, length), dtype=np.float32)
    if marks == "halves":
        first, second = rng.integers(length // 2, size=samples), rng.integers(length // 2, length, size=samples)
    else:
        first = rng.integers(length, size=samples)
        second = (first + rng.integers(1, length, size=samples)) % length
    each = np.arange(samples)
    inputs[each, first, 1] = inputs[each, second, 1] = 1
    targets = inputs[each, first, 0] + inputs[each, second, 0]
    spec = DataSpec("adding", Task.REGRESSION, Kind.SEQUENCE, (length, 2), 1)
    return Splits(Arrays(torch.from_numpy(inputs), torch.from_numpy(targets).unsqueeze(1)), spec)


def sequence_mean(*, samples: PositiveInt, length: PositiveInt, noise: NonNegativeFloat, seed: int) -> Splits:
    """Regression of the mean of T standard normal numbers, inputs (T, 1), plus normal noise.

    The target's variance is 1 / T + noise²; the best possible mean squared error is noise².
    """
    rng = np.random.default_rng(seed)
    inputs = rng.standard_normal((samples, length, 1))
    targets = inputs.mean(axis=1) + noise * rng.standard_normal((samples, 1))
    spec = DataSpec("sequence_mean", Task.REGRESSION, Kind.SEQUENCE, (length, 1), 1)
    return Splits(Arrays(torch.from_numpy(inputs).float(), torch.from_numpy(targets).float()), spec)
