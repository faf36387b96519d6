"""Long-range data against their closed forms; sequential MNIST against the images it comes from."""

import math

import pytest
import torch

from dlrun.contracts import Arrays, Batch, DataSpec, Kind, Splits, Task
from dlrun.data import sequential_mnist as module
from dlrun.data.long_range import adding, sequence_mean
from dlrun.data.sequential_mnist import sequential_mnist
from dlrun.engine.loaders import Preparation
from dlrun.splitting import complete


@pytest.mark.parametrize("marks", ["halves", "anywhere"])
@pytest.mark.parametrize("length", [2, 3, 40])
def test_two_steps_are_marked_and_their_sum_is_the_target(marks: str, length: int):
    train = adding(samples=2000, length=length, marks=marks, seed=0).train
    assert train.inputs.shape == (2000, length, 2)
    numbers, marked = train.inputs.unbind(2)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert set(marked.unique().tolist()) <= {0.0, 1.0}
    assert (marked.sum(1) == 2).all()
    torch.testing.assert_close(train.targets, (numbers * marked).sum(1, keepdim=True), rtol=0, atol=1e-6)
    if marks == "halves":
        assert (marked[:, : length // 2].sum(1) == 1).all()


@pytest.mark.parametrize("marks", ["halves", "anywhere"])
def test_marks_are_spread_evenly(marks: str):
    train = adding(samples=20_000, length=10, marks=marks, seed=0).train
    share = train.inputs[:, :, 1].mean(0)  # 2 of 10 steps, with a standard error of 0.0028
    torch.testing.assert_close(share, torch.full((10,), 0.2), rtol=0, atol=0.014)


def test_to_say_the_mean_of_the_adding_problem_errs_by_a_sixth():
    splits = adding(samples=20_000, length=20, marks="halves", seed=0)
    targets = splits.train.targets
    # The variance of a sum of two uniform numbers; its squared deviation has variance 7/180, five standard errors.
    assert (targets - 1).square().mean().item() == pytest.approx(1 / 6, abs=0.007)
    done = complete(splits, normalize=False)
    assert done.spec.target_std[0] == pytest.approx(math.sqrt(1 / 6), abs=0.01)
    assert done.spec.target_mean[0] == pytest.approx(1, abs=0.02)
    assert done.train.inputs[:, :, 0].min() >= 0  # left as they are
    assert done.train.targets.std(correction=0).item() == pytest.approx(1, abs=1e-4)


def test_the_mean_of_a_sequence_is_known_up_to_its_noise():
    train = sequence_mean(samples=20_000, length=20, noise=0.1, seed=0).train
    x, y = train.inputs[:, :, 0].double(), train.targets.double()
    assert y.var().item() == pytest.approx(1 / 20 + 0.1**2, rel=0.05)
    weight = torch.linalg.lstsq(x, y).solution
    torch.testing.assert_close(weight, torch.full((20, 1), 0.05, dtype=torch.float64), rtol=0, atol=0.004)
    assert (x @ weight - y).square().mean().item() == pytest.approx(0.01, rel=0.05)  # five standard errors


def test_seed_decides_the_data_and_the_global_generator_does_not():
    for make in (
        lambda seed: adding(samples=50, length=9, marks="anywhere", seed=seed).train,
        lambda seed: sequence_mean(samples=50, length=9, noise=0.1, seed=seed).train,
    ):
        torch.manual_seed(0)
        first, again, other = make(3), make(3), make(4)
        assert torch.equal(first.inputs, again.inputs)
        assert torch.equal(first.targets, again.targets)
        assert not torch.equal(first.inputs, other.inputs)
        assert torch.equal(torch.rand(1), torch.rand(1, generator=torch.Generator().manual_seed(0)))


@pytest.fixture
def digits(monkeypatch: pytest.MonkeyPatch) -> Splits:
    """A small MNIST, which `sequential_mnist` then reads."""
    generator = torch.Generator().manual_seed(0)

    def made(count: int) -> Arrays:
        images = torch.randint(0, 256, (count, 1, 28, 28), dtype=torch.uint8, generator=generator)
        return Arrays(images, torch.arange(count) % 10)

    spec = DataSpec("mnist", Task.CLASSIFICATION, Kind.IMAGE, (1, 28, 28), 10, tuple("0123456789"))
    splits = Splits(made(100), spec, test=made(30))
    monkeypatch.setattr(module, "mnist", lambda *, root, download: splits)
    return splits


def pixels(permutation_seed: int | None, normalize: bool) -> Splits:
    made = sequential_mnist(root="", download=False, permutation_seed=permutation_seed, normalize=normalize)
    return complete(made, normalize=normalize)


@pytest.mark.parametrize("normalize", [True, False])
def test_pixels_are_the_images_of_mnist_row_by_row(normalize: bool, digits: Splits):
    ours, images = pixels(None, normalize), complete(digits, normalize=normalize)
    prepare = Preparation(images.spec, (), 0, torch.device("cpu"))
    for part in ("train", "val", "test"):
        examples = getattr(images, part)
        expected = prepare(Batch(examples.inputs, examples.targets), 0)
        batch = getattr(ours, part).take(torch.arange(len(examples)))
        torch.testing.assert_close(batch.inputs, expected.inputs.reshape(-1, 784, 1), rtol=1e-5, atol=1e-5)
        assert torch.equal(batch.targets, examples.targets)  # the same splits, stratified
    assert ours.spec.shape == (784, 1)
    assert ours.spec.mean == pytest.approx(images.spec.mean, rel=1e-6)
    assert ours.spec.std == pytest.approx(images.spec.std, rel=1e-6)
    assert ours.train.nbytes == len(ours.train) * (784 + 8)  # bytes, not floats


def test_one_permutation_is_that_of_all_images(digits: Splits):
    plain, permuted, again, other = (pixels(seed, True) for seed in (None, 0, 0, 1))
    order = torch.randperm(784, generator=torch.Generator().manual_seed(0))
    for part in ("train", "test"):
        index = torch.arange(20)
        straight, mixed, same, different = (
            getattr(splits, part).take(index).inputs for splits in (plain, permuted, again, other)
        )
        assert torch.equal(mixed, straight[:, order])
        assert torch.equal(mixed, same)
        assert not torch.equal(mixed, different)
