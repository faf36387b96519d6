"""The CNN and LeNet-5, against counts from the paper and the same network written out."""

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from dlrun.contracts import DataSpec, Kind, Task
from dlrun.errors import ConfigError, ContractError
from dlrun.layers.separable import DepthwiseSeparable
from dlrun.models.cnn import cnn

CONF = Path(__file__).parents[2] / "conf" / "model"
MNIST = DataSpec("mnist", Task.CLASSIFICATION, Kind.IMAGE, (1, 28, 28), 10)
CIFAR = DataSpec("cifar10", Task.CLASSIFICATION, Kind.IMAGE, (3, 32, 32), 10)
DIGITS = DataSpec("digits", Task.CLASSIFICATION, Kind.IMAGE, (1, 8, 8), 10)
MOONS = DataSpec("moons", Task.CLASSIFICATION, Kind.VECTOR, (2,), 2)


def options(name):
    settings = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    assert settings.pop("_target_") == "dlrun.models.cnn.cnn"
    return settings


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def test_lenet5_has_the_parameters_of_the_textbook():
    # 6·(25+1) + 16·(6·25+1) + 120·(400+1) + 84·(120+1) + 10·(84+1)
    assert parameters(cnn(MNIST, **options("lenet5"))) == 61_706


def test_lenet5_is_the_textbook_network():
    torch.manual_seed(0)
    model = cnn(MNIST, **options("lenet5"))
    x = torch.randn(3, 1, 28, 28)
    c1, d1, c3, d3, c5, d5, f6, d6, w, b = model.parameters()
    h = F.avg_pool2d(torch.tanh(F.conv2d(x, c1, d1, padding=2)), 2)
    h = F.avg_pool2d(torch.tanh(F.conv2d(h, c3, d3)), 2)
    h = torch.tanh(F.linear(torch.tanh(F.linear(h.flatten(1), c5, d5)), f6, d6))
    torch.testing.assert_close(model(x), F.linear(h, w, b))


def test_the_default_is_conv_pool_norm_relu():
    torch.manual_seed(0)
    settings = options("cnn")
    model = cnn(MNIST, **settings).eval()
    h = torch.randn(3, 1, 28, 28)
    expected = h
    for i in range(1, len(settings["channels"]) + 1):
        conv, norm = model.get_submodule(f"conv{i}"), model.get_submodule(f"norm{i}")
        assert conv.bias is None
        expected = torch.relu(norm(F.max_pool2d(F.conv2d(expected, conv.weight, padding=1), 2)))
    torch.testing.assert_close(model(h), model.output(expected.flatten(1)))


@pytest.mark.parametrize("pool", ["max", "avg", "stride", "none"])
@pytest.mark.parametrize("reduce", ["flatten", "mean", "max"])
@pytest.mark.parametrize("padding", ["same", "valid", [1, 0]])
def test_every_combination_fits_odd_images(pool, reduce, padding):
    spec = DataSpec("odd", Task.CLASSIFICATION, Kind.IMAGE, (3, 17, 22), 5)
    model = cnn(spec, channels=[4, 6], convs_per_stage=2, padding=padding, pool=pool, reduce=reduce, head_widths=[7])
    outputs = model(torch.randn(2, 3, 17, 22))
    assert outputs.shape == (2, 5)
    outputs.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_reduce_mean_does_not_see_where():
    model = cnn(CIFAR, channels=[4], kernel_size=1, norm="none", pool="none", reduce="mean")
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model(x.flip(3)), model(x))


def test_dropout_stands_before_each_linear_layer():
    names = [name for name, _ in cnn(MNIST, channels=[2], head_widths=[5], dropout=0.1).named_children()]
    assert names[-5:] == ["dropout1", "linear1", "head_activation1", "dropout2", "output"]


def test_no_module_of_no_effect_is_built():
    names = [name for name, _ in cnn(MNIST, channels=[2], norm="none", activation="identity").named_children()]
    assert names == ["conv1", "pool1", "flatten", "output"]


def test_a_bias_only_where_no_norm_replaces_it():
    assert cnn(MNIST, norm="batch").conv1.bias is None
    assert cnn(MNIST, norm="layer").conv1.bias is not None


def test_what_is_not_an_image_is_refused():
    with pytest.raises(ContractError, match=r"model=cnn reads images.*data=moons gives vectors of shape \(2,\)"):
        cnn(MOONS)


@pytest.mark.parametrize("pool", ["max", "avg"])
def test_images_too_small_are_refused_by_name(pool):
    assert cnn(DIGITS, channels=[4, 4, 4], pool=pool)(torch.randn(2, 1, 8, 8)).shape == (2, 10)
    with pytest.raises(ContractError, match=r"4 stages.*data=digits.*\(1, 8, 8\), after stage 4.*model.pool=none"):
        cnn(DIGITS, channels=[4, 4, 4, 4], pool=pool)
    with pytest.raises(ContractError, match=r"\(1, 8, 8\), after stage 2"):
        cnn(DIGITS, **options("lenet5") | {"padding": "valid"})


