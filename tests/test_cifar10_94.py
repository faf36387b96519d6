"""experiment=cifar10_94 has the rates of the record it follows, whose loss is a sum over 2000 images."""

import pytest

from dlrun import build
from dlrun.config.compose import compose
from dlrun.contracts import DataSpec, Kind, Task
from dlrun.engine.loaders import steps_in
from dlrun.models.whitened_cnn import whitened_cnn


@pytest.fixture(scope="module")
def config():
    return compose(["experiment=cifar10_94"]).config


@pytest.fixture(scope="module")
def model():
    return whitened_cnn(DataSpec("photos", Task.CLASSIFICATION, Kind.IMAGE, (3, 32, 32), 10))


def test_an_epoch_has_25_steps_as_50_000_images_in_batches_of_2000(config):
    left = 50_000 - round(50_000 * config["data"]["val_fraction"])
    assert steps_in(left, config["data"]["batch_size"], config["data"]["drop_last"]) == 25
    assert config["data"]["batch_size"] * 25 == left
    assert config["trainer"]["epochs"] == 8


def test_every_parameter_has_the_rate_of_the_record_at_every_step(config, model):
    """Those of airbench94_muon.py: `initial_lr * (1 - step / steps)`, steps being 75 for the bias of the whitening."""
    optimizer = build.build_optimizer(config, model)
    schedule = build.build_schedule(config, optimizer, total_steps=200, steps_per_epoch=25, higher_is_better=True)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    # The mean over a batch has 1/2000 of the gradient of the sum, and output.weight is 1/256 of the record's.
    peaks = {"conv": 0.24, "bias": 0.053 * 2000, "output": 0.67 * 2000 / 256**2}
    for step in range(200):
        rates = {names[id(p)]: group["lr"] for group in optimizer.param_groups for p in group["params"]}
        assert len(rates) == 1 + 6 + 6 + 1
        for name, rate in rates.items():
            peak = next(value for part, value in peaks.items() if part in name)
            left = max(1 - step / 75, 0) if name == "whitening.bias" else 1 - step / 200
            assert rate == pytest.approx(peak * left, rel=1e-8)
        schedule.step()


def test_a_step_takes_0_004_of_biases_and_output_and_nothing_of_convolutions(config, model):
    """The record's `wd = 2e-6 * 2000`, divided by each rate: MuonSGD's decay is relative to the rate at the start."""
    groups = build.build_optimizer(config, model).param_groups
    assert [group["weight_decay"] for group in groups if not group["hidden"]] == [0.004] * 3
    hidden = {id(p) for group in groups if group["hidden"] for p in group["params"]}
    assert hidden == {id(p) for name, p in model.named_parameters() if "conv" in name}
