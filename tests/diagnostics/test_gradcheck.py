"""Gradients beside finite differences: right ones pass, wrong ones do not."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dlrun.config.compose import compose
from dlrun.diagnostics.gradcheck import TOLERANCE, check_gradients, gradcheck
from dlrun.reproduction.measures.gradient_check import WrongTanh


def check(activation):
    torch.manual_seed(0)
    layer, output = nn.Linear(4, 6).double(), nn.Linear(6, 1).double()
    x = torch.randn(8, 4, dtype=torch.float64)
    model = nn.Sequential(layer, output)
    generator = torch.Generator().manual_seed(0)
    return check_gradients(model, lambda: output(activation(layer(x))).square().mean(), generator, 10)


def test_a_wrong_backward_is_caught_where_it_is():
    found = {item.name: item for item in check(WrongTanh.apply)}
    assert not found["0.weight"].passes(TOLERANCE)
    assert not found["0.bias"].passes(TOLERANCE)
    assert found["1.weight"].passes(TOLERANCE)  # above the wrong step
    assert all(item.passes(TOLERANCE) for item in check(torch.tanh))


def test_where_only_kinks_are_nothing_has_been_checked():
    def at_zero():
        model = nn.Linear(1, 1, bias=False).double()
        nn.init.zeros_(model.weight)
        x = torch.ones(1, 1, dtype=torch.float64)
        return check_gradients(model, lambda: F.relu(model(x)).sum(), torch.Generator(), 5)[0]

    item = at_zero()
    assert (item.coordinates, item.kinks) == (0, 1)
    assert math.isnan(item.error)
    assert not item.passes(TOLERANCE)  # nothing was checked


@pytest.mark.parametrize(
    "words",
    [
        ["model=mlp", "model.norm=batch", "model.dropout=0.5"],
        ["model=cnn", "loss=cross_entropy", "loss.label_smoothing=0.1"],
    ],
)
def test_a_configurations_gradients_agree(words: list[str]):
    composed = compose(["data=digits", *words])
    found = gradcheck(composed.config, coordinates=3, norm="train")
    assert all(item.passes(TOLERANCE) for item in found), found
    assert all(item.difference != 0 for item in found)
