"""Metrics of each task, summed over batches on the device and read once.

`update` neither waits for the device nor allocates state; `compute` waits once. The sums stand in one tensor, `totals`,
so that adding the totals of several processes gives the metric over all their examples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dlrun.contracts import IGNORED, DataSpec, Metric, Task

MONITOR: dict[Task, str] = {
    Task.CLASSIFICATION: "accuracy",
    Task.MULTILABEL: "f1",
    Task.REGRESSION: "rmse",
    Task.FORECASTING: "rmse",
    Task.LANGUAGE_MODELLING: "loss",
    Task.SEQUENCE_TO_SEQUENCE: "loss",
    Task.RECONSTRUCTION: "loss",
}


def for_task(spec: DataSpec) -> list[Metric]:
    """The metrics of the task of `spec`, beside the loss, which the engine sums."""
    match spec.task:
        case Task.CLASSIFICATION:
            return [Accuracy()]
        case Task.MULTILABEL:
            return [Labels()]
        case Task.LANGUAGE_MODELLING | Task.SEQUENCE_TO_SEQUENCE:
            return [TokenAccuracy()]
        case Task.REGRESSION:
            return [Errors(spec.target_std or (1.0,) * spec.num_outputs)]
    return [Errors(spec.target_std or (1.0,))]


class Accuracy:
    """The share of examples whose largest output is the target class.

    outputs (B, K); targets class indices (B,), or probabilities (B, K), of which the largest counts.
    """

    names: Sequence[str] = ("accuracy",)
    higher_is_better = {"accuracy": True}  # noqa: RUF012

    def reset(self, device: torch.device) -> None:
        self.totals = torch.zeros(2, dtype=torch.int64, device=device)
        self.correct, self.count = self.totals.unbind()

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        classes = targets.argmax(-1) if targets.ndim == outputs.ndim else targets
        self.correct += outputs.argmax(-1).eq_(classes).sum()  # in place: integers are summed faster than booleans
        self.count += classes.numel()

    def compute(self) -> dict[str, float]:
        correct, count = self.totals.tolist()
        return {"accuracy": _ratio(correct, count)}


class TokenAccuracy(Accuracy):
    """The share of tokens predicted right, of those whose target is not -100. outputs (B, T, K), targets (B, T)."""

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        self.correct += (outputs.argmax(-1) == targets).sum()
        self.count += (targets != IGNORED).sum()


class Labels:
    """Accuracy and F1 over all decisions (example, label), a logit above 0 deciding for the label.

    outputs and targets (B, K). F1 is micro-averaged, 2 TP / (2 TP + FP + FN); 0 when nothing is true or predicted.
    """

    names: Sequence[str] = ("accuracy", "f1")
    higher_is_better = {"accuracy": True, "f1": True}  # noqa: RUF012

    def reset(self, device: torch.device) -> None:
        self.totals = torch.zeros(4, dtype=torch.int64, device=device)
        self.both, self.predicted, self.true, self.count = self.totals.unbind()

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        predicted, true = outputs > 0, targets > 0.5
        self.both += (predicted & true).sum()
        self.predicted += predicted.sum()
        self.true += true.sum()
        self.count += targets.numel()

    def compute(self) -> dict[str, float]:
        both, predicted, true, count = self.totals.tolist()
        return {"accuracy": 1 - _ratio(predicted + true - 2 * both, count), "f1": _ratio(2 * both, predicted + true)}


class Errors:
    """Mean absolute error, root mean squared error and R² of (B, ..., outputs), each the mean over the outputs.

    Outputs and targets are standardised; mae and rmse are in the target's own units.

    R² = 1 - Σ(t - o)² / Σ(t - mean t)² does not depend on the units. Sums are float64 and the targets standardised,
    so Σt² - (Σt)²/n loses no digits that matter. As in scikit-learn, R² of a constant target is 1 if every error is
    0, else 0.

    Args:
        target_std: of each output, by which its errors are multiplied; with one entry every number counts as the
            same output.
    """

    names: Sequence[str] = ("mae", "rmse", "r2")
    higher_is_better = {"mae": False, "rmse": False, "r2": True}  # noqa: RUF012

    def __init__(self, target_std: Sequence[float]) -> None:
        self.target_std = tuple(target_std)

    def reset(self, device: torch.device) -> None:
        self.dtype = torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
        self.totals = torch.zeros(5, len(self.target_std), dtype=self.dtype, device=device)
        self.absolute, self.squared, self.sum, self.sum_squared, self.count = self.totals.unbind()

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        target = targets.to(self.dtype).reshape(-1, len(self.target_std))
        error = outputs.detach().to(self.dtype).reshape(-1, len(self.target_std)) - target
        self.absolute += error.abs().sum(0)
        self.squared += error.square().sum(0)
        self.sum += target.sum(0)
        self.sum_squared += target.square().sum(0)
        self.count += len(target)

    def compute(self) -> dict[str, float]:
        by_output = zip(self.target_std, *self.totals.tolist(), strict=True)
        values = [_errors(*sums) for sums in by_output]
        means = [math.fsum(column) / len(values) for column in zip(*values, strict=True)]
        return dict(zip(self.names, means, strict=True))


def _errors(
    std: float, absolute: float, squared: float, total: float, total_squared: float, count: float
) -> tuple[float, float, float]:
    """(mae, rmse, r2) of one output from its sums."""
    if count == 0:
        return math.nan, math.nan, math.nan
    spread = total_squared - total * total / count
    # A constant target leaves rounding noise where 0 should be.
    constant = spread <= 1e-14 * total_squared
    r2 = float(squared == 0) if constant else 1 - squared / spread
    return std * absolute / count, std * math.sqrt(squared / count), r2


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
