"""Gates that a convolutional block puts on its own output: squeeze-and-excitation, and CBAM."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from dlrun.errors import ConfigError, did_you_mean

Attention = Literal["none", "se", "cbam"]


def channel_attention(name: Attention, channels: int, reduction: int = 16) -> nn.Module:
    """The gate called `name` for images of `channels`; none is an `nn.Identity`.

    Raises: ConfigError naming the gates there are.
    """
    match name:
        case "none":
            return nn.Identity()
        case "se":
            return SqueezeExcitation(channels, reduction)
        case "cbam":
            return CBAM(channels, reduction)
    raise ConfigError(f"attention must be one of none, se, cbam, got '{name}'.{did_you_mean(name, ('se', 'cbam'))}")


class SqueezeExcitation(nn.Module):
    """x · sigmoid(W₂ relu(W₁ mean(x))): each channel times a number in (0, 1) that all channels decide.

    Inputs and outputs (B, C, H, W). Source: Hu et al. 2018 (arXiv:1709.01507), with biases as in its code.

    Args:
        channels: C.
        reduction: the hidden layer has C / reduction units, and at least one.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.mlp = _bottleneck(channels, reduction)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.mlp(x.mean((2, 3))))  # (B, C)
        return x * gate[:, :, None, None]


class CBAM(nn.Module):
    """A gate for each channel, then one for each pixel.

    Channels: sigmoid(mlp(mean over pixels) + mlp(maximum over pixels)). Pixels: sigmoid of a convolution of two
    images, the mean and the maximum over channels. Inputs and outputs (B, C, H, W).
    Source: Woo et al. 2018 (arXiv:1807.06521), eq. 2 and 3; no batch norm in the second gate, which only its code has.

    Args:
        channels: C.
        reduction: the hidden layer has C / reduction units, and at least one.
        kernel_size: of the convolution of the second gate, odd.
    """

    def __init__(self, channels: int, reduction: int = 16, kernel_size: int = 7) -> None:
        super().__init__()
        self.mlp = _bottleneck(channels, reduction)
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.mlp(x.mean((2, 3))) + self.mlp(x.amax((2, 3))))  # (B, C)
        x = x * gate[:, :, None, None]
        summary = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)  # (B, 2, H, W)
        return x * torch.sigmoid(self.conv(summary))


def _bottleneck(channels: int, reduction: int) -> nn.Sequential:
    hidden = max(channels // reduction, 1)
    return nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))
