"""What several measurements share: dlrun's own parts by their words, a small function to descend on, statistics."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor, nn

from dlrun import build
from dlrun.config.compose import compose
from dlrun.optim.schedule import Schedule

Array = NDArray[np.float64]
Words = Sequence[str]
CURVATURE = np.linspace(0.5, 4.0, 12)  # a of `hills`, by coordinate; its curvature is a - sin w
START = np.linspace(-2.0, 3.0, 12)


@cache
def config(*words: str) -> dict[str, Any]:
    """The checked configuration that words make of the defaults; not to be changed."""
    return compose(words).config


def optimizer(words: Words, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer that words such as "optimizer=adam" configure."""
    return build.build_optimizer(config(*words), model)  # type: ignore[no-any-return]


def schedule(words: Words, made: torch.optim.Optimizer, total_steps: int, steps_per_epoch: int) -> Schedule:
    """The schedule that words such as "scheduler=cosine" configure."""
    return build.build_schedule(
        config(*words), made, total_steps=total_steps, steps_per_epoch=steps_per_epoch, higher_is_better=False
    )


class Point(nn.Module):
    """A point in float64 as a model's only weights; a matrix, for vectors are not decayed."""

    def __init__(self, start: Array) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(start, dtype=torch.float64).reshape(1, -1))

    @property
    def at(self) -> Array:
        """Where it is, a copy."""
        return self.weight.detach().numpy().reshape(-1).copy()


def hills(w: Tensor) -> Tensor:
    """Σ a w² / 2 + sin w: curved differently along every coordinate, and not a parabola."""
    return (torch.tensor(CURVATURE) * w**2 / 2 + w.sin()).sum()


def hills_gradient(w: Array) -> Array:
    """The gradient of `hills`, by hand."""
    return np.asarray(CURVATURE * w + np.cos(w))


def path(
    words: Words, start: Array = START, steps: int = 50, loss: Callable[[Tensor], Tensor] = hills
) -> tuple[Array, torch.optim.Optimizer]:
    """Where an optimizer goes. Returns: (steps + 1, n) points, the start first, and the optimizer at the end."""
    point = Point(start)
    made = optimizer(words, point)
    points = [point.at]
    for _ in range(steps):
        made.zero_grad()
        loss(point.weight).backward()
        made.step()
        points.append(point.at)
    return np.array(points), made


def path_by_hand(rule: Callable[[Array, Array], Array], start: Array = START, steps: int = 50) -> Array:
    """Where a rule (point, gradient) -> next point goes on `hills`, in NumPy alone."""
    points = [np.array(start)]
    for _ in range(steps):
        points.append(rule(points[-1], hills_gradient(points[-1])))
    return np.array(points)


def furthest(a: Array, b: Array) -> float:
    """The largest difference of two paths."""
    return float(np.abs(a - b).max())


def slope(x: Sequence[float] | Array, y: Sequence[float] | Array) -> float:
    """Of the line through log y over log x: the power that y grows by."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def paired(ours: Sequence[float], others: Sequence[float]) -> tuple[float, float]:
    """The mean of the differences, pair by pair, and its ratio to its standard error (t; 0 if nothing differs)."""
    differences = np.subtract(ours, others)
    mean, error = float(differences.mean()), float(differences.std(ddof=1) / math.sqrt(len(differences)))
    return mean, 0.0 if mean == 0 else math.copysign(math.inf, mean) if error == 0 else mean / error


@dataclass(frozen=True)
class Paired:
    """Differences pair by pair: of runs with the same seed, say.

    Attributes:
        mean: of the differences.
        p: of a t test of their mean against 0, two-sided; 1 if nothing differs.
        low: of the 95 % interval of the mean; the mean itself where all are the same.
        high: its other end.
    """

    mean: float
    p: float
    low: float
    high: float


def paired_test(ours: Sequence[float] | Array, others: Sequence[float] | Array) -> Paired:
    """What two or more pairs tell of the mean of ours - others."""
    differences = np.subtract(ours, others)
    mean = float(differences.mean())
    if np.ptp(differences) <= 1e-12 * np.abs(differences).max():  # all the same but for rounding
        return Paired(mean, float(mean == 0), mean, mean)
    result = stats.ttest_1samp(differences, 0.0)
    interval = result.confidence_interval(0.95)
    return Paired(mean, float(result.pvalue), float(interval.low), float(interval.high))
