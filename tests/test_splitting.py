"""Splits: stratified, seeded, disjoint, and every statistic from the training split alone."""

import pytest
import torch

from dlrun import splitting
from dlrun.contracts import Arrays, Column, DataSpec, Kind, Splits, Task
from dlrun.errors import ConfigError, DataError
from dlrun.examples import Padded

COUNTS = (100, 60, 23)


def classes(seed: int = 0) -> Splits:
    """Vectors whose first feature is the example's own number."""
    targets = torch.cat([torch.full((count,), i) for i, count in enumerate(COUNTS)])
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(targets), generator=generator)
    inputs = torch.stack([torch.arange(len(targets)).float(), torch.randn(len(targets), generator=generator)], 1)
    spec = DataSpec(
        "toy", Task.CLASSIFICATION, Kind.VECTOR, (2,), 3, ("a", "b", "c"), columns=(Column("n"), Column("x"))
    )
    return Splits(Arrays(inputs, targets[order]), spec)


def numbers(examples: Arrays) -> set[int]:
    return set(examples.inputs[:, 0].int().tolist())


def complete(**options: object) -> Splits:
    return splitting.complete(classes(), **{"normalize": False, **options})


def test_the_splits_are_disjoint_complete_and_stratified_within_one():
    done = complete(val_fraction=0.1, test_fraction=0.2)
    parts = [numbers(part) for part in (done.train, done.val, done.test)]
    assert set.union(*parts) == set(range(183))
    assert sum(map(len, parts)) == 183
    assert [len(done.test), len(done.val)] == [37, 15]
    for i, count in enumerate(COUNTS):
        assert abs(int((done.test.targets == i).sum()) - 37 * count / 183) <= 1
        assert abs(int((done.val.targets == i).sum()) - 15 * count / 183) <= 1.5


def test_split_seed_alone_decides():
    assert numbers(complete().test) == numbers(complete().test)
    assert numbers(complete().test) != numbers(complete(split_seed=1).test)


def test_validation_may_come_from_test_and_leaves_train_whole():
    plain, done = complete(test_fraction=0.4), complete(test_fraction=0.4, val_from="test", val_fraction=0.5)
    assert numbers(done.train) == numbers(plain.train) | numbers(plain.val)
    assert numbers(done.val) | numbers(done.test) == numbers(plain.test)
    assert not numbers(done.val) & numbers(done.test)
    for i in range(3):
        assert abs(int((done.val.targets == i).sum()) - int((done.test.targets == i).sum())) <= 1


def test_a_random_split_is_not_stratified_and_coin_flips_vary_in_size_too():
    stratified, drawn = complete(val_fraction=0.5), [complete(val_fraction=0.5, split="random") for _ in range(2)]
    assert numbers(drawn[0].val) == numbers(drawn[1].val)
    assert [len(drawn[0].train), len(drawn[0].val)] == [len(stratified.train), len(stratified.val)]
    flipped = [complete(val_fraction=0.5, split="coin_flips", split_seed=seed) for seed in range(200)]
    for done in flipped:
        parts = [numbers(part) for part in (done.train, done.val, done.test)]
        assert set.union(*parts) == set(range(183))
        assert sum(map(len, parts)) == 183
    # Test is a share of 0.2, and validation half of the rest: binomial, n = 183, p = 0.2 and 0.4, so that the means of
    # 200 lie within 4 standard errors.
    for sizes, p in (([len(done.test) for done in flipped], 0.2), ([len(done.val) for done in flipped], 0.4)):
        error = (p * (1 - p) * 183 / 200) ** 0.5
        assert abs(sum(sizes) / 200 - p * 183) < 4 * error
        assert len(set(sizes)) > 10
    of_class = {
        int((complete(val_fraction=0.5, split="random", split_seed=s).val.targets == 0).sum()) for s in range(20)
    }
    assert len(of_class) > 3
    with pytest.raises(DataError, match=r"data.split=coin_flips with a share of 0.001 of the .* data.split=random"):
        complete(val_fraction=0.001, split="coin_flips")
    with pytest.raises(ConfigError, match=r"coin_flips makes no folds"):
        complete(folds=3, split="coin_flips")


