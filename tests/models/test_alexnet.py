"""AlexNet against its count of parameters, the network written out, and the formula of its normalisation."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from dlrun.contracts import DataSpec, Kind, Task
from dlrun.errors import ContractError
from dlrun.models.alexnet import alexnet, local_response_norm


def images(*shape, classes=10):
    return DataSpec("photos", Task.CLASSIFICATION, Kind.IMAGE, shape, classes)


@pytest.mark.parametrize("size", [224, 227])
def test_parameters_and_multiply_adds_are_the_papers(size):
    with torch.device("meta"):
        model = alexnet(images(3, size, size, classes=1000))
        with FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, 3, size, size))
    assert model.linear6.in_features == 9216
    assert sum(p.numel() for p in model.parameters()) == 60_965_224
    assert counter.get_total_flops() / 2 == pytest.approx(724e6, rel=0.01)


def test_response_normalisation_is_the_papers_formula():
    torch.manual_seed(0)
    a = 30 * torch.randn(2, 9, 3, 3, dtype=torch.float64)
    expected = torch.empty_like(a)
    for i in range(9):
        around = a[:, max(0, i - 2) : i + 3].square().sum(1)
        expected[:, i] = a[:, i] / (2 + 1e-4 * around) ** 0.75
    torch.testing.assert_close(local_response_norm()(a), expected)


def test_the_network_is_the_textbooks():
    torch.manual_seed(0)
    model = alexnet(images(3, 99, 99), head_widths=[20, 30]).eval()
    x = torch.randn(2, 3, 99, 99)
    h, lrn = x, local_response_norm()
    layers = [(4, 2, 1, True, True), (1, 2, 2, True, True), (1, 1, 1, False, False), (1, 1, 2, False, False)]
    for i, (stride, padding, groups, normalises, pools) in enumerate([*layers, (1, 1, 2, False, True)], start=1):
        conv = model.get_submodule(f"conv{i}")
        h = torch.relu(F.conv2d(h, conv.weight, conv.bias, stride, padding, groups=groups))
        h = lrn(h) if normalises else h
        h = F.max_pool2d(h, 3, 2) if pools else h
    h = torch.relu(model.linear7(torch.relu(model.linear6(h.flatten(1)))))
    torch.testing.assert_close(model(x), model.output(h))


def test_dropout_stands_before_each_hidden_linear_layer():
    names = [name for name, _ in alexnet(images(3, 32, 32), head_widths=[4, 4]).named_children()]
    assert names[-7:] == ["dropout6", "linear6", "activation6", "dropout7", "linear7", "activation7", "output"]


@pytest.mark.parametrize(("size", "last"), [(15, 1), (28, 2), (32, 3), (95, 11)])
def test_small_images_get_a_small_stem(size, last):
    model = alexnet(images(1, size, size), head_widths=[4])
    assert model.conv1.kernel_size == (5, 5)
    assert model.linear6.in_features == 256 * last**2
    assert model(torch.randn(2, 1, size, size)).shape == (2, 10)


@pytest.mark.parametrize("norm", ["none", "batch", "layer", "weight"])
def test_other_norms_stand_in_every_layer(norm):
    model = alexnet(images(3, 32, 32), norm=norm, head_widths=[4])
    assert (model.conv5.bias is None) == (norm == "batch")
    assert hasattr(model, "norm5") == (norm in ("batch", "layer"))
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_images_too_small_are_refused():
    with pytest.raises(ContractError, match=r"stem=cifar needs images of at least 15 pixels.*\(1, 14, 30\)"):
        alexnet(images(1, 14, 30))
    with pytest.raises(ContractError, match=r"stem=imagenet needs images of at least 63 pixels.*data=photos"):
        alexnet(images(3, 62, 62), stem="imagenet")
    assert alexnet(images(3, 63, 63), stem="imagenet", head_widths=[2]).linear6.in_features == 256
    with pytest.raises(ContractError, match="model=alexnet reads images"):
        alexnet(DataSpec("moons", Task.CLASSIFICATION, Kind.VECTOR, (2,), 2))
