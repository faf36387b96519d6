"""ResNets: torchvision's outputs with its weights, the papers' parameter counts, and each option by its definition."""

from functools import partial
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.nn import functional as F
from torchvision.models import get_model
from torchvision.models.resnet import Bottleneck, ResNet

from dlrun.contracts import DataSpec, Kind, Task
from dlrun.errors import ConfigError, ContractError
from dlrun.initialisation import zero_last_norm
from dlrun.layers.residual_block import ResidualBlock
from dlrun.layers.stochastic_depth import StochasticDepth
from dlrun.models.resnet import resnet

CONF = Path(__file__).parents[2] / "conf" / "model"
IMAGENET = DataSpec("imagenet", Task.CLASSIFICATION, Kind.IMAGE, (3, 224, 224), 1000)
CIFAR = DataSpec("cifar10", Task.CLASSIFICATION, Kind.IMAGE, (3, 32, 32), 10)
DIGITS = DataSpec("digits", Task.CLASSIFICATION, Kind.IMAGE, (1, 8, 8), 10)
MNIST = DataSpec("mnist", Task.CLASSIFICATION, Kind.IMAGE, (1, 28, 28), 10)
MOONS = DataSpec("moons", Task.CLASSIFICATION, Kind.VECTOR, (2,), 2)
TINY = {"blocks": [1, 2], "width": 8, "stem_width": 8}


def options(name):
    settings = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    assert settings.pop("_target_") == "dlrun.models.resnet.resnet"
    return settings


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def blocks(model):
    return [module for module in model.modules() if isinstance(module, ResidualBlock)]


