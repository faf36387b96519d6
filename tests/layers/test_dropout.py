"""The kinds of dropout: what they drop, that the mean stays, that evaluation drops nothing."""

import pytest
import torch
from torch import nn

from dlrun.errors import ConfigError
from dlrun.layers.dropout import DropConnectConv2d, DropConnectLinear, linear, unit_dropout


def dropconnect_layers():
    torch.manual_seed(0)
    return {
        "linear": (DropConnectLinear(5, 3, p=0.4), nn.Linear(5, 3), torch.randn(2, 5)),
        "conv": (DropConnectConv2d(2, 3, 3, padding=1, p=0.4), nn.Conv2d(2, 3, 3, padding=1), torch.randn(2, 2, 4, 4)),
    }


@pytest.mark.parametrize("name", ["linear", "conv"])
def test_dropconnect_in_evaluation_is_the_plain_layer(name):
    layer, plain, x = dropconnect_layers()[name]
    plain.load_state_dict(layer.state_dict())
    assert torch.equal(layer.eval()(x), plain(x))


@pytest.mark.parametrize("name", ["linear", "conv"])
def test_the_mean_of_dropconnect_is_the_output_of_evaluation(name):
    layer, plain, x = dropconnect_layers()[name]
    draws = 4000
    layer, x = layer.double(), x.double()
    with torch.no_grad():
        outputs = torch.stack([layer(x) for _ in range(draws)])
        mean = layer.eval()(x)
        # The variance of Σ w x m / (1 - p) with m Bernoulli(1 - p) is p / (1 - p) · Σ (w x)².
        plain = plain.double()
        plain.weight.copy_(layer.weight.square())
        plain.bias.zero_()
        variance = 0.4 / 0.6 * plain(x.square())
    # Five standard errors; 96 numbers exceed them by chance once in 10,000 times. The seed is fixed.
    assert ((outputs.mean(0) - mean).abs() < 5 * (variance / draws).sqrt()).all()
    torch.testing.assert_close(outputs.var(0), variance, rtol=0.15, atol=0)


def test_dropconnect_drops_weights_and_not_inputs():
    torch.manual_seed(0)
    layer = DropConnectLinear(1, 10_000, bias=False, p=0.5)
    nn.init.ones_(layer.weight)
    output = layer(torch.ones(3, 1))
    assert set(output.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(output[0], output[1])  # one draw for the whole batch
    assert abs((output[0] == 0).double().mean() - 0.5) < 5 * (0.25 / 10_000) ** 0.5


def test_dropped_weights_get_no_gradient():
    torch.manual_seed(0)
    layer = DropConnectLinear(50, 50, p=0.5)
    layer(torch.ones(1, 50)).sum().backward()
    assert set(layer.weight.grad.unique().tolist()) == {0.0, 2.0}


def test_alpha_dropout_keeps_mean_and_variance_of_selu():
    torch.manual_seed(0)
    x = nn.SELU()(torch.randn(1_000_000))  # SELU maps a standard normal to mean 0 and variance 1
    drop = unit_dropout("alpha", 0.3, "selu")
    y = drop(x)
    assert (y != x).any()
    assert abs(x.mean()) < 0.005
    assert abs(y.mean()) < 0.005
    assert abs(x.var() - 1) < 0.01
    assert abs(y.var() - 1) < 0.01
    assert torch.equal(drop.eval()(x), x)


def test_standard_dropout_zeroes_and_rescales():
    torch.manual_seed(0)
    drop = unit_dropout("standard", 0.2, "relu")
    y = drop(torch.ones(10_000))
    assert set(y.unique().tolist()) == {0.0, 1.25}
    assert abs((y == 0).double().mean() - 0.2) < 5 * (0.2 * 0.8 / 10_000) ** 0.5


def test_nothing_is_built_that_would_do_nothing():
    assert unit_dropout("standard", 0.0, "relu") is None
    assert unit_dropout("dropconnect", 0.5, "relu") is None
    assert type(linear(3, 4, True, "dropconnect", 0.0)) is nn.Linear
    assert type(linear(3, 4, True, "alpha", 0.5)) is nn.Linear
    assert isinstance(linear(3, 4, True, "dropconnect", 0.5), DropConnectLinear)


def test_alpha_dropout_without_selu_is_refused():
    with pytest.raises(ConfigError, match=r"dropout_kind=alpha.*model.activation is relu: choose .*selu"):
        unit_dropout("alpha", 0.1, "relu")
