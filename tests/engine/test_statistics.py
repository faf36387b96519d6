import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from dlrun.contracts import Batch
from dlrun.engine.precision import choose_precision
from dlrun.engine.statistics import EvaluateAverage, recompute_statistics
from dlrun.optim.averaging import StochasticWeightAverage

FP32 = choose_precision("fp32", torch.device("cpu"))


def test_recomputed_statistics_are_torchs_for_equal_batches():
    ours = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.BatchNorm1d(108))
    theirs = copy.deepcopy(ours)
    inputs = torch.randn(24, 2, 8, 8)
    update_bn(inputs.split(8), theirs)
    ours.eval()
    recompute_statistics(ours, [Batch(part, part) for part in inputs.split(8)], FP32)
    for a, b in zip(ours.buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(a, b)
    assert not any(m.training for m in ours.modules())
    assert ours[1].momentum == 0.1


@pytest.mark.parametrize("size", [4, 5, 11, 24, 23])
def test_the_recomputed_mean_is_that_of_all_examples_whatever_the_batches(size):
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5))
    inputs = 3 * torch.randn(24, 3) + 1
    state = torch.get_rng_state()
    recompute_statistics(model, [Batch(part, part) for part in inputs.split(size)], FP32)
    assert torch.equal(state, torch.get_rng_state())  # dropout is off
    expected = inputs[:23] if size == 23 else inputs  # a batch of one has no variance and is left out
    torch.testing.assert_close(model[0].running_mean, expected.mean(0))


class Rows:
    """Data in batches."""

    def __init__(self, inputs: torch.Tensor) -> None:
        self.inputs, self.batch_size, self.said = inputs, len(inputs), []
        self.warn = self.said.append

    def batches(self) -> list[Batch]:
        return [Batch(part, part) for part in self.inputs.split(self.batch_size)]


class Roomy(nn.Sequential):
    """Takes eight examples at a time, and of more it reads the statistics before it gives up."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs = super().forward(inputs)
        if len(inputs) > 8:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return outputs


def test_statistics_are_measured_in_batches_that_fit():
    inputs = 3 * torch.randn(24, 3) + 1
    average = StochasticWeightAverage(Roomy(nn.BatchNorm1d(3)), start=1, every=1)
    average.update()
    rows = Rows(inputs)
    assert EvaluateAverage(lambda model: {}, average, lambda: rows, FP32)(average.module) == {}
    assert [rows.batch_size, len(rows.said)] == [6, 2]
    norm = average.module[0]
    torch.testing.assert_close(norm.running_mean, inputs.mean(0))
    assert [norm.momentum, norm.training] == [0.1, False]


def test_frozen_norms_keep_their_statistics_in_an_average():
    live = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 3), nn.BatchNorm1d(3))
    average = StochasticWeightAverage(live, start=1, every=1)
    live[0].eval()  # as dlrun.engine.freezing leaves a module that does not learn
    average.update()
    inputs = 3 * torch.randn(24, 3) + 1
    means = EvaluateAverage(
        lambda model: {"0": float(model[0].running_mean.abs().sum()), "2": float(model[2].running_mean.abs().sum())},
        average, lambda: Rows(inputs), FP32,
    )(average.module)  # fmt: skip
    assert means["0"] == 0
    assert means["2"] > 0
