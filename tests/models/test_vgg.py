"""VGG against torchvision's with its weights copied in."""

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.vgg import cfgs, make_layers

from dlrun.contracts import DataSpec, Kind, Task
from dlrun.errors import ContractError
from dlrun.models.vgg import vgg

COLUMNS = {11: "A", 13: "B", 16: "D", 19: "E"}
IMAGENET = DataSpec("imagenet", Task.CLASSIFICATION, Kind.IMAGE, (3, 224, 224), 1000)


def images(*shape):
    return DataSpec("photos", Task.CLASSIFICATION, Kind.IMAGE, shape, 10)


@pytest.mark.parametrize("depth", COLUMNS)
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_parameters_are_torchvisions(depth, norm):
    with torch.device("meta"):
        ours = vgg(IMAGENET, depth=depth, norm=norm)
        theirs = getattr(torchvision.models, f"vgg{depth}" + ("_bn" if norm == "batch" else ""))()
    # torchvision's convolutions keep a bias before batch norm, which cancels it.
    idle = sum(m.bias.numel() for m in theirs.features if isinstance(m, nn.Conv2d)) if norm == "batch" else 0
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters()) - idle
    if (depth, norm) == (16, "none"):
        assert sum(p.numel() for p in ours.parameters()) == 138_357_544


@pytest.mark.parametrize(("depth", "norm"), [(11, "none"), (13, "batch"), (16, "batch"), (19, "none")])
def test_outputs_are_torchvisions(depth, norm):
    torch.manual_seed(0)
    head = nn.Sequential(nn.Linear(512 * 7 * 7, 24), nn.ReLU(), nn.Dropout(), nn.Linear(24, 10))
    theirs = nn.Sequential(
        make_layers(cfgs[COLUMNS[depth]], batch_norm=norm == "batch"), nn.AdaptiveAvgPool2d(7), nn.Flatten(), head
    ).eval()
    with torch.device("meta"):
        ours = vgg(images(3, 40, 70), depth=depth, norm=norm, head_widths=[24], last_size=7).eval()
    ours.load_state_dict(dict(zip(ours.state_dict(), without_idle_biases(theirs), strict=True)), assign=True)
    x = torch.randn(2, 3, 40, 70)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


def without_idle_biases(model):
    """The tensors of `model` in order, each convolution's bias before batch norm moved into the running mean."""
    tensors, bias = [], None
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.normal_(module.weight, 1.0, 0.1)
            assert tensors.pop() is bias
            tensors += [module.weight, module.bias, (module.running_mean - bias).detach(), module.running_var]
            tensors.append(module.num_batches_tracked)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            bias = module.bias
            tensors += [module.weight, bias]
    return tensors


@pytest.mark.parametrize(
    ("size", "flattened"), [((224, 224), 512 * 49), ((160, 64), 512 * 5 * 2), ((32, 32), 512), ((28, 28), 512 * 1)]
)
def test_small_images_stay_as_they_are(size, flattened):
    with torch.device("meta"):
        model = vgg(images(1, *size), depth=11, head_widths=[8])
        assert model.linear1.in_features == flattened
        assert model(torch.zeros(1, 1, *size)).shape == (1, 10)


def test_repeated_pixels_add_nothing():
    """What torchvision does with 32x32: the same outputs come from one weight that is the sum of its 49."""
    torch.manual_seed(0)
    wide = vgg(images(3, 32, 32), depth=11, head_widths=[6], last_size=7).eval()
    narrow = vgg(images(3, 32, 32), depth=11, head_widths=[6]).eval()
    state = wide.state_dict()
    state["linear1.weight"] = state["linear1.weight"].reshape(6, 512, 49).sum(2)
    narrow.load_state_dict(state)
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(narrow(x), wide(x), rtol=1e-4, atol=1e-5)


def test_a_head_without_hidden_layers():
    with torch.device("meta"):
        model = vgg(images(1, 8, 8), depth=11, head_widths=[], dropout=0.0)
    assert model.output.in_features == 512
    assert [name for name, _ in model.named_children()][-2:] == ["flatten", "output"]


def test_what_is_not_an_image_is_refused():
    with pytest.raises(ContractError, match="model=vgg reads images"):
        vgg(DataSpec("moons", Task.CLASSIFICATION, Kind.VECTOR, (2,), 2))
