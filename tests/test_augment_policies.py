"""RandAugment and TrivialAugment: each operation against torchvision's, and what every augmentation promises."""

import pytest
import scipy.stats
import torch
from torchvision.transforms import InterpolationMode, RandAugment, TrivialAugmentWide
from torchvision.transforms.autoaugment import _apply_op
from torchvision.transforms.v2 import functional as TF

from dlrun.augment import policies
from dlrun.augment.operations import OPERATIONS, tone, tone_everywhere, warp, warp_everywhere
from dlrun.augment.policies import STANDARD, WIDE, apply, draw
from dlrun.contracts import Batch, DataSpec, Kind, Task
from dlrun.errors import ContractError

IMAGES = DataSpec("some", Task.CLASSIFICATION, Kind.IMAGE, (3, 20, 27), 4, mean=(0.2, 0.5, 0.7))
PARTS = {"randaugment": policies.RandAugment, "trivialaugment": policies.TrivialAugment}
THEIR_NAMES = {"autocontrast": "AutoContrast"}
DTYPES = [torch.uint8, torch.float32, torch.bfloat16, torch.float64]
SPACES = {
    "standard": (STANDARD, RandAugment()._augmentation_space(31, (20, 27))),
    "wide": (WIDE, TrivialAugmentWide()._augmentation_space(31)),
}
MOVES = OPERATIONS[1:6]
# Half of 32 pixels is 15.999999 to torchvision, which cuts it to 15; a quarter turn of 20x27 ends between two pixels.
ON_THE_EDGE = {("wide", "translate_x"): 15, ("wide", "translate_y"): 15, ("wide", "rotate"): 20}
TONES = OPERATIONS[6:]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(count=64, dtype=torch.uint8, shape=(3, 20, 27)):
    """Smooth pictures with a little noise, of various ranges, as photographs have them."""
    coarse = torch.rand(count, shape[0], 4, 5, generator=generator(9))
    smooth = torch.nn.functional.interpolate(coarse, shape[1:], mode="bilinear")
    drawn = (smooth * 0.8 + 0.2 * torch.rand(count, *shape, generator=generator(8))).clamp(0, 0.999)
    return (drawn * 256).byte() if dtype == torch.uint8 else drawn.to(dtype)


def theirs(image, name, bin_, sign, space):
    label = THEIR_NAMES.get(name, "".join(part.capitalize() for part in name.split("_")))
    values, signed = space[label]
    magnitude = float(values[bin_]) if values.ndim else 0.0
    magnitude = magnitude * sign if signed else magnitude
    if image.is_floating_point() and name in ("posterize", "equalize", "solarize"):
        # The older functions that _apply_op calls take bytes only, and its magnitudes are meant for bytes.
        match name:
            case "posterize":
                return TF.posterize(image, int(magnitude))
            case "equalize":
                return TF.equalize(image)
            case "solarize":
                return TF.solarize(image, magnitude / 255)
    return _apply_op(image, label, magnitude, InterpolationMode.NEAREST, None)


def ours(before, name, levels, space):
    operation = torch.full((len(before),), OPERATIONS.index(name))
    return apply(before, operation, levels, space, "zero", (), generator())


def test_the_list_is_torchvisions():
    labels = {THEIR_NAMES.get(name, "".join(part.capitalize() for part in name.split("_"))) for name in OPERATIONS}
    assert labels == set(SPACES["standard"][1]) == set(SPACES["wide"][1])


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("name", MOVES)
def test_moves_are_torchvisions(name, space):
    ranges, their_space = SPACES[space]
    before = images(62)
    bins, signs = torch.arange(62) % 31, torch.arange(62) // 31 * 2 - 1
    after = ours(before, name, signs * bins / 30, ranges)
    pairs = zip(before, bins.tolist(), signs.tolist(), strict=True)
    expected = torch.stack([theirs(image, name, bin_, sign, their_space) for image, bin_, sign in pairs])
    wrong = (after != expected).flatten(1).double().mean(1)[bins != ON_THE_EDGE.get((space, name))]
    # Some pixels come from right between two others: then rounding decides.
    assert wrong.max() < 0.04
    assert wrong.mean() < 0.003
    assert torch.equal(after[bins == 0], before[bins == 0])


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
@pytest.mark.parametrize("shape", [(3, 20, 27), (1, 20, 27)], ids=["colour", "grey"])
@pytest.mark.parametrize("name", TONES)
def test_tones_are_torchvisions(name, shape, dtype, space):
    ranges, their_space = SPACES[space]
    before = images(62, dtype, shape)
    bins, signs = torch.arange(62) % 31, torch.arange(62) // 31 * 2 - 1
    after = ours(before, name, signs * bins / 30, ranges)
    pairs = zip(before, bins.tolist(), signs.tolist(), strict=True)
    expected = torch.stack([theirs(image, name, bin_, sign, their_space) for image, bin_, sign in pairs])
    # torchvision cuts bytes off where we round them.
    atol = 1 if dtype == torch.uint8 else 1e-5
    if name in ("posterize", "equalize"):
        torch.testing.assert_close(after, expected, rtol=0, atol=0 if dtype == torch.uint8 else 1e-6)
    elif name == "solarize":
        assert (after != expected).double().mean() < 0.001  # a value on the threshold itself
    else:
        assert (after.double() - expected.double()).abs().max() <= atol


