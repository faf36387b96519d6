"""Naive forecasts against slow loops, and series for which each is exact."""

import pytest
import torch

from dlrun.contracts import Column, DataSpec, Kind, Task
from dlrun.errors import ConfigError, ContractError
from dlrun.models.naive import drift, last_value, moving_average, seasonal_naive


def spec(context: int = 12, horizon: int = 7, targets: tuple[int, ...] = (2, 0), season: int = 5) -> DataSpec:
    return DataSpec(
        "made",
        Task.FORECASTING,
        Kind.SEQUENCE,
        (context, 3),
        horizon * len(targets),
        columns=(Column("a"), Column("b"), Column("c")),
        horizon=horizon,
        target_columns=targets,
        season=season,
    )


X = torch.randn(4, 12, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("model", "value"),
    [
        (last_value(spec()), lambda past, ahead: past[-1]),
        (seasonal_naive(spec()), lambda past, ahead: past[len(past) - 5 + ahead % 5]),
        (seasonal_naive(spec(), period=12), lambda past, ahead: past[ahead % 12]),
        (seasonal_naive(spec(), period=1), lambda past, ahead: past[-1]),
        (moving_average(spec()), lambda past, ahead: sum(past) / 12),
        (moving_average(spec(), window=3), lambda past, ahead: (past[-1] + past[-2] + past[-3]) / 3),
        (drift(spec()), lambda past, ahead: past[-1] + (ahead + 1) * (past[-1] - past[0]) / 11),
    ],
)
def test_forecasts_are_those_of_a_slow_loop(model, value):
    expected = [
        [value([float(x) for x in example[:, column]], ahead) for ahead in range(7) for column in (2, 0)]
        for example in X
    ]
    torch.testing.assert_close(model(X), torch.tensor(expected))
    assert model(X).is_contiguous()
    assert model(X.bfloat16()).dtype == torch.bfloat16
    assert not list(model.parameters())
    assert not model.state_dict()


def test_each_is_exact_where_it_should_be():
    time = torch.arange(19.0)
    line, wave = 3 * time - 2, torch.sin(2 * torch.pi * time / 5)
    series = torch.stack([line, wave, torch.full((19,), 4.0)], dim=1)[None]
    past, future = series[:, :12], series[:, 12:]
    torch.testing.assert_close(drift(spec(targets=(0, 2)))(past), future[:, :, [0, 2]].flatten(1))
    torch.testing.assert_close(seasonal_naive(spec(targets=(1, 2)))(past), future[:, :, [1, 2]].flatten(1))
    for model in (last_value, moving_average):
        torch.testing.assert_close(model(spec(targets=(2,)))(past), future[:, :, 2])


def test_forecasts_follow_the_scale_of_the_data():
    """Standardising inputs and undoing it in the outputs changes nothing, as no scale is part of a forecast."""
    mean, std = torch.tensor([3.0, -1.0, 10.0]), torch.tensor([2.0, 5.0, 0.1])
    for model in (last_value(spec()), seasonal_naive(spec()), moving_average(spec(), window=4), drift(spec())):
        back = model((X - mean) / std) * std[[2, 0]].repeat(7) + mean[[2, 0]].repeat(7)
        torch.testing.assert_close(back, model(X))


IRIS = DataSpec("iris", Task.CLASSIFICATION, Kind.VECTOR, (4,), 3)
VAGUE = DataSpec("own", Task.FORECASTING, Kind.SEQUENCE, (12, 3), 7)


@pytest.mark.parametrize("model", [last_value, seasonal_naive, moving_average, drift])
def test_what_is_no_forecast_is_refused(model):
    name = model.__name__
    with pytest.raises(ContractError, match=rf"model={name} forecasts series, but the task of data=iris is classific"):
        model(IRIS)
    with pytest.raises(ContractError, match=rf"model={name} must know what to forecast: .*data=own has horizon=0 and"):
        model(VAGUE)


def test_seasons_and_windows_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match=r"must know the season of data=made: give model.period in steps, or data.se"):
        seasonal_naive(spec(season=0))
    with pytest.raises(
        ConfigError, match=r"model.period of 13 steps is longer than the 12 that it sees; .*context=13 o"
    ):
        seasonal_naive(spec(), period=13)
    with pytest.raises(ConfigError, match=r"the season of 24 steps is longer than the 12 that it sees"):
        seasonal_naive(spec(season=24))
    with pytest.raises(ConfigError, match=r"model.window must be at most the 12 steps .* got 13"):
        moving_average(spec(), window=13)
    with pytest.raises(ContractError, match=r"model=drift draws a line through two steps, but data=made shows one"):
        drift(spec(context=1))
