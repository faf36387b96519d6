"""The MLP, against the same network written out with matrices."""

import pytest
import torch
from torch import nn

from dlrun.contracts import DataSpec, Kind, Task
from dlrun.errors import ConfigError, ContractError
from dlrun.models.mlp import Residual, mlp

VECTORS = DataSpec("wine", Task.CLASSIFICATION, Kind.VECTOR, (13,), 3)
IMAGES = DataSpec("mnist", Task.CLASSIFICATION, Kind.IMAGE, (1, 28, 28), 10)
SEQUENCES = DataSpec("waves", Task.REGRESSION, Kind.SEQUENCE, (20, 4), 2)
TOKENS = DataSpec("text", Task.CLASSIFICATION, Kind.TOKENS, (64,), 2, vocabulary_size=100)


def test_forward_is_the_formula():
    torch.manual_seed(0)
    model = mlp(IMAGES, widths=[32, 16], activation="tanh", norm="none")
    x = torch.randn(5, 1, 28, 28)
    w1, b1, w2, b2, w3, b3 = model.parameters()
    expected = torch.tanh(torch.tanh(x.reshape(5, -1) @ w1.T + b1) @ w2.T + b2) @ w3.T + b3
    torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize("spec", [VECTORS, IMAGES, SEQUENCES], ids=lambda spec: spec.kind.value)
def test_any_numbers_are_flattened(spec):
    x = torch.randn(4, *spec.shape)
    model = mlp(spec)
    assert model(x).shape == (4, spec.num_outputs)
    assert torch.equal(model(x), model(x.flatten(1).reshape(x.shape)))


def test_tokens_are_refused():
    with pytest.raises(ContractError, match=r"model=mlp reads .* but data=text gives tokenss? of shape \(64,\)"):
        mlp(TOKENS)


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        ({"widths": []}, 13 * 3 + 3),
        ({"widths": [8], "norm": "none"}, (13 + 1) * 8 + (8 + 1) * 3),
        ({"widths": [8], "norm": "none", "bias": False}, 13 * 8 + 8 * 3),
        ({"widths": [8], "norm": "batch"}, 13 * 8 + 2 * 8 + (8 + 1) * 3),
        ({"widths": [8], "norm": "layer"}, (13 + 1) * 8 + 2 * 8 + (8 + 1) * 3),
        ({"widths": [8], "norm": "rms", "bias": False}, 13 * 8 + 8 + 8 * 3),
    ],
)
def test_parameters_are_counted(options, parameters):
    assert sum(p.numel() for p in mlp(VECTORS, **options).parameters()) == parameters


def test_without_hidden_layers_it_is_linear():
    model = mlp(VECTORS, widths=[])
    x, y = torch.randn(2, 6, 13)
    torch.testing.assert_close(model(2 * x - y), 2 * model(x) - model(y), atol=1e-5, rtol=1e-5)


def test_layers_come_in_order_and_idle_ones_not_at_all():
    names = [name for name, _ in mlp(IMAGES, widths=[8, 4], norm="batch", dropout=0.1).named_children()]
    hidden = [f"{part}{i}" for i in (1, 2) for part in ("linear", "norm", "activation", "dropout")]
    assert names == ["flatten", *hidden, "output"]
    assert [name for name, _ in mlp(VECTORS, widths=[8], activation="identity", norm="none").named_children()] == [
        "linear1",
        "output",
    ]


def test_residual_layers_add_their_input():
    torch.manual_seed(0)
    model = mlp(VECTORS, widths=[8, 8, 4, 4], residual=True, norm="layer", dropout=0.2).eval()
    assert [name for name, module in model.named_modules() if isinstance(module, Residual)] == ["block2", "block4"]
    x = torch.randn(5, 8)
    block = model.block2
    torch.testing.assert_close(block(x), x + torch.relu(block.last_norm(block.linear(x))))
    nn.init.zeros_(block.last_norm.weight)
    assert torch.equal(block(x), x)


def test_residual_without_equal_widths_is_refused():
    with pytest.raises(ConfigError, match=r"model.residual=true .* got model.widths=\[256, 128\].*\[256,256,256\]"):
        mlp(VECTORS, residual=True)


def test_dropout_drops_only_in_training():
    model = mlp(VECTORS, widths=[512], dropout=0.5)
    x = torch.randn(3, 13)
    assert torch.equal(model.eval()(x), model(x))
    torch.manual_seed(0)
    zeros = (model.train().dropout1(torch.ones(1, 10_000)) == 0).float().mean()
    assert abs(zeros - 0.5) < 0.025  # five standard deviations


def test_weight_norm_starts_as_the_plain_network_and_adds_a_gain_for_each_unit():
    x = torch.randn(5, 13)
    plain, normed = (seeded(norm=norm, widths=[8, 6]) for norm in ("none", "weight"))
    torch.testing.assert_close(normed(x), plain(x))
    assert sum(p.numel() for p in normed.parameters()) == sum(p.numel() for p in plain.parameters()) + 8 + 6
    assert "parametrizations" not in dict(normed.output.named_parameters())


@pytest.mark.parametrize(("kind", "activation"), [("standard", "relu"), ("alpha", "selu"), ("dropconnect", "relu")])
def test_every_kind_of_dropout_acts_only_in_training(kind, activation):
    x = torch.randn(5, 13)
    plain = seeded(activation=activation)
    model = seeded(activation=activation, dropout=0.3, dropout_kind=kind)
    assert list(model.state_dict()) == list(plain.state_dict())
    assert not torch.equal(model(x), plain(x))
    assert torch.equal(model.eval()(x), plain(x))


def test_dropconnect_spares_the_output():
    model = mlp(VECTORS, widths=[8], dropout=0.3, dropout_kind="dropconnect")
    assert [type(m).__name__ for m in (model.linear1, model.output)] == ["DropConnectLinear", "Linear"]


def test_kinds_of_dropout_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match=r"dropout_kind=spatial zeroes whole channels.*model=mlp are vectors"):
        mlp(VECTORS, dropout=0.1, dropout_kind="spatial")
    with pytest.raises(ConfigError, match=r"dropout_kind=alpha.*model.activation is relu"):
        mlp(VECTORS, dropout=0.1, dropout_kind="alpha")


def seeded(**options):
    torch.manual_seed(0)
    return mlp(VECTORS, **options)
