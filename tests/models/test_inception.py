"""The Inception block and GoogLeNet against torchvision's with their weights copied in."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import googlenet

from dlrun.contracts import DataSpec, Kind, Task
from dlrun.errors import ConfigError, ContractError
from dlrun.models.inception import Inception, Widths, inception


def images(*shape, classes=10):
    return DataSpec("photos", Task.CLASSIFICATION, Kind.IMAGE, shape, classes)


@pytest.fixture(scope="module")
def theirs():
    """torchvision's GoogLeNet with batch norm's usual ε, the paper's last maximum, and statistics as after training."""
    torch.manual_seed(0)
    model = googlenet(weights=None, num_classes=10, aux_logits=False, init_weights=False).eval()
    model.maxpool4 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-5
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.02, 0.1)
    return model


def copied(ours, theirs):
    return ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)), assign=True)


def test_the_block_is_torchvisions(theirs):
    with torch.device("meta"):
        ours = Inception(480, Widths(192, 96, 208, 16, 48, 64), 3, "batch", "relu").eval()
    copied(ours, theirs.inception4a)
    x = torch.randn(2, 480, 7, 9)
    torch.testing.assert_close(ours(x), theirs.inception4a(x), rtol=1e-5, atol=1e-5)


def test_googlenet_is_torchvisions(theirs):
    with torch.device("meta"):
        ours = inception(images(3, 65, 90), large_kernel=3, stem="imagenet").eval()
    copied(ours, theirs)
    x = torch.randn(2, 3, 65, 90)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


def test_the_block_of_the_paper_has_filters_of_5x5():
    torch.manual_seed(0)
    block = Inception(6, Widths(2, 3, 4, 5, 6, 7), 5, "none", "relu")
    x = torch.randn(2, 6, 5, 8)

    def conv(x, layer):
        return torch.relu(F.conv2d(x, layer.conv.weight, layer.conv.bias, padding=layer.conv.weight.shape[2] // 2))

    branches = [
        conv(x, block.single),
        conv(conv(x, block.medium[0]), block.medium[1]),
        conv(conv(x, block.large[0]), block.large[1]),
        conv(F.max_pool2d(x, 3, 1, 1), block.pooled[1]),
    ]
    torch.testing.assert_close(block(x), torch.cat(branches, 1))
    assert block.large[1].conv.weight.shape == (6, 5, 5, 5)


def test_the_multiply_adds_of_a_5x5_filter_are_counted():
    """5x5 in place of torchvision's 3x3 adds 16 weights for each pair of channels of the nine large filters."""
    with torch.device("meta"):
        five, three = (inception(images(3, 224, 224, classes=1000), large_kernel=k) for k in (5, 3))
    pairs = [(16, 32), (32, 96), (16, 48), (24, 64), (24, 64), (32, 64), (32, 128), (32, 128), (48, 128)]
    counts = [sum(p.numel() for p in model.parameters()) for model in (five, three)]
    assert counts[1] == 6_624_904
    assert counts[0] == 6_624_904 + 16 * sum(a * b for a, b in pairs)


def test_blocks_and_widths_are_taken_from_googlenet():
    model = inception(images(1, 28, 28), blocks=[2, 1], width=0.25, attention="se")
    names = [name for name, _ in model.named_children()]
    assert names[:7] == ["stem", "block3a", "attention3a", "block3b", "attention3b", "pool4", "block4a"]
    assert model.output.in_features == 512 // 4
    model(torch.randn(2, 1, 28, 28)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_the_stem_of_large_images_gives_an_eighth():
    with torch.device("meta"):
        model = inception(images(3, 224, 224))
        assert model.stem(torch.zeros(1, 3, 224, 224)).shape == (1, 192, 28, 28)


def test_more_blocks_than_there_are_are_refused():
    for blocks in ([2, 6], [3], [2, 5, 2, 1], []):
        with pytest.raises(ConfigError, match=r"model.blocks must be one to three numbers, at most \[2, 5, 2\], got"):
            inception(images(3, 32, 32), blocks=blocks)
    with pytest.raises(ContractError, match="model=inception reads images"):
        inception(DataSpec("moons", Task.CLASSIFICATION, Kind.VECTOR, (2,), 2))