def test_paddings_that_do_not_go_together_are_refused():
    with pytest.raises(ConfigError, match=r"model.padding=\[1\] must have one entry for each of the 3"):
        cnn(MNIST, channels=[4, 4, 4], padding=[1])
    with pytest.raises(ConfigError, match=r"model.padding=same needs an odd model.kernel_size, got 4"):
        cnn(MNIST, kernel_size=4)


def test_weight_norm_starts_as_the_plain_network():
    x = torch.randn(2, 1, 28, 28)
    plain, normed = (seeded(norm=norm) for norm in ("none", "weight"))
    torch.testing.assert_close(normed(x), plain(x))
    assert parameters(normed) == parameters(plain) + 16 + 32 + 64


@pytest.mark.parametrize("kind", ["standard", "alpha", "spatial", "dropconnect"])
@pytest.mark.parametrize("separable", [False, True])
def test_every_kind_of_dropout_acts_only_in_training(kind, separable):
    x = torch.randn(2, 1, 28, 28)
    options = {"activation": "selu", "norm": "none", "head_widths": [20], "separable": separable}
    plain = seeded(**options)
    model = seeded(**options, dropout=0.3, dropout_kind=kind)
    assert list(model.state_dict()) == list(plain.state_dict())
    assert not torch.equal(model(x), plain(x))
    assert torch.equal(model.eval()(x), plain(x))


def test_spatial_dropout_zeroes_whole_channels_after_each_stage():
    torch.manual_seed(0)
    model = cnn(MNIST, channels=[40, 50], head_widths=[5], dropout=0.5, dropout_kind="spatial")
    names = [name for name, _ in model.named_children()]
    assert names[4:6] == ["channel_dropout1", "conv2"]
    assert [name for name in names if "dropout" in name] == ["channel_dropout1", "channel_dropout2", "dropout2"]
    images = torch.rand(3, 40, 4, 4) + 1
    kept = model.channel_dropout1(images) / images
    assert set(kept.unique().round(decimals=4).tolist()) == {0.0, 2.0}
    assert ((kept == 0).sum((2, 3)) % 16 == 0).all()


def test_dropconnect_spares_the_output():
    model = cnn(MNIST, channels=[4], head_widths=[5], dropout=0.5, dropout_kind="dropconnect")
    kinds = [type(model.get_submodule(name)).__name__ for name in ("conv1", "linear1", "output")]
    assert kinds == ["DropConnectConv2d", "DropConnectLinear", "Linear"]


def test_alpha_dropout_without_selu_is_refused():
    with pytest.raises(ConfigError, match=r"dropout_kind=alpha.*model.activation is relu"):
        cnn(MNIST, dropout=0.1, dropout_kind="alpha")


@pytest.mark.parametrize(("channels", "kernel_size"), [(256, 3), (64, 5)])
def test_separable_convolutions_take_the_share_of_the_textbook(channels, kernel_size):
    """1/N + 1/K² of the multiply-adds; with 256 channels and 3x3 that is .115."""
    images = torch.zeros(1, 16, 8, 8, device="meta")
    full = nn.Conv2d(16, channels, kernel_size, padding=kernel_size // 2, device="meta")
    separable = DepthwiseSeparable(16, channels, kernel_size, padding=kernel_size // 2).to("meta")
    assert multiply_adds(separable, images) / multiply_adds(full, images) == pytest.approx(
        1 / channels + 1 / kernel_size**2
    )


def test_separable_starts_with_the_variance_of_a_full_convolution():
    torch.manual_seed(0)
    x = torch.randn(4, 64, 12, 12)
    full, separable = nn.Conv2d(64, 64, 3, padding=1), DepthwiseSeparable(64, 64, 3, padding=1)
    assert separable(x).var().item() == pytest.approx(full(x).var().item(), rel=0.15)


def test_separable_is_two_convolutions():
    torch.manual_seed(0)
    model = cnn(CIFAR, channels=[4, 8], norm="none", pool="stride", separable=True)
    x = torch.randn(2, 3, 32, 32)
    h = x
    for i, groups in ((1, 3), (2, 4)):
        depthwise, pointwise = model.get_submodule(f"conv{i}")
        h = F.conv2d(h, depthwise.weight, stride=2, padding=1, groups=groups)
        h = torch.relu(F.conv2d(h, pointwise.weight, pointwise.bias))
    torch.testing.assert_close(model(x), model.output(h.flatten(1)))


@pytest.mark.parametrize("attention", ["se", "cbam"])
def test_attention_gates_the_end_of_each_stage(attention):
    model = cnn(MNIST, channels=[4, 6], attention=attention, attention_reduction=2)
    names = [name for name, _ in model.named_children()]
    assert names[3:6] == ["activation1", "attention1", "conv2"]
    h = torch.rand(2, 4, 5, 5)
    assert (model.attention1(h) < h).all()
    model(torch.randn(2, 1, 28, 28)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def multiply_adds(model, x):
    with FlopCounterMode(display=False) as counter:
        model(x)
    return counter.get_total_flops() / 2


def seeded(**options):
    torch.manual_seed(0)
    return cnn(MNIST, **options)
