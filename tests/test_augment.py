"""Augmentations against slow references, torchvision, closed forms and invariances."""

import dataclasses
import math

import pytest
import scipy.stats
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as TF

from dlrun import augment
from dlrun.augment.common import choose
from dlrun.augment.geometry import rotate, translate
from dlrun.augment.mixing import permutation, symmetric_beta
from dlrun.contracts import Batch, DataSpec, Kind, Task
from dlrun.errors import ConfigError, ContractError

IMAGES = DataSpec("some", Task.CLASSIFICATION, Kind.IMAGE, (3, 10, 13), 4, mean=(0.2, 0.5, 0.7))
VECTORS = DataSpec("wine", Task.CLASSIFICATION, Kind.VECTOR, (13,), 3)
NUMBERS = DataSpec("diabetes", Task.REGRESSION, Kind.VECTOR, (10,), 1)
TOKENS = DataSpec("text", Task.LANGUAGE_MODELLING, Kind.TOKENS, (64,), 65, vocabulary_size=65)

EVERY = {
    "translate": lambda spec: augment.Translate(spec),
    "flip": lambda spec: augment.Flip(spec),
    "rotation": lambda spec: augment.Rotation(spec),
    "erasing": lambda spec: augment.Erasing(spec),
    "cutout": lambda spec: augment.Cutout(spec, size=4),
    "noise": lambda spec: augment.Noise(spec),
    "mixup": lambda spec: augment.Mixup(spec),
    "cutmix": lambda spec: augment.CutMix(spec),
}
DTYPES = [torch.uint8, torch.float32, torch.bfloat16, torch.float64]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(count=64, dtype=torch.uint8, spec=IMAGES):
    drawn = torch.rand(count, *spec.shape, generator=generator(9))
    return (drawn * 256).byte() if dtype == torch.uint8 else drawn.to(dtype)


