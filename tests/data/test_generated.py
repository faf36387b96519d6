import math

import pytest
import torch
from sklearn.datasets import make_blobs, make_circles, make_moons

from dlrun.data import generated

FACTORIES = {
    "moons": {},
    "circles": {"factor": 0.5},
    "spirals": {"classes": 3, "turns": 1.5},
    "xor": {},
    "blobs": {"classes": 4, "features": 3},
    "linear": {"features": 5, "outputs": 2},
}


@pytest.mark.parametrize("name", FACTORIES)
def test_seed_decides_the_data_and_the_global_generator_does_not(name: str):
    def make(seed: int):
        return getattr(generated, name)(samples=101, noise=0.1, seed=seed, **FACTORIES[name]).train

    torch.manual_seed(0)
    first, again, other = make(3), make(3), make(4)
    assert torch.equal(first.inputs, again.inputs)
    assert torch.equal(first.targets, again.targets)
    assert not torch.equal(first.inputs, other.inputs)
    assert len(first) == 101
    assert first.inputs.dtype == torch.float32
    assert torch.equal(torch.rand(1), torch.rand(1, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("name", ["moons", "circles", "spirals", "xor", "blobs"])
def test_spec_describes_the_arrays(name: str):
    splits = getattr(generated, name)(samples=120, noise=0.1, seed=0, **FACTORIES[name])
    assert splits.spec.name == name
    assert splits.spec.shape == splits.train.inputs.shape[1:]
    assert splits.train.targets.dtype == torch.int64
    assert splits.train.targets.unique().tolist() == list(range(splits.spec.num_outputs))


def test_moons_circles_and_blobs_are_sklearn_s():
    pairs = [
        (generated.moons(samples=50, noise=0.2, seed=7), make_moons(50, noise=0.2, random_state=7)),
        (
            generated.circles(samples=50, noise=0, factor=0.3, seed=7),
            make_circles(50, noise=0, factor=0.3, random_state=7),
        ),
        (
            generated.blobs(samples=50, classes=3, features=4, noise=2.0, seed=7),
            make_blobs(50, n_features=4, centers=3, cluster_std=2.0, random_state=7),
        ),
    ]
    for ours, (points, labels) in pairs:
        assert torch.equal(ours.train.inputs, torch.tensor(points, dtype=torch.float32))
        assert torch.equal(ours.train.targets, torch.tensor(labels))


def test_spiral_points_without_noise_lie_on_their_arm():
    splits = generated.spirals(samples=300, classes=3, turns=1.5, noise=0, seed=0)
    x, y = splits.train.inputs.double().T
    radius = (x**2 + y**2).sqrt()
    angle = 2 * math.pi * (1.5 * radius + splits.train.targets / 3)
    assert radius.max() <= 1
    torch.testing.assert_close(
        torch.stack([radius * angle.cos(), radius * angle.sin()]), torch.stack([x, y]), rtol=0, atol=1e-5
    )


def test_xor_without_noise_is_the_sign_of_the_product():
    train = generated.xor(samples=500, noise=0, seed=0).train
    assert torch.equal(train.targets, (train.inputs.prod(dim=1) < 0).long())


def test_least_squares_finds_linear_data_up_to_their_noise():
    train = generated.linear(samples=20_000, features=6, outputs=2, noise=0.5, seed=0).train
    design = torch.cat([train.inputs, torch.ones(len(train), 1)], dim=1).double()
    weight = torch.linalg.lstsq(design, train.targets.double()).solution
    mse = ((design @ weight - train.targets) ** 2).mean().item()
    assert mse == pytest.approx(0.25, rel=0.05)  # five standard deviations of the mean of 40,000 squares
