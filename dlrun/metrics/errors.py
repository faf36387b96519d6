"""Errors of predicted numbers, in the target's own units."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dlrun.metrics.sums import sums

ROUNDING = 1e-6  # of |mean| + std: what float32 leaves of a zero that was standardised and brought back


class Errors:
    """Errors of (B, ..., outputs) standardised outputs and targets, each the mean over the outputs.

    - mae, rmse: mean absolute error and root of the mean squared error, in the target's own units.
    - mape: 100 · mean of |o - t| / |t|, in percent. Targets that are 0 are left out: no percentage of them is defined,
      and a small number in place of 0 makes the result a measure of that number. Of standardised targets, those are 0
      that are within rounding of it.
    - smape: 100 · mean of 2 |o - t| / (|o| + |t|), in percent, between 0 and 200; a term with o = t = 0 is left out,
      one with only t = 0 is 200.
    - r2: 1 - Σ(t - o)² / Σ(t - mean t)², which does not depend on the units. Sums are float64 and the targets
      standardised, so Σt² - (Σt)²/n loses no digits that matter. As in scikit-learn, R² of a constant target is 1 if
      every error is 0, else 0.

    Args:
        target_std, target_mean: of each output; with one entry every number counts as the same output.
        relative: whether to compute mape and smape, which mean something only for targets with a true zero.
    """

    def __init__(
        self, target_std: Sequence[float], target_mean: Sequence[float] = (), *, relative: bool = False
    ) -> None:
        self.target_std = tuple(target_std)
        self.target_mean = tuple(target_mean)
        self.relative = relative
        self.names: Sequence[str] = ("mae", "rmse", *(("mape", "smape") if relative else ()), "r2")
        self.higher_is_better = {name: name == "r2" for name in self.names}

    def reset(self, device: torch.device) -> None:
        self.totals = sums(9, len(self.target_std), device=device)
        (self.absolute, self.squared, self.sum, self.sum_squared, self.count) = self.totals[:5].unbind()
        (self.share, self.share_count, self.both, self.both_count) = self.totals[5:].unbind()
        self.std = torch.tensor(self.target_std, dtype=self.totals.dtype, device=device)
        mean = self.target_mean or (0.0,) * len(self.target_std)
        self.mean = torch.tensor(mean, dtype=self.totals.dtype, device=device)
        self.zero = ROUNDING * (self.mean.abs() + self.std) if self.target_mean else torch.zeros_like(self.std)

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        target = targets.to(self.totals.dtype).reshape(-1, len(self.target_std))
        output = outputs.detach().to(self.totals.dtype).reshape(-1, len(self.target_std))
        error = (output - target).abs()
        self.absolute += error.sum(0)
        self.squared += error.square().sum(0)
        self.sum += target.sum(0)
        self.sum_squared += target.square().sum(0)
        self.count += len(target)
        if self.relative:
            self._add_shares(error * self.std, target * self.std + self.mean, output * self.std + self.mean)

    def _add_shares(self, error: Tensor, target: Tensor, output: Tensor) -> None:
        """Add up the terms of mape and smape; all three (rows, outputs) in the target's own units."""
        size = target.abs()
        counts = size > self.zero
        self.share += torch.where(counts, error / size, 0.0).sum(0)
        self.share_count += counts.sum(0)
        # What rounding leaves of a zero is no size: a forecast of 5 for 0 is wrong by 200 %, not by a bit less.
        size = torch.where(counts, size, 0.0)
        other = output.abs()
        both = size + torch.where(other > self.zero, other, 0.0)
        self.both += torch.where(both > 0, 2 * error / both, 0.0).clamp(max=2.0).sum(0)
        self.both_count += (both > 0).sum(0)

    def compute(self) -> dict[str, float]:
        by_output = zip(self.target_std, *self.totals.tolist(), strict=True)
        values = [_errors(*sums_of_one) for sums_of_one in by_output]
        return {name: _mean([value[name] for value in values]) for name in self.names}


def _errors(
    std: float,
    absolute: float,
    squared: float,
    total: float,
    total_squared: float,
    count: float,
    share: float,
    share_count: float,
    both: float,
    both_count: float,
) -> dict[str, float]:
    """The errors of one output from its sums."""
    if count == 0:
        return dict.fromkeys(("mae", "rmse", "mape", "smape", "r2"), math.nan)
    spread = total_squared - total * total / count
    # A constant target leaves rounding noise where 0 should be.
    constant = spread <= 1e-14 * total_squared
    return {
        "mae": std * absolute / count,
        "rmse": std * math.sqrt(squared / count),
        "mape": 100 * share / share_count if share_count else math.nan,
        "smape": 100 * both / both_count if both_count else math.nan,
        "r2": float(squared == 0) if constant else 1 - squared / spread,
    }


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
