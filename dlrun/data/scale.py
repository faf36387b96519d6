"""The scale of windows into a series: mean and deviation of each column, for inputs and targets alike."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlrun.contracts import Column, DataSpec
from dlrun.examples import SeriesWindows
from dlrun.inputs import encode_series


def fit_scale(
    spec: DataSpec, normalize: bool, train: SeriesWindows
) -> tuple[DataSpec, Callable[[SeriesWindows], SeriesWindows]]:
    """The scale of each column in the rows of the training windows, and the function that gives any windows that scale.

    Returns: `spec` with `columns`, `target_mean` and `target_std`; a function from windows to float32 windows, which
        share one standardised series. Deviations are over the population; that of a constant column is taken as 1.
    """
    columns = spec.columns
    if normalize:
        seen = train.series[rows_of(train)].numpy()
        columns = tuple(_scaled(column, seen[:, i]) for i, column in enumerate(spec.columns))
    encoded = encode_series(train.series.numpy(), columns)
    targets = [columns[i] for i in spec.target_columns] * spec.horizon
    spec = replace(
        spec,
        columns=columns,
        target_mean=tuple(column.mean for column in targets),
        target_std=tuple(column.std for column in targets),
    )
    return spec, lambda windows: replace(windows, series=encoded)


def rows_of(windows: SeriesWindows) -> Tensor:
    """(L,) whether each row of the series is in the inputs or targets of a window."""
    width = windows.length + windows.horizon
    change = torch.zeros(len(windows.series) + 1, dtype=torch.int64)
    change.index_add_(0, windows.starts, torch.ones_like(windows.starts))
    change.index_add_(0, windows.starts + width, -torch.ones_like(windows.starts))
    return change.cumsum(0)[:-1] > 0


def _scaled(column: Column, values: NDArray[np.float64]) -> Column:
    mean = float(values.mean())
    std = float(values.std()) if values.min() < values.max() else 1.0  # of equal values: 0, but for rounding
    return replace(column, fill=mean, mean=mean, std=std)
