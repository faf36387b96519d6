"""MobileNetV2 against torchvision's with its weights copied in."""

import pytest
import torch
from torch import nn
from torchvision.models.mobilenetv2 import MobileNetV2, _make_divisible

from dlrun.contracts import DataSpec, Kind, Task
from dlrun.errors import ContractError
from dlrun.layers.channel_attention import SqueezeExcitation
from dlrun.models.mobilenet import divisible, mobilenet_v2


def images(*shape, classes=10):
    return DataSpec("photos", Task.CLASSIFICATION, Kind.IMAGE, shape, classes)


def test_parameters_are_torchvisions():
    with torch.device("meta"):
        model = mobilenet_v2(images(3, 224, 224, classes=1000))
    assert sum(p.numel() for p in model.parameters()) == 3_504_872


@pytest.mark.parametrize("width", [1.0, 0.35])
def test_outputs_are_torchvisions(width):
    torch.manual_seed(0)
    theirs = MobileNetV2(num_classes=10, width_mult=width).eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    with torch.device("meta"):
        ours = mobilenet_v2(images(3, 50, 67), width=width, stem="imagenet").eval()
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)), assign=True)
    x = torch.randn(2, 3, 50, 67)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


def test_channels_are_rounded_as_torchvision_rounds_them():
    for channels in (1, 5.6, 11.2, 13, 20, 31.9, 33, 100.5, 448):
        assert divisible(channels) == _make_divisible(channels, 8)


@pytest.mark.parametrize(("size", "last"), [(32, 4), (28, 4), (96, 3)])
def test_small_images_are_halved_three_times(size, last):
    with torch.device("meta"):
        model = mobilenet_v2(images(3, size, size))
        before_pool = nn.Sequential(*list(model.children())[:-4])
        assert before_pool(torch.zeros(1, 3, size, size)).shape[2:] == (last, last)


def test_blocks_add_their_input_where_shapes_allow():
    torch.manual_seed(0)
    model = mobilenet_v2(images(3, 32, 32), width=0.35).eval()
    block = model.block3_2
    nn.init.zeros_(block.branch.project.norm.weight)
    x = torch.randn(2, 16, 8, 8)
    assert torch.equal(block(x), x)
    assert not model.block3_1.is_residual
    assert not hasattr(block.branch.project, "activation")


def test_a_gate_follows_each_depthwise_convolution():
    model = mobilenet_v2(images(3, 32, 32), width=0.35, attention="se")
    names = [name for name, _ in model.block3_2.branch.named_children()]
    assert names == ["expand", "depthwise", "attention", "project"]
    assert isinstance(model.block3_2.branch.attention, SqueezeExcitation)
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_what_is_not_an_image_is_refused():
    with pytest.raises(ContractError, match="model=mobilenet_v2 reads images"):
        mobilenet_v2(DataSpec("moons", Task.CLASSIFICATION, Kind.VECTOR, (2,), 2))
