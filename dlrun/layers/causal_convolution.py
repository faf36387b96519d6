"""Convolutions over time that see the past only, in residual blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from dlrun.contracts import Activation
from dlrun.layers.named import activation as make_activation
from dlrun.layers.named import follows_shift, normed

CausalNorm = Literal["none", "weight", "rms", "batch"]  # the others mix time steps in evaluation too


class CausalConv1d(nn.Conv1d):
    """A convolution whose output at time t depends on inputs up to t: zeros are put before the first, none behind.

    Inputs (B, C, T) → outputs (B, C', T). The arguments are those of nn.Conv1d, of which stride is 1 and padding left
    out.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.before = (self.kernel_size[0] - 1) * self.dilation[0]

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(F.pad(input, (self.before, 0)))


class TemporalBlock(nn.Module):
    """Two dilated causal convolutions, each with norm, activation and dropout, beside a shortcut, and an activation.

    Inputs (B, C, T) → outputs (B, C', T). Dropout zeroes a channel at all time steps, as in the paper; the authors'
    code drops single numbers. Source: Bai et al. 2018 (arXiv:1803.01271), sec. 3.3.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel_size: int,
        dilation: int,
        *,
        norm: CausalNorm = "weight",
        activation: Activation = "relu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels in (channels_in, channels_out):
            conv = CausalConv1d(channels, channels_out, kernel_size, dilation=dilation, bias=not follows_shift(norm))
            layers += normed(conv, norm, channels_out, dims=1)
            layers += [make_activation(activation), nn.Dropout1d(dropout)]
        self.branch = nn.Sequential(*layers)
        self.shortcut = nn.Conv1d(channels_in, channels_out, 1) if channels_in != channels_out else nn.Identity()
        self.activation = make_activation(activation)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.activation(self.branch(x) + self.shortcut(x))
        return result


def receptive_field(kernel_size: int, dilations: Sequence[int]) -> int:
    """How many time steps, its own included, an output of temporal blocks depends on: 1 + 2 (k - 1) Σ d."""
    return 1 + 2 * (kernel_size - 1) * sum(dilations)
