"""A linear map from the past of a series to its future, the same for every series."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from dlrun.contracts import DataSpec
from dlrun.layers.series import require_series


class NLinear(nn.Module):
    """Maps each of the `columns` of (B, T, F) by itself, T steps to H: outputs (B, H · C), time first."""

    def __init__(self, context: int, horizon: int, columns: Sequence[int], subtract_last: bool) -> None:
        super().__init__()
        self.columns, self.subtract_last = list(columns), subtract_last
        self.linear = nn.Linear(context, horizon)

    def forward(self, inputs: Tensor) -> Tensor:
        series = inputs[:, :, self.columns].transpose(1, 2)  # (B, C, T)
        if self.subtract_last:
            last = series[:, :, -1:]
            future = self.linear(series - last) + last  # (B, C, H)
        else:
            future = self.linear(series)
        outputs: Tensor = future.transpose(1, 2).flatten(1)
        return outputs


def nlinear(spec: DataSpec, *, subtract_last: bool = True) -> nn.Module:
    """The linear model that forecasts of long horizons are to be compared with; it has (T + 1) H parameters.

    Args:
        spec: of a series to forecast; only the columns that are forecast are read.
        subtract_last: forecast the difference from the last value seen, so that the level of the series, which may
            have moved since training, is not part of what is learnt.

    Raises: ContractError if the data are no series to forecast.
    Source: Zeng et al. 2022 (arXiv:2205.13504), NLinear; without `subtract_last`, Linear.
    """
    context = require_series("nlinear", spec)
    return NLinear(context, spec.horizon, spec.target_columns, subtract_last)