def test_validation_comes_from_one_place():
    with pytest.raises(ConfigError, match=r"data.val_from=test: data=toy is cut into data.folds=3; set .*=train"):
        complete(val_from="test", folds=3)
    own = splitting.complete(classes())
    with pytest.raises(ConfigError, match=r"data.val_from=test: data=toy brings its own validation split"):
        splitting.complete(own, val_from="test")


def test_folds_partition_the_training_examples_and_are_stratified():
    folds = [complete(folds=5, fold=k) for k in range(5)]
    validation = [numbers(done.val) for done in folds]
    assert sum(map(len, validation)) == len(set.union(*validation)) == 183 - 37
    assert max(map(len, validation)) - min(map(len, validation)) <= 1
    for i in range(3):
        sizes = [int((done.val.targets == i).sum()) for done in folds]
        assert max(sizes) - min(sizes) <= 1
    assert all(numbers(done.test) == numbers(folds[0].test) for done in folds)


def test_limit_thins_the_training_split_only():
    whole, thin = complete(), complete(limit=30)
    assert len(thin.train) == 30
    assert numbers(thin.train) < numbers(whole.train)
    assert numbers(thin.val) == numbers(whole.val)
    assert len(complete(limit=0.5).train) == round(len(whole.train) / 2)
    assert (torch.bincount(thin.train.targets) - torch.tensor([16.4, 9.8, 3.8])).abs().max() <= 1


def test_label_noise_replaces_exactly_the_share_by_other_classes():
    clean, noisy = complete(), complete(label_noise=0.25)
    assert numbers(clean.train) == numbers(noisy.train)
    changed = clean.train.targets != noisy.train.targets
    assert int(changed.sum()) == round(0.25 * len(clean.train))
    assert torch.equal(clean.test.targets, noisy.test.targets)


def test_label_noise_reaches_padded_texts_too():
    tokens, lengths = torch.ones(50, 3, dtype=torch.int32), torch.full((50,), 3)
    spec = DataSpec("texts", Task.CLASSIFICATION, Kind.TOKENS, (3,), 2, vocabulary_size=2)
    noisy = splitting.with_label_noise(
        Padded(tokens, torch.zeros(50, dtype=torch.int64), lengths), spec, 0.2, torch.Generator().manual_seed(0)
    )
    assert int(noisy.targets.sum()) == 10
    assert noisy.lengths is lengths


def test_imbalance_by_class_name_and_as_a_long_tail():
    before = torch.bincount(complete().train.targets)
    cut = torch.bincount(complete(imbalance={"a": 0.05, 1: 0.5}).train.targets)
    assert cut.tolist() == [round(0.05 * int(before[0])), round(0.5 * int(before[1])), int(before[2])]
    tail = torch.bincount(complete(imbalance=100.0).train.targets)
    assert tail.tolist() == [int(before[0]), round(int(before[1]) / 10), max(1, round(int(before[2]) / 100))]
    with pytest.raises(ConfigError, match=r"no class 'd', only a, b, c"):
        complete(imbalance={"d": 0.1})


def test_statistics_come_from_the_training_split_alone():
    done = splitting.complete(classes())
    raw = complete()
    expected = raw.train.inputs.double()
    mean, std = expected.mean(0), expected.std(0, correction=0)
    for ours, theirs in ((done.train, raw.train), (done.test, raw.test)):
        assert torch.allclose(ours.inputs.double(), (theirs.inputs.double() - mean) / std, atol=1e-5)
    assert done.spec.columns[1].mean == pytest.approx(float(mean[1]))
    assert done.spec.mean == ()


