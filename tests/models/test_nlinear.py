"""NLinear against a slow loop, and the shift that it must not feel."""

import pytest
import torch

from dlrun.contracts import Column, DataSpec, Kind, Task
from dlrun.errors import ContractError
from dlrun.models.nlinear import nlinear

SPEC = DataSpec(
    "made",
    Task.FORECASTING,
    Kind.SEQUENCE,
    (12, 3),
    10,
    columns=(Column("a"), Column("b"), Column("c")),
    horizon=5,
    target_columns=(2, 0),
)
X = torch.randn(4, 12, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("subtract_last", [True, False])
def test_every_series_is_mapped_alike_and_by_itself(subtract_last: bool):
    torch.manual_seed(0)
    model = nlinear(SPEC, subtract_last=subtract_last)
    weight, bias = model.parameters()
    expected = torch.empty(4, 5, 2)
    for i, column in enumerate((2, 0)):
        past = X[:, :, column]
        level = past[:, -1:] if subtract_last else torch.zeros(4, 1)
        expected[:, :, i] = (past - level) @ weight.T + bias + level
    torch.testing.assert_close(model(X), expected.flatten(1))
    assert sum(p.numel() for p in model.parameters()) == (12 + 1) * 5


def test_a_change_of_level_changes_the_forecast_by_as_much():
    model = nlinear(SPEC)
    torch.testing.assert_close(model(X + 100), model(X) + 100, rtol=1e-5, atol=1e-4)


def test_what_is_no_forecast_is_refused():
    iris = DataSpec("iris", Task.CLASSIFICATION, Kind.VECTOR, (4,), 3)
    with pytest.raises(
        ContractError, match="model=nlinear forecasts series, but the task of data=iris is classificatio"
    ):
        nlinear(iris)
