"""Forecasts without parameters, which a model must beat to have learnt anything.

All map (B, T, F) to (B, H · C), time first. A column's scale is the same in inputs and outputs, so what is said of
values holds for standardised ones. Source: Hyndman & Athanasopoulos 2021, Forecasting: Principles and Practice, 5.2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dlrun.contracts import DataSpec, PositiveInt
from dlrun.errors import ConfigError, ContractError
from dlrun.layers.series import require_series


class Repeat(nn.Module):
    """Forecasts the value of earlier steps.

    Args:
        steps: (H,) the step of the input that each forecast repeats.
        columns: (C,) the features that are forecast.
    """

    def __init__(self, steps: Sequence[int], columns: Sequence[int]) -> None:
        super().__init__()
        self.steps, self.columns = list(steps), list(columns)

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs[:, self.steps][:, :, self.columns].flatten(1)


class Mean(nn.Module):
    """Forecasts the mean of the last `window` steps, for `horizon` steps of the features `columns`."""

    def __init__(self, window: int, horizon: int, columns: Sequence[int]) -> None:
        super().__init__()
        self.window, self.horizon, self.columns = window, horizon, list(columns)

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs[:, -self.window :, self.columns].mean(1).repeat(1, self.horizon)


class Line(nn.Module):
    """Goes on along the line from the first step to the last, for `horizon` steps of the features `columns`."""

    def __init__(self, horizon: int, columns: Sequence[int]) -> None:
        super().__init__()
        self.horizon, self.columns = horizon, list(columns)

    def forward(self, inputs: Tensor) -> Tensor:
        first, last = inputs[:, :1, self.columns], inputs[:, -1:, self.columns]  # (B, 1, C)
        ahead = torch.arange(1, self.horizon + 1, device=inputs.device, dtype=inputs.dtype)[:, None]  # (H, 1)
        return (last + ahead * (last - first) / (inputs.shape[1] - 1)).flatten(1)


def last_value(spec: DataSpec) -> nn.Module:
    """Every future value is the last one seen; the best forecast of a random walk.

    Raises: ContractError if the data are no series to forecast.
    """
    context = require_series("last_value", spec)
    return Repeat([context - 1] * spec.horizon, spec.target_columns)


def seasonal_naive(spec: DataSpec, *, period: PositiveInt | None = None) -> nn.Module:
    """Every future value is that of the same time in the last season seen.

    Args:
        period: steps of a season; None: `spec.season`.

    Raises:
        ContractError if the data are no series to forecast.
        ConfigError if the period is not known, or longer than the inputs.
    """
    context = require_series("seasonal_naive", spec)
    steps = period or spec.season
    if not steps:
        raise ConfigError(
            f"model=seasonal_naive must know the season of data={spec.name}: give model.period in steps, or data.season"
        )
    if steps > context:
        key = "model.period" if period else "the season"
        raise ConfigError(
            f"model=seasonal_naive: {key} of {steps} steps is longer than the {context} that it sees; give a shorter "
            f"model.period, or data.context={steps} or more"
        )
    return Repeat([context - steps + ahead % steps for ahead in range(spec.horizon)], spec.target_columns)


def moving_average(spec: DataSpec, *, window: PositiveInt | None = None) -> nn.Module:
    """Every future value is the mean of the last `window` seen; None: of all.

    Raises:
        ContractError if the data are no series to forecast.
        ConfigError if the window is longer than the inputs.
    """
    context = require_series("moving_average", spec)
    if window is not None and window > context:
        raise ConfigError(
            f"model.window must be at most the {context} steps that model=moving_average sees, got {window}"
        )
    return Mean(window or context, spec.horizon, spec.target_columns)


def drift(spec: DataSpec) -> nn.Module:
    """Every future value lies on the line through the first and the last value seen.

    Raises: ContractError if the data are no series to forecast, or show one step only.
    """
    context = require_series("drift", spec)
    if context < 2:
        raise ContractError(
            f"model=drift draws a line through two steps, but data={spec.name} shows one; raise data.context"
        )
    return Line(spec.horizon, spec.target_columns)
