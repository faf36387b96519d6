"""Stochastic depth, against its expectation, the linear rule by hand, and torchvision's."""

import pytest
import torch
import torchvision

from dlrun.errors import ConfigError
from dlrun.layers.stochastic_depth import StochasticDepth, linear_drops


def test_evaluation_is_the_identity():
    branch = torch.randn(3, 2)
    assert StochasticDepth(0.9).eval()(branch) is branch
    assert StochasticDepth(0.0)(branch) is branch


def test_an_example_is_dropped_whole_or_scaled_whole():
    torch.manual_seed(0)
    drop = StochasticDepth(0.25)
    ratio = drop(torch.ones(200, 3, 2, 2))
    assert torch.equal(ratio, ratio[:, :1, :1, :1].expand_as(ratio))
    assert set(ratio.flatten().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}


def test_the_mean_over_draws_is_the_output_of_evaluation():
    torch.manual_seed(0)
    ones = torch.ones(100_000, 1)
    # The standard error is sqrt(p / (1 - p) / n) = .0026; five of them are exceeded once in 1.7 million seeds.
    assert StochasticDepth(0.4)(ones).mean().item() == pytest.approx(1.0, abs=0.013)


def test_it_draws_as_torchvision_does():
    branch = torch.randn(64, 3, 4, 4)
    torch.manual_seed(3)
    ours = StochasticDepth(0.5)(branch)
    torch.manual_seed(3)
    torch.testing.assert_close(ours, torchvision.ops.stochastic_depth(branch, 0.5, mode="row"))


def test_the_linear_rule_by_hand():
    # Survival of 4 blocks down to .5: 1 - l/4 · .5 = .875, .75, .625, .5
    assert [1 - drop for drop in linear_drops(0.5, 4)] == [0.875, 0.75, 0.625, 0.5]


@pytest.mark.parametrize("probability", [-0.1, 1.0])
def test_impossible_probabilities_are_refused(probability):
    with pytest.raises(ConfigError, match=rf"must be in \[0, 1\), got {probability}"):
        StochasticDepth(probability)