def test_bytes_are_rounded_to_the_nearest():
    grey = torch.full((1, 1, 4, 4), 100, dtype=torch.uint8)
    assert ours(grey, "brightness", torch.tensor([0.2 / 0.9]), STANDARD).unique().tolist() == [120]
    assert ours(grey, "brightness", torch.tensor([0.207 / 0.9]), STANDARD).unique().tolist() == [121]


@pytest.mark.parametrize("name", ["autocontrast", "equalize"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
def test_images_of_one_value_stay_as_they_are(name, dtype):
    flat = torch.full((2, 3, 8, 8), 77, dtype=torch.uint8) if dtype == torch.uint8 else torch.full((2, 3, 8, 8), 0.3)
    assert torch.equal(ours(flat, name, torch.zeros(2), STANDARD), flat)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_each_image_is_changed_by_its_own_operation_alone(dtype):
    before = images(14, dtype)
    everything = apply(before, torch.arange(14), torch.full((14,), 0.7), STANDARD, "zero", (), generator())
    assert torch.equal(everything[0], before[0])
    for i, name in enumerate(OPERATIONS):
        alone = ours(before[i : i + 1], name, torch.tensor([0.7]), STANDARD)
        assert torch.equal(everything[i : i + 1], alone)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_all_images_through_all_operations_are_each_through_its_own(dtype):
    """The way of devices that must not be waited for gives the bits of the way of the CPU."""
    before, operation = images(140, dtype), torch.arange(140) % 14
    level = torch.linspace(-1, 1, 140)
    assert torch.equal(tone_everywhere(before, operation, level, WIDE), tone(before, operation, level, WIDE))
    for one, other in zip(
        warp_everywhere(before, operation, level, WIDE), warp(before, operation, level, WIDE), strict=True
    ):
        assert torch.equal(one, other)


def test_numbers_outside_the_range_are_left_alone_by_what_does_not_change_them():
    noisy = 2 * torch.randn(14, 3, 20, 27)
    level = torch.full((14,), 0.5)
    assert torch.equal(tone(noisy, torch.arange(14) % 6, level, STANDARD), noisy)
    moved, outside = warp(noisy, torch.full((14,), 6), level, STANDARD)
    assert torch.equal(moved, noisy)
    assert not outside.any()


@pytest.mark.parametrize(("how", "expected"), [("zero", [0, 0, 0]), ("mean", [51, 128, 178])])
def test_what_comes_in_is_filled(how, expected):
    white = torch.full((1, 3, 20, 27), 255, dtype=torch.uint8)
    operation = torch.tensor([OPERATIONS.index("translate_x")])
    after = apply(white, operation, torch.tensor([1.0]), STANDARD, how, IMAGES.mean, generator())
    assert after[0, :, 5, 0].tolist() == expected
    assert after[0, :, 5, 12].tolist() == [255] * 3  # 27 · 150 / 331 = 12.2


def test_operations_signs_and_levels_are_drawn_evenly():
    operation, sign, level = draw(31_000, generator())
    for drawn, count in ((operation, 14), ((sign + 1) // 2, 2), ((level * 30).round().long(), 31)):
        frequencies = torch.bincount(drawn, minlength=count)
        assert len(frequencies) == count
        # The fixed seed passes; a fair one fails once in 10,000.
        assert scipy.stats.chisquare(frequencies).pvalue > 1e-4
    corr = torch.corrcoef(torch.stack([operation.double(), sign.double(), level.double()]))
    assert (corr - torch.eye(3)).abs().max() < 5 / 31_000**0.5


def test_randaugment_is_its_operations_in_succession():
    before = Batch(images(), torch.zeros(64))
    after = policies.RandAugment(IMAGES, operations=3, magnitude=20)(before, generator(4)).inputs
    source, expected = generator(4), before.inputs
    for _ in range(3):
        operation, sign, _ = draw(64, source)
        expected = apply(expected, operation, sign * (20 / 30), STANDARD, "zero", (), source)
    assert torch.equal(after, expected)


def test_magnitude_zero_leaves_all_but_autocontrast_equalize_and_posterize_of_eight_bits():
    before = images()
    after = policies.RandAugment(IMAGES, operations=1, magnitude=0)(Batch(before, torch.zeros(64)), generator(2)).inputs
    operation, _, _ = draw(64, generator(2))
    same = (after == before).flatten(1).all(1)
    assert same[operation < 10].all()
    assert not same[operation == OPERATIONS.index("equalize")].any()


@pytest.mark.parametrize(("strength", "space"), [("wide", WIDE), ("standard", STANDARD)])
def test_trivialaugment_is_one_operation_at_a_random_level(strength, space):
    before = Batch(images(), torch.zeros(64))
    after = policies.TrivialAugment(IMAGES, strength=strength)(before, generator(4)).inputs
    operation, sign, level = draw(64, generator(4))
    assert torch.equal(after, apply(before.inputs, operation, sign * level, space, "zero", (), generator()))


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("how", ["zero", "noise"])
def test_the_seed_decides_and_shape_dtype_and_the_original_are_kept(name, dtype, how):
    before = Batch(images(dtype=dtype), torch.arange(64))
    kept, state = before.inputs.clone(), torch.get_rng_state()
    one, two, other = (PARTS[name](IMAGES, fill=how)(before, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(one.inputs, two.inputs)
    assert not torch.equal(one.inputs, other.inputs)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(before.inputs, kept)
    assert one.inputs.shape == kept.shape
    assert one.inputs.dtype == dtype
    assert torch.equal(one.targets, before.targets)


@pytest.mark.parametrize("name", PARTS)
def test_images_do_not_depend_on_one_another_and_each_has_its_own(name):
    same = images(1).expand(64, -1, -1, -1).contiguous()
    part = PARTS[name](IMAGES)
    after = part(Batch(same, torch.zeros(64)), generator()).inputs
    assert len(after.flatten(1).unique(dim=0)) > 20
    mixed = torch.cat((same[:1], images(64)[1:]))
    assert torch.equal(part(Batch(mixed, torch.zeros(64)), generator()).inputs[0], after[0])


@pytest.mark.parametrize("name", PARTS)
def test_the_number_of_draws_depends_on_the_shape_alone(name):
    ends = []
    for inputs in (images(), torch.zeros_like(images())):
        source = generator()
        PARTS[name](IMAGES, fill="noise")(Batch(inputs, torch.zeros(64)), source)
        ends.append(source.get_state())
    assert torch.equal(*ends)


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
def test_nothing_waits_for_the_device(name, dtype, monkeypatch):
    def refuse(*_):
        raise AssertionError("a host read")

    # As on any device but the CPU.
    monkeypatch.setattr(policies, "tone", tone_everywhere)
    monkeypatch.setattr(policies, "warp", warp_everywhere)
    part, data = PARTS[name](IMAGES, fill="mean"), Batch(images(dtype=dtype), torch.zeros(64))
    for method in ("item", "tolist", "__bool__", "__float__", "__int__", "__index__", "nonzero"):
        monkeypatch.setattr(torch.Tensor, method, refuse)
    part(data, generator())


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 2, 5), (4, 3, 3)])
def test_small_images_and_other_numbers_of_channels_pass(name, shape):
    spec = DataSpec("tiny", Task.CLASSIFICATION, Kind.IMAGE, shape, 2)
    after = PARTS[name](spec)(Batch(torch.rand(64, *shape), torch.zeros(64)), generator()).inputs
    assert after.isfinite().all()
    assert ((after >= 0) & (after <= 1)).all()


@pytest.mark.parametrize("name", PARTS)
def test_what_needs_images_says_so(name):
    wine = DataSpec("wine", Task.CLASSIFICATION, Kind.VECTOR, (13,), 3)
    with pytest.raises(ContractError, match=rf"augment={name} changes images .* data=wine gives vectors"):
        PARTS[name](wine)