def test_image_statistics_equal_numpy_on_the_training_images():
    images = torch.randint(0, 256, (50, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    spec = DataSpec("toy", Task.CLASSIFICATION, Kind.IMAGE, (3, 4, 4), 2)
    done = splitting.complete(Splits(Arrays(images, torch.arange(50) % 2), spec))
    train = done.train.inputs.numpy().astype("float64") / 255
    assert done.spec.mean == pytest.approx(train.mean((0, 2, 3)).tolist(), rel=1e-9)
    assert done.spec.std == pytest.approx(train.std((0, 2, 3)).tolist(), rel=1e-9)
    assert done.train.inputs.dtype == torch.uint8


def test_regression_targets_are_standardised_and_can_be_brought_back():
    targets = torch.randn(60, 1, generator=torch.Generator().manual_seed(0)) * 40 + 150
    spec = DataSpec("toy", Task.REGRESSION, Kind.VECTOR, (2,), 1)
    raw = Splits(Arrays(torch.randn(60, 2), targets), spec)
    done = splitting.complete(raw)
    assert abs(float(done.train.targets.mean())) < 1e-5
    assert float(done.train.targets.std(correction=0)) == pytest.approx(1, abs=1e-5)
    parts = [
        part.targets * done.spec.target_std[0] + done.spec.target_mean[0] for part in (done.train, done.val, done.test)
    ]
    assert torch.allclose(torch.cat(parts).sort(0).values, targets.sort(0).values, atol=1e-3)
    with pytest.raises(ConfigError, match="needs class labels"):
        splitting.complete(raw, label_noise=0.1)


def test_fingerprint_changes_with_one_pixel_one_label_or_another_split():
    base = splitting.fingerprint(complete())
    assert base == splitting.fingerprint(complete())
    assert base != splitting.fingerprint(complete(split_seed=1))
    assert base != splitting.fingerprint(complete(label_noise=0.01))
    changed = complete()
    changed.test.inputs[0, 0] += 1
    assert base != splitting.fingerprint(changed)


def test_too_few_examples_are_refused():
    spec = DataSpec("toy", Task.CLASSIFICATION, Kind.VECTOR, (2,), 2)
    with pytest.raises(DataError, match="2 training examples"):
        splitting.complete(Splits(Arrays(torch.zeros(2, 2), torch.tensor([0, 1])), spec))


def test_a_bootstrap_draws_with_replacement_by_its_own_seed():
    plain, one, same, other = (complete(bootstrap=seed) for seed in (None, 1, 1, 2))
    assert len(one.train) == len(plain.train)
    drawn = numbers(one.train)
    assert drawn < numbers(plain.train)
    # 1 - 1/e of the examples are drawn, ± 4 standard deviations of about 0.49 / sqrt(N)
    share = len(drawn) / len(plain.train)
    assert abs(share - 0.632) < 4 * 0.31 / len(plain.train) ** 0.5
    assert torch.equal(one.train.inputs, same.train.inputs)
    assert not torch.equal(one.train.inputs, other.train.inputs)
    assert torch.equal(one.val.inputs, plain.val.inputs)


def test_reconstruction_wants_numbers():
    spec = complete(reconstruct=True).spec
    assert (spec.task, spec.num_outputs, spec.class_names) == (Task.RECONSTRUCTION, spec.num_features, ())
    with pytest.raises(ConfigError, match="has tokens"):
        splitting.reconstruction(DataSpec("text", Task.CLASSIFICATION, Kind.TOKENS, (5,), 2))


def test_constant_features_are_centred_and_small_ones_scaled():
    def part(third: float) -> Arrays:
        values = torch.arange(12.0) - third
        return Arrays(torch.stack([values, values * 1e-9, torch.full((12,), third)], 1), values[:, None] * 1e-9)

    spec = DataSpec("toy", Task.REGRESSION, Kind.VECTOR, (3,), 1)
    done = splitting.complete(Splits(part(0.1), spec, part(1.1), part(1.1)))
    assert torch.allclose(done.train.inputs[:, 0], done.train.inputs[:, 1])
    assert torch.allclose(done.train.targets[:, 0], done.train.inputs[:, 0])
    assert torch.allclose(done.train.inputs[:, 2], torch.zeros(12), atol=1e-7)
    assert torch.allclose(done.val.inputs[:, 2], torch.ones(12))
    assert splitting.channel_statistics(torch.full((3, 1, 2, 2), 7, dtype=torch.uint8)) == ((7 / 255,), (1.0,))
