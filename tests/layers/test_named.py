"""Activations and norms, against torch and closed forms."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dlrun import layers
from dlrun.errors import ConfigError
from dlrun.layers import named


def test_every_activation_is_torchs_own():
    x = torch.linspace(-3, 3, 41)
    for name in named.ACTIVATIONS:
        expected = x if name == "identity" else getattr(F, name, getattr(torch, name, None))(x)
        assert torch.equal(layers.activation(name)(x), expected), name


def test_an_unknown_name_is_refused_with_a_suggestion():
    with pytest.raises(ConfigError, match=r"got 'rellu'\. Did you mean 'relu'\?"):
        layers.activation("rellu")
    with pytest.raises(ConfigError, match=r"one of none, batch.*got 'batchnorm'\. Did you mean 'batch'\?"):
        layers.norm("batchnorm", 4, 0)


@pytest.mark.parametrize("dims", [0, 1, 2])
@pytest.mark.parametrize("name", ["batch", "layer", "group", "instance", "rms"])
def test_a_norm_makes_its_own_axes_standard(name, dims):
    if name == "instance" and dims == 0:
        pytest.skip("refused, see below")
    torch.manual_seed(0)
    features = 64
    x = 3 * torch.randn(16, features, *[7] * dims, dtype=torch.float64) + 2
    y = layers.norm(name, features, dims).double()(x)
    positions = tuple(range(2, 2 + dims))
    groups = layers.num_groups(features, 1 if dims else 8)
    if name == "group":
        y = y.reshape(16, groups, -1)
    axes = {"batch": (0, *positions), "layer": (1, *positions), "group": (2,), "instance": positions, "rms": (1,)}[name]
    torch.testing.assert_close(y.square().mean(axes), torch.ones_like(y.mean(axes)), rtol=1e-4, atol=1e-4)
    if name != "rms":
        torch.testing.assert_close(y.mean(axes), torch.zeros_like(y.mean(axes)), rtol=0, atol=1e-9)


def test_channel_rms_norm_is_rms_norm_at_each_position():
    torch.manual_seed(0)
    x = torch.randn(3, 5, 4, 6)
    norm = layers.norm("rms", 5, 2)
    nn.init.normal_(norm.weight)
    expected = x / (x.square().mean(1, keepdim=True) + torch.finfo(x.dtype).eps).sqrt() * norm.weight[:, None, None]
    torch.testing.assert_close(norm(x), expected)


def test_every_norm_but_rms_and_none_has_scale_and_shift():
    for name in ("batch", "layer", "group", "instance"):
        norm = layers.norm(name, 8, 2)
        assert norm.weight.tolist() == [1.0] * 8
        assert norm.bias.tolist() == [0.0] * 8
    assert isinstance(layers.norm("none", 8, 2), nn.Identity)


def test_instance_norm_of_vectors_is_refused():
    with pytest.raises(ConfigError, match=r"norm=instance.*vector.*norm=layer"):
        layers.norm("instance", 8, 0)


@pytest.mark.parametrize(
    ("features", "smallest", "groups"),
    [(64, 1, 32), (16, 1, 16), (48, 1, 24), (37, 1, 1), (33, 1, 11), (256, 8, 32), (64, 8, 8), (6, 8, 1)],
)
def test_groups_divide_the_features(features, smallest, groups):
    assert layers.num_groups(features, smallest) == groups


def test_a_bias_is_idle_before_exactly_these_norms():
    torch.manual_seed(0)
    x, shift = torch.randn(8, 16, 5, 5), torch.randn(16, 1, 1)
    for name in ("batch", "layer", "group", "instance", "rms", "none"):
        # By default 16 features would be 16 groups, which is instance norm.
        norm = nn.GroupNorm(4, 16) if name == "group" else layers.norm(name, 16, 2)
        assert torch.allclose(norm(x), norm(x + shift), atol=1e-4) == layers.follows_shift(name), name


@pytest.mark.parametrize("make", [lambda: nn.Linear(6, 4), lambda: nn.Conv2d(6, 4, 3, groups=2)])
def test_weight_norm_starts_as_the_plain_layer_and_is_g_v_over_the_length_of_v(make):
    torch.manual_seed(0)
    plain = make()
    torch.manual_seed(0)
    (layer,) = layers.normed(make(), "weight", 4, 0)
    torch.testing.assert_close(layer.weight, plain.weight)
    g, v = layer.parametrizations.weight.original0, layer.parametrizations.weight.original1
    with torch.no_grad():
        g.fill_(2.0)
        v.mul_(7.0)
    torch.testing.assert_close(layer.weight.flatten(1).norm(dim=1), torch.full((4,), 2.0))
    torch.testing.assert_close(torch.cosine_similarity(layer.weight.flatten(1), plain.weight.flatten(1)), torch.ones(4))


def test_weight_norm_reaches_every_layer_of_a_module():
    (block,) = layers.normed(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3)), "weight", 3, 0)
    assert [name for name, _ in block.named_parameters() if name.endswith("original0")] == [
        "0.parametrizations.weight.original0",
        "2.parametrizations.weight.original0",
    ]


def test_normed_gives_the_layer_and_its_norm():
    layer = nn.Conv2d(3, 8, 3)
    assert layers.normed(layer, "none", 8, 2) == [layer]
    first, second = layers.normed(layer, "batch", 8, 2)
    assert first is layer
    assert isinstance(second, nn.BatchNorm2d)
    assert second.num_features == 8


def test_a_model_without_a_place_for_weight_norm_refuses_it():
    with pytest.raises(ConfigError, match=r"norm=weight normalises the weights.*choose norm=batch"):
        layers.norm("weight", 8, 2)