def batch(count=64, dtype=torch.uint8, spec=IMAGES):
    return Batch(images(count, dtype, spec), torch.arange(count) % spec.num_outputs)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_seed_decides_and_shape_dtype_and_the_original_are_kept(name, dtype):
    before = batch(dtype=dtype)
    kept = before.inputs.clone()
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one, two, other = (EVERY[name](IMAGES)(before, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(one.inputs, two.inputs)
    assert torch.equal(one.targets, two.targets)
    assert not torch.equal(one.inputs, other.inputs)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(before.inputs, kept)
    assert one.inputs.shape == kept.shape
    blends = name in ("noise", "mixup") and dtype == torch.uint8
    assert one.inputs.dtype == (torch.float32 if blends else dtype)


@pytest.mark.parametrize("name", EVERY)
def test_each_example_has_its_own_amounts(name):
    same = Batch(images(1).expand(64, -1, -1, -1).contiguous(), torch.arange(64) % 4)
    if name in ("mixup", "cutmix"):
        result = EVERY[name](IMAGES)(same, generator()).targets
    else:
        result = EVERY[name](IMAGES)(same, generator()).inputs
    assert len(result.flatten(1).unique(dim=0)) > (1 if name == "flip" else 20)


@pytest.mark.parametrize("name", EVERY)
def test_an_images_change_does_not_depend_on_the_other_images(name):
    if name in ("mixup", "cutmix"):
        pytest.skip("blends examples on purpose")
    one = batch()
    two = Batch(torch.cat((one.inputs[:1], images(64).flip(0)[1:])), one.targets)
    assert torch.equal(*(EVERY[name](IMAGES)(b, generator()).inputs[0] for b in (one, two)))


@pytest.mark.parametrize("name", EVERY)
def test_the_number_of_draws_depends_on_the_shape_alone(name):
    ends = []
    for inputs in (images(), torch.zeros_like(images())):
        source = generator()
        EVERY[name](IMAGES)(Batch(inputs, torch.arange(64) % 4), source)
        ends.append(source.get_state())
    assert torch.equal(*ends)


@pytest.mark.parametrize("name", EVERY)
def test_nothing_waits_for_the_device(name, monkeypatch):
    def refuse(*_):
        raise AssertionError("a host read")

    part, data = EVERY[name](IMAGES), batch()
    for method in ("item", "tolist", "__bool__", "__float__", "__int__", "__index__", "nonzero"):
        monkeypatch.setattr(torch.Tensor, method, refuse)
    part(data, generator())


@pytest.mark.parametrize("name", sorted(set(EVERY) - {"noise", "mixup"}))
def test_what_needs_images_says_so(name):
    with pytest.raises(
        ContractError, match=rf"augment={name} changes images .* data=wine gives vectors of shape \(13,\)"
    ):
        EVERY[name](VECTORS)


@pytest.mark.parametrize("name", ["noise", "mixup"])
def test_tokens_cannot_be_blended(name):
    with pytest.raises(ContractError, match=f"augment={name} .* data=text gives tokens"):
        EVERY[name](TOKENS)


def test_targets_that_cannot_be_blended_are_refused():
    with pytest.raises(ContractError, match=r"augment=mixup blends .* forecasting task"):
        augment.Mixup(dataclasses.replace(NUMBERS, task=Task.FORECASTING))


def test_inputs_of_several_tensors_are_refused():
    with pytest.raises(ContractError, match="one input tensor"):
        augment.Noise(IMAGES)(Batch((images(), images()), torch.zeros(64)), generator())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_translate_is_the_slow_shift(dtype):
    before = images(dtype=dtype)
    down, right = torch.randint(-3, 4, (2, 64), generator=generator())
    after = translate(before, down, right, 3)
    for i in range(64):
        expected = torch.zeros_like(before[i])
        for y in range(10):
            for x in range(13):
                if 0 <= y - down[i] < 10 and 0 <= x - right[i] < 13:
                    expected[:, y, x] = before[i, :, y - down[i], x - right[i]]
        assert torch.equal(after[i], expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
def test_translate_reflects_as_padding_does(dtype):
    before = images(dtype=dtype)
    down, right = torch.randint(-3, 4, (2, 64), generator=generator())
    after = translate(before, down, right, 3, "reflect")
    padded = torch.nn.functional.pad(before.float(), (3, 3, 3, 3), mode="reflect").to(dtype)
    for i, (y, x) in enumerate(zip(3 - down, 3 - right, strict=True)):
        assert torch.equal(after[i], padded[i, :, y : y + 10, x : x + 13])
    same = Batch(torch.full_like(before, 7), torch.zeros(64))
    assert (augment.Translate(IMAGES, max_shift=3, edge="reflect")(same, generator()).inputs == 7).all()
    assert (augment.Translate(IMAGES, max_shift=3)(same, generator()).inputs == 0).any()


def test_translate_reads_any_memory_layout():
    before, shift = images(), torch.tensor([2, -1] * 32)
    expected = translate(before, shift, -shift, 2)
    assert torch.equal(translate(before.to(memory_format=torch.channels_last), shift, -shift, 2), expected)
    assert torch.equal(translate(before.mT.contiguous().mT, shift, -shift, 2), expected)


def test_translate_takes_every_shift_about_equally_often():
    dots = torch.zeros(5000, 1, 9, 9, dtype=torch.uint8)
    dots[:, :, 4, 4] = 1
    spec = dataclasses.replace(IMAGES, shape=(1, 9, 9))
    moved = augment.Translate(spec, max_shift=2)(Batch(dots, torch.zeros(5000)), generator()).inputs
    counts = moved.sum(0)[0]
    assert counts.sum() == counts[2:7, 2:7].sum() == 5000
    # 200 expected in each of 25 cells; the fixed seed passes, a fair one fails once in 10,000.
    assert scipy.stats.chisquare(counts[2:7, 2:7].flatten().float()).pvalue > 1e-4


def test_translating_further_than_the_image_is_refused():
    with pytest.raises(ContractError, match=r"max_shift must be less than .*\(3, 10, 13\), got 10"):
        augment.Translate(IMAGES, max_shift=10)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_choose_is_where(dtype):
    one, other = images(dtype=dtype), images(dtype=dtype).flip(0)
    for shape in ((64, 1, 1, 1), (64, 1, 10, 13), (64, 3, 10, 13)):
        mask = torch.rand(shape, generator=generator()) < 0.5
        assert torch.equal(choose(mask, one, other), torch.where(mask, one, other))
        assert torch.equal(choose(mask, one[0, :, :1, :1], other), torch.where(mask, one[0, :, :1, :1], other))


@pytest.mark.parametrize(("axis", "dim"), [("horizontal", 3), ("vertical", 2)])
def test_flip_mirrors_about_half_and_twice_is_nothing(axis, dim):
    before = batch(1000)
    after = augment.Flip(IMAGES, axis=axis)(before, generator())
    mirrored = (after.inputs == before.inputs.flip(dim)).flatten(1).all(1)
    kept = (after.inputs == before.inputs).flatten(1).all(1)
    assert (mirrored ^ kept).all()
    assert 420 < mirrored.sum() < 580  # five standard deviations
    assert torch.equal(augment.Flip(IMAGES, axis=axis)(after, generator()).inputs, before.inputs)
    assert torch.equal(augment.Flip(IMAGES, p=0.0)(before, generator()).inputs, before.inputs)
    assert torch.equal(augment.Flip(IMAGES, p=1.0, axis=axis)(before, generator()).inputs, before.inputs.flip(dim))


def test_rotation_is_torchvisions():
    before = images(8, torch.float32)
    degrees = torch.tensor([-180.0, -90, -33, -1, 0, 12, 45, 90])
    expected = torch.stack(
        [TF.rotate(x, a.item(), InterpolationMode.BILINEAR) for x, a in zip(before, degrees, strict=True)]
    )
    torch.testing.assert_close(rotate(before, degrees), expected, atol=2e-4, rtol=0)


def test_quarter_turns_are_exact():
    square = images(4)[:, :, :, :10]
    assert torch.equal(rotate(square, torch.full((4,), 90.0)), square.rot90(1, (2, 3)))
    assert torch.equal(rotate(square, torch.full((4,), -90.0)), square.rot90(-1, (2, 3)))
    assert torch.equal(rotate(images(4), torch.full((4,), 180.0)), images(4).rot90(2, (2, 3)))
    assert torch.equal(rotate(images(4), torch.zeros(4)), images(4))


def test_rotation_stays_within_its_degrees():
    # A bright dot 40 pixels to the right of the centre moves by 40 sin(angle) pixels.
    spec = dataclasses.replace(IMAGES, shape=(1, 101, 101))
    dots = torch.zeros(200, 1, 101, 101)
    dots[:, :, 49:52, 89:92] = 1
    turned = augment.Rotation(spec, degrees=20.0)(Batch(dots, torch.zeros(200)), generator()).inputs
    rows = (turned.sum(3)[:, 0] * (torch.arange(101) - 50)).sum(1) / turned.sum((1, 2, 3))
    angles = torch.rad2deg(torch.asin(-rows / 40))
    assert angles.abs().max() < 20.1
    assert angles.max() > 19
    assert angles.min() < -19


@pytest.mark.parametrize("how", ["zero", "mean", "noise"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
def test_erasing_covers_one_rectangle_of_the_asked_size(how, dtype):
    before = Batch(torch.full((500, 3, 20, 30), 255 if dtype == torch.uint8 else 2.0, dtype=dtype), torch.zeros(500))
    spec = dataclasses.replace(IMAGES, shape=(3, 20, 30))
    part = augment.Erasing(spec, p=1.0, scale=(0.1, 0.5), ratio=(0.5, 2.0), fill=how)
    after = part(before, generator()).inputs
    changed = (after != before.inputs).any(1)
    for mask, image in zip(changed, after, strict=True):
        rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
        height, width = (int(at.max() - at.min()) + 1 for at in (rows, columns))
        if how != "noise":  # a random byte may be what was there
            assert mask.sum() == height * width
        # Half a pixel of rounding on each side.
        assert (height - 0.5) * (width - 0.5) <= 0.5 * 600
        assert (height + 0.5) * (width + 0.5) >= 0.1 * 600
        assert (height + 0.5) / (width - 0.5) >= 0.5
        assert (height - 0.5) / (width + 0.5) <= 2.0
        inside = image[:, mask]
        if how == "zero":
            assert not inside.any()
        elif how == "mean":
            expected = torch.tensor([51, 128, 178], dtype=dtype) if dtype == torch.uint8 else torch.tensor(spec.mean)
            assert (inside == expected[:, None]).all()
        elif dtype == torch.float32:
            assert ((inside >= 0) & (inside < 1)).all()


def test_erased_areas_are_uniform_and_half_the_images_are_spared():
    spec = dataclasses.replace(IMAGES, shape=(1, 100, 100))
    before = Batch(torch.ones(2000, 1, 100, 100), torch.zeros(2000))
    after = augment.Erasing(spec, p=0.5, scale=(0.0, 0.4), fill="zero")(before, generator()).inputs
    share = (after == 0).flatten(1).float().mean(1)
    erased = share[share > 0]
    assert 888 < len(erased) < 1112  # five standard deviations
    assert scipy.stats.kstest(erased, scipy.stats.uniform(0, 0.4).cdf).pvalue > 1e-4


def test_erasing_refuses_ranges_out_of_order():
    with pytest.raises(ConfigError, match=r"augment.erasing.scale must be \[smallest, largest\], got \[0.4, 0.1\]"):
        augment.Erasing(IMAGES, scale=(0.4, 0.1))


@pytest.mark.parametrize("size", [1, 4, 5])
def test_cutout_covers_a_square_that_may_hang_over(size):
    spec = dataclasses.replace(IMAGES, shape=(1, 10, 13))
    before = Batch(torch.ones(4000, 1, 10, 13), torch.zeros(4000))
    after = augment.Cutout(spec, size=size, fill="zero")(before, generator()).inputs
    covered = (after == 0)[:, 0]
    assert (covered.any(2).sum(1) <= size).all()
    assert (covered.any(1).sum(1) <= size).all()
    assert covered.any((1, 2)).all()
    # The share of centres that leave pixel (y, x) covered, exactly.
    centres = [
        sum(c - size // 2 <= at < c - size // 2 + size for c in range(n)) / n for n in (10, 13) for at in range(n)
    ]
    expected = torch.tensor(centres[:10])[:, None] * torch.tensor(centres[10:])
    assert (covered.float().mean(0) - expected).abs().max() < 5 * 0.5 / math.sqrt(4000)


def test_cutout_larger_than_the_image_is_refused():
    with pytest.raises(ContractError, match=r"augment.cutout.size must be at most .* got 11"):
        augment.Cutout(IMAGES, size=11)


def test_noise_is_normal_with_the_asked_spread():
    before = batch()
    difference = augment.Noise(IMAGES, std=0.3)(before, generator()).inputs - before.inputs.float() / 255
    assert scipy.stats.kstest(difference.flatten(), scipy.stats.norm(0, 0.3).cdf).pvalue > 1e-4
    vectors = Batch(torch.zeros(500, 13), torch.zeros(500, dtype=torch.int64))
    assert augment.Noise(VECTORS, std=2.0)(vectors, generator()).inputs.std().item() == pytest.approx(2.0, rel=0.05)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_lambda_is_beta_distributed(alpha):
    drawn = symmetric_beta(alpha, 20_000, generator())
    # In classes, as Beta(0.2, 0.2) has a percent or two of its mass where float32 rounds to 1.
    edges = torch.tensor(
        [0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1], dtype=torch.float64
    )
    counts = torch.histogram(drawn.double(), edges).hist
    shares = torch.from_numpy(scipy.stats.beta(alpha, alpha).cdf(edges)).diff()
    keep = shares > 1e-3
    assert scipy.stats.chisquare(counts[keep], shares[keep] / shares[keep].sum() * counts[keep].sum()).pvalue > 1e-4
    assert ((drawn >= 0) & (drawn <= 1)).all()


def test_extreme_alphas_give_no_nan():
    for alpha in (1e-3, 1e3):
        drawn = symmetric_beta(alpha, 100_000, generator())
        assert drawn.isfinite().all()
        assert drawn.mean().item() == pytest.approx(0.5, abs=0.01)


def test_permutation_holds_each_example_once():
    assert permutation(100, generator()).sort().values.tolist() == list(range(100))


def test_mixup_blends_inputs_and_targets_alike():
    """Inputs that are the one-hot targets must come out equal to the mixed targets."""
    classes = torch.arange(60) % 3
    inputs = torch.nn.functional.one_hot(classes, 13).float()
    mixed = augment.Mixup(VECTORS, alpha=1.0)(Batch(inputs, classes), generator())
    torch.testing.assert_close(mixed.inputs[:, :3], mixed.targets)
    torch.testing.assert_close(mixed.targets.sum(1), torch.ones(60))
    assert (mixed.targets > 0).sum(1).max() == 2


def test_mixup_of_regression_targets_is_the_convex_combination():
    inputs = torch.randn(50, 10, generator=generator(2))
    weights = torch.randn(10, 1, generator=generator(3))
    mixed = augment.Mixup(NUMBERS, alpha=1.0)(Batch(inputs, inputs @ weights), generator())
    torch.testing.assert_close(mixed.inputs @ weights, mixed.targets, atol=1e-5, rtol=1e-5)
    assert not torch.equal(mixed.inputs, inputs)


def test_mixup_then_cutmix_keeps_probabilities():
    mixed = augment.CutMix(IMAGES)(augment.Mixup(IMAGES)(batch(), generator()), generator(1))
    torch.testing.assert_close(mixed.targets.sum(1), torch.ones(64))
    assert (mixed.targets >= 0).all()


def test_cutmix_mixes_targets_by_the_exact_share_of_pixels():
    # Every pixel of an image holds its class, so the histogram of the mixed image is the target.
    classes = torch.arange(400) % 4
    before = Batch(classes[:, None, None, None].expand(400, 3, 10, 13).byte().contiguous(), classes)
    mixed = augment.CutMix(IMAGES)(before, generator())
    shares = torch.stack([(mixed.inputs == c).flatten(1).float().mean(1) for c in range(4)], dim=1)
    torch.testing.assert_close(mixed.targets, shares, atol=1e-6, rtol=0)
    assert mixed.inputs.dtype == torch.uint8
    # What is foreign is one rectangle.
    foreign = (mixed.inputs != before.inputs)[:, 0]
    assert (foreign.sum((1, 2)) == foreign.any(1).sum(1) * foreign.any(2).sum(1)).all()
    assert 200 < foreign.any(2).any(1).sum() < 380


def test_cutmix_spares_images_with_probability_one_minus_p():
    before = batch(1000)
    untouched = augment.CutMix(IMAGES, p=0.0)(before, generator())
    assert torch.equal(untouched.inputs, before.inputs)
    assert torch.equal(untouched.targets, torch.nn.functional.one_hot(before.targets, 4).float())
