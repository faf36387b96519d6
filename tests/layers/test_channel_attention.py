"""SE and CBAM, against torchvision and loops written from the papers."""

import math

import pytest
import torch
import torchvision
from torch import nn

from dlrun.errors import ConfigError
from dlrun.layers.channel_attention import CBAM, SqueezeExcitation, channel_attention


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


def mlp(layers, vector):
    """W₂ relu(W₁ v + b₁) + b₂, number by number."""
    for i, layer in enumerate((layers[0], layers[2])):
        vector = [
            sum(w * v for w, v in zip(row, vector, strict=True)) + b
            for row, b in zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
        ]
        vector = [max(v, 0.0) for v in vector] if i == 0 else vector
    return vector


def test_se_is_torchvisions():
    torch.manual_seed(0)
    ours, theirs = SqueezeExcitation(16, reduction=4), torchvision.ops.SqueezeExcitation(16, 4)
    theirs.load_state_dict(
        {
            f"fc{i}.{kind}": tensor[:, :, None, None] if kind == "weight" else tensor
            for i, layer in ((1, ours.mlp[0]), (2, ours.mlp[2]))
            for kind, tensor in layer.named_parameters()
        }
    )
    x = torch.randn(3, 16, 5, 4)
    torch.testing.assert_close(ours(x), theirs(x))


def test_cbam_is_the_papers_equations():
    torch.manual_seed(0)
    cbam = CBAM(6, reduction=2, kernel_size=3).double()
    x = torch.randn(1, 6, 4, 5, dtype=torch.float64)
    channels = [x[0, c].flatten().tolist() for c in range(6)]
    means, maxima = [sum(c) / 20 for c in channels], [max(c) for c in channels]
    gates = [sigmoid(a + b) for a, b in zip(mlp(cbam.mlp, means), mlp(cbam.mlp, maxima), strict=True)]
    scaled = [[[gates[c] * x[0, c, i, j].item() for j in range(5)] for i in range(4)] for c in range(6)]
    expected = torch.zeros_like(x)
    for i in range(4):
        for j in range(5):
            total = 0.0
            for di in range(3):
                for dj in range(3):
                    if 0 <= i + di - 1 < 4 and 0 <= j + dj - 1 < 5:
                        pixel = [scaled[c][i + di - 1][j + dj - 1] for c in range(6)]
                        w = cbam.conv.weight[0, :, di, dj].tolist()
                        total += w[0] * sum(pixel) / 6 + w[1] * max(pixel)
            for c in range(6):
                expected[0, c, i, j] = scaled[c][i][j] * sigmoid(total)
    torch.testing.assert_close(cbam(x), expected)


@pytest.mark.parametrize("name", ["se", "cbam"])
def test_zero_stays_zero_and_nothing_grows(name):
    torch.manual_seed(0)
    gate = channel_attention(name, 8, reduction=16)
    x = torch.randn(2, 8, 6, 6)
    assert not gate(torch.zeros_like(x)).any()
    assert (gate(x).abs() <= x.abs()).all()
    assert gate.mlp[0].out_features == 1


def test_none_is_nothing_and_other_names_are_refused():
    assert isinstance(channel_attention("none", 8), nn.Identity)
    with pytest.raises(ConfigError, match=r"must be one of none, se, cbam, got 'cbma'. Did you mean 'cbam'\?"):
        channel_attention("cbma", 8)
