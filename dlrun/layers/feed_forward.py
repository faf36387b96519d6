"""The part of a transformer block that works on each position alone: two linear maps, plain or gated."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor, nn

from dlrun.errors import ConfigError, did_you_mean
from dlrun.layers.named import activation

FeedForwardKind = Literal["gelu", "relu", "relu2", "silu", "swiglu", "geglu"]
GATES: dict[str, Literal["silu", "gelu"]] = {"swiglu": "silu", "geglu": "gelu"}


def feed_forward(kind: FeedForwardKind, width: int, hidden: int, *, bias: bool = True) -> nn.Module:
    """(..., width) → (..., width) over `hidden` units with the activation `kind`, or gated ones.

    The last linear map is called `output`. Gated ones have two thirds as many units, rounded to a multiple of 8, so
    that the three matrices hold as many numbers as the two.

    Raises: ConfigError for an unknown `kind`, naming those there are.
    """
    if kind in GATES:
        units = max(1, round(hidden / 12)) * 8
        return GatedFeedForward(width, units, activation(GATES[kind]), bias=bias)
    if kind not in get_args(FeedForwardKind):
        raise ConfigError(
            f"model.activation must be one of {', '.join(get_args(FeedForwardKind))}, got '{kind}'."
            f"{did_you_mean(kind, get_args(FeedForwardKind))}"
        )
    chosen = SquaredReLU() if kind == "relu2" else activation(kind)  # type: ignore[arg-type]
    return FeedForward(width, hidden, chosen, bias=bias)


class SquaredReLU(nn.Module):
    """max(x, 0)². Source: So et al. 2021, Primer (arXiv:2109.08668)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.relu().square()


class FeedForward(nn.Module):
    """output(activation(hidden(x))). Source: Vaswani et al. 2017 (arXiv:1706.03762), sec. 3.3."""

    def __init__(self, width: int, units: int, activation: nn.Module, *, bias: bool) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, units, bias)
        self.activation = activation
        self.output = nn.Linear(units, width, bias)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.output(self.activation(self.hidden(x)))
        return y


class GatedFeedForward(nn.Module):
    """output(activation(gate(x)) · value(x)), gate and value being one product.

    Source: Shazeer 2020 (arXiv:2002.05202).
    """

    def __init__(self, width: int, units: int, activation: nn.Module, *, bias: bool) -> None:
        super().__init__()
        self.gate_value = nn.Linear(width, 2 * units, bias)
        self.activation = activation
        self.output = nn.Linear(units, width, bias)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.gate_value(x).chunk(2, dim=-1)
        y: Tensor = self.output(self.activation(gate) * value)
        return y