def with_random_norms(model):
    """Norms whose scales, shifts and statistics all matter."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            for tensor in (module.bias, module.running_mean):
                nn.init.normal_(tensor, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model


def copied(theirs, ours):
    """`ours` with the weights of `theirs`: both name them in the order in which they are used."""
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    return ours


@pytest.mark.parametrize(
    ("name", "changes", "reference", "millions"),
    [
        ("resnet18", {}, "resnet18", 11.69),
        ("resnet34", {}, "resnet34", 21.80),
        ("resnet50", {}, "resnet50", 25.56),
        ("resnet101", {}, "resnet101", 44.55),
        ("resnet152", {}, "resnet152", 60.19),
        ("resnext50", {}, "resnext50_32x4d", 25.03),
        ("resnet50", {"inner_width": 128}, "wide_resnet50_2", 68.88),
    ],
)
def test_the_parameters_of_torchvision(name, changes, reference, millions):
    with torch.device("meta"):
        ours = resnet(IMAGENET, **options(name) | changes)
        theirs = get_model(reference, weights=None)
    assert [p.shape for p in ours.parameters()] == [p.shape for p in theirs.parameters()]
    assert round(parameters(ours) / 1e6, 2) == millions


@pytest.mark.parametrize(
    ("name", "changes", "count"),
    [
        ("resnet20", {}, 269_722),  # .27 M, He et al. 2015, table 6
        ("resnet20", {"blocks": [5, 5, 5]}, 464_154),  # .46 M, 32 layers
        ("resnet20", {"blocks": [7, 7, 7]}, 658_586),  # .66 M, 44 layers
        ("resnet56", {}, 853_018),  # .85 M
        ("resnet110", {}, 1_727_962),  # 1.7 M
        ("wide_resnet28_10", {}, 36_479_194),  # 36.5 M, Zagoruyko & Komodakis 2016, table 4
    ],
)
def test_the_published_parameter_counts_on_cifar(name, changes, count):
    with torch.device("meta"):
        assert parameters(resnet(CIFAR, **options(name) | changes)) == count


@pytest.mark.parametrize(
    ("name", "changes", "reference"),
    [
        ("resnet18", {}, partial(get_model, "resnet18")),
        ("resnet50", {}, partial(get_model, "resnet50")),
        ("resnext50", {}, partial(get_model, "resnext50_32x4d")),
        # wide_resnet50_2 with one block a stage: the whole takes seconds to draw.
        (
            "resnet50",
            {"inner_width": 128, "blocks": [1] * 4},
            partial(ResNet, Bottleneck, [1] * 4, width_per_group=128),
        ),
    ],
)
def test_torchvisions_outputs_with_torchvisions_weights(name, changes, reference):
    torch.manual_seed(0)
    theirs = with_random_norms(reference()).eval()
    with torch.device("meta"):
        ours = resnet(IMAGENET, **options(name) | changes | {"stem": "imagenet"})
    ours = copied(theirs, ours.to_empty(device="cpu")).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected, outputs = theirs(x), ours(x)
    # Outputs may be thousands, such are the random norms: 1e-5 of their scale.
    torch.testing.assert_close(outputs / expected.std(), expected / expected.std(), rtol=1e-5, atol=1e-5)


def test_timms_outputs_of_resnet_d_with_timms_weights():
    timm = pytest.importorskip("timm", reason="timm is an extra")
    torch.manual_seed(0)
    theirs = timm.create_model("resnet50d", layers=[1, 1, 1, 1])
    theirs = with_random_norms(theirs).eval()
    ours = resnet(IMAGENET, **options("resnet50d") | {"blocks": [1] * 4, "stem": "imagenet"})
    ours = copied(theirs, ours).eval()
    x = torch.randn(2, 3, 70, 57)
    with torch.no_grad():
        expected, outputs = theirs(x), ours(x)
    torch.testing.assert_close(outputs / expected.std(), expected / expected.std(), rtol=1e-5, atol=1e-5)


def test_resnet50d_has_the_published_number_of_parameters():
    with torch.device("meta"):
        assert parameters(resnet(IMAGENET, **options("resnet50d"))) == 25_576_264


def test_a_pre_activation_block_written_out():
    torch.manual_seed(0)
    model = with_random_norms(resnet(CIFAR, **TINY, preactivation=True)).eval()
    image = torch.randn(2, 3, 32, 32)
    x = F.conv2d(image, model.stem.conv.weight, padding=1)
    for i, block in enumerate(blocks(model)):
        b = block.branch
        if i == 1:  # the shape changes: shortcut and branch share norm and activation
            h = x = F.relu(block.before.norm1(x))
            x = F.conv2d(x, block.shortcut.conv.weight, stride=2)
        else:
            h = F.relu(b.norm1(x))
        h = F.relu(b.norm2(b.conv1(h)))
        x = x + b.conv2(h)
    expected = model.output(F.relu(model.norm(x)).mean((2, 3)))
    torch.testing.assert_close(model(image), expected)


def test_shortcut_zero_pad_keeps_every_other_pixel():
    x = torch.randn(2, 8, 5, 7)
    (_, second, _) = blocks(resnet(CIFAR, **TINY, shortcut="zero_pad"))
    assert torch.equal(second.shortcut(x)[:, :8], x[:, :, ::2, ::2])
    assert not second.shortcut(x)[:, 8:].any()


def test_shortcut_average_uses_every_pixel_of_odd_images():
    (first, second, _) = blocks(resnet(CIFAR, **TINY, shortcut="average").eval())
    assert isinstance(first.shortcut, nn.Identity)
    x = torch.arange(9.0).reshape(1, 1, 3, 3)
    assert second.shortcut.pool(x).flatten().tolist() == [2.0, 3.5, 6.5, 8.0]
    x = torch.randn(1, 8, 7, 5)
    assert second.shortcut(x).shape == second.branch(x).shape


@pytest.mark.parametrize(
    ("size", "stem", "expected"), [(95, "auto", 95), (96, "auto", 24), (95, "imagenet", 24), (96, "cifar", 96)]
)
def test_the_stem_follows_the_size(size, stem, expected):
    spec = DataSpec("photos", Task.CLASSIFICATION, Kind.IMAGE, (3, size, 128), 2)
    with torch.device("meta"):
        assert resnet(spec, stem=stem).stem(torch.empty(1, *spec.shape)).shape[2] == expected


def test_the_deep_stem_is_three_small_convolutions():
    stem = resnet(IMAGENET, **TINY, deep_stem=True).stem
    assert [m.weight.shape for m in stem if isinstance(m, nn.Conv2d)] == [(4, 3, 3, 3), (4, 4, 3, 3), (8, 4, 3, 3)]
    assert stem(torch.randn(1, 3, 33, 64)).shape == (1, 8, 9, 16)


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
@pytest.mark.parametrize("preactivation", [False, True])
@pytest.mark.parametrize(
    ("norm", "attention"), [("batch", "none"), ("none", "se"), ("layer", "cbam"), ("weight", "none")]
)
def test_zero_init_makes_blocks_the_identity_and_they_learn(block, preactivation, norm, attention):
    torch.manual_seed(0)
    settings = {"block": block, "preactivation": preactivation, "norm": norm, "attention": attention}
    model = resnet(CIFAR, **TINY, **settings, zero_init=True)
    x = torch.rand(2, blocks(model)[-1].branch.conv1.in_channels, 8, 8)
    assert torch.equal(blocks(model)[-1](x), x)
    model(torch.randn(2, 3, 32, 32)).square().sum().backward()
    for made in blocks(model):
        last_conv = made.branch.conv3 if block == "bottleneck" else made.branch.conv2
        silent = getattr(made.branch, "last_norm", last_conv)
        assert not silent.weight.any()
        scale = silent.parametrizations.weight.original0 if norm == "weight" else silent.weight
        assert scale.grad.any()


def test_init_zero_last_norm_does_the_same():
    torch.manual_seed(0)
    model = resnet(CIFAR, **TINY)
    zero_last_norm(model)
    x = torch.rand(2, 16, 8, 8)
    assert torch.equal(blocks(model)[-1](x), x)
    # A zeroed norm before relu would never learn, so pre-activation offers none.
    with pytest.raises(ConfigError, match="found no norm named"):
        zero_last_norm(resnet(CIFAR, **TINY, preactivation=True))


def test_stochastic_depth_rises_linearly_and_evaluation_is_its_mean():
    torch.manual_seed(0)
    model = resnet(DIGITS, blocks=[2, 2], width=4, stem_width=4, stochastic_depth=0.5)
    drops = [module.drop_probability for module in model.modules() if isinstance(module, StochasticDepth)]
    assert drops == [0.125, 0.25, 0.375, 0.5]
    last = blocks(model)[-1].eval()
    x = torch.rand(1, 8, 4, 4)
    branch = last.branch(x)
    last.drop.train()
    mean = last.drop(branch.expand(100_000, -1, -1, -1)).mean(0)
    # Survival .5: standard error of the mean of 0 or 2 is .0032; five of them are exceeded once in 1.7 million seeds.
    torch.testing.assert_close(mean, last.drop.eval()(branch)[0], rtol=0.016, atol=1e-6)


def test_dropout_stands_before_the_last_convolution():
    for preactivation in (False, True):
        model = resnet(CIFAR, **TINY, dropout=0.3, preactivation=preactivation)
        names = [name for name, _ in blocks(model)[0].branch.named_children()]
        assert names[names.index("conv2") - 1] == "dropout"


@pytest.mark.parametrize("spec", [DIGITS, MNIST, DataSpec("odd", Task.REGRESSION, Kind.IMAGE, (5, 3, 17), 2)])
@pytest.mark.parametrize("name", ["resnet20", "preact_resnet18", "resnet50d"])
def test_small_images_train(spec, name):
    torch.manual_seed(0)
    narrow = {"width": 8, "stem_width": 8, "blocks": [1] * len(options(name)["blocks"])}
    model = resnet(spec, **options(name) | narrow)
    outputs = model(torch.randn(3, *spec.shape))
    assert outputs.shape == (3, spec.num_outputs)
    outputs.square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("norm", ["none", "batch", "layer", "group", "instance", "rms", "weight"])
@pytest.mark.parametrize("preactivation", [False, True])
def test_every_norm_and_no_idle_bias(norm, preactivation):
    torch.manual_seed(0)
    model = resnet(CIFAR, **TINY, norm=norm, activation="silu", preactivation=preactivation)
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert all((conv.bias is None) == (norm in ("batch", "instance")) for conv in convolutions)
    model(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert all(p.grad.any() for p in model.parameters())


def test_weights_start_as_he_et_al_draw_them():
    torch.manual_seed(0)
    conv = blocks(resnet(CIFAR))[-1].branch.conv1
    # 512·512·9 draws: their standard deviation is within .03 % of sqrt(2 / (9·512)).
    assert conv.weight.std().item() == pytest.approx((2 / (9 * 512)) ** 0.5, rel=3e-3)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ContractError, match=r"model=resnet reads images.*data=moons gives vectors"):
        resnet(MOONS)
    with pytest.raises(ContractError, match=r"4 stages.*data=digits.*\(1, 8, 8\).*single pixel.*model.norm=instance"):
        resnet(DIGITS, norm="instance")
    with pytest.raises(ContractError, match=r"model.norm=group leaves nothing"):
        resnet(DIGITS, norm="group", width=4)
    with pytest.raises(ConfigError, match=r"model.groups=2.*write model.block=bottleneck"):
        resnet(CIFAR, groups=2)
    with pytest.raises(ConfigError, match=r"model.inner_width=64 must be a multiple of model.groups=3"):
        resnet(CIFAR, block="bottleneck", groups=3)
    with pytest.raises(ConfigError, match=r"model.shortcut=zero_pad.*model.stem_width=64 must be at most the 16"):
        resnet(CIFAR, shortcut="zero_pad", width=16)
