"""Sines with noise, a series made by a formula: the same to `seed`, which is the data's own and not the run's."""

import math
from functools import partial

import numpy as np
import torch

from dlrun.contracts import Column, DataSpec, Kind, NonNegativeFloat, PositiveFloat, PositiveInt, Splits, Task
from dlrun.data.scale import fit_scale
from dlrun.errors import ConfigError
from dlrun.examples import SeriesWindows


def noisy_sine(
    *,
    samples: PositiveInt,
    context: PositiveInt,
    horizon: PositiveInt,
    radians_per_step: PositiveFloat,
    amplitude: tuple[PositiveFloat, PositiveFloat],
    noise: NonNegativeFloat,
    seed: int,
    normalize: bool = True,
) -> Splits:
    """Sines, each of its own phase and amplitude, to be continued from `context` noisy steps; inputs (T, 1).

    Step t of a series is a · sin(radians_per_step · t + phase) + noise · e, with e standard normal, phase uniform on
    the circle and a uniform in `amplitude`. The squared error of no forecast can be below noise² on average.

    Raises: ConfigError if `amplitude` does not rise.
    """
    if amplitude[0] > amplitude[1]:
        raise ConfigError(f"data.amplitude must be two numbers, the smaller first, got {list(amplitude)}")
    rng = np.random.default_rng(seed)
    length = context + horizon
    scale = rng.uniform(*amplitude, size=(samples, 1))
    phase = rng.uniform(0, 2 * math.pi, size=(samples, 1))
    values = scale * np.sin(radians_per_step * np.arange(length) + phase)
    values += noise * rng.standard_normal(values.shape)
    starts = torch.arange(0, samples * length, length)  # one after the other in a single series
    windows = SeriesWindows(torch.from_numpy(values.reshape(-1, 1)), starts, context, horizon, torch.tensor([0]))
    spec = DataSpec(
        "noisy_sine",
        Task.FORECASTING,
        Kind.SEQUENCE,
        (context, 1),
        horizon,
        columns=(Column("value"),),
        horizon=horizon,
        target_columns=(0,),
        season=round(2 * math.pi / radians_per_step),
    )
    return Splits(windows, spec, fit=partial(fit_scale, spec, normalize))
