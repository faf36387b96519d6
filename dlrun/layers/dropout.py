"""The kinds of dropout: of single numbers, of whole channels, for SELU, and of weights."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from dlrun.contracts import Activation
from dlrun.errors import ConfigError

DropoutKind = Literal["standard", "spatial", "alpha", "dropconnect"]


def unit_dropout(kind: DropoutKind, p: float, activation: Activation) -> nn.Module | None:
    """The module that drops single outputs of a hidden layer, or None if `kind` drops something else or p is 0.

    - standard: zeroes a number with probability p and divides the others by 1 - p (arXiv:1207.0580).
    - alpha: puts SELU's lowest value in place of a number, then scales and shifts so that mean 0 and variance 1
      remain what they are (arXiv:1706.02515).

    Args:
        activation: of the layer whose outputs these are.

    Raises: ConfigError for `alpha` after any other activation than SELU, which it would not fit.
    """
    if kind == "alpha" and activation != "selu":
        raise ConfigError(
            f"model.dropout_kind=alpha is made for SELU, and model.activation is {activation}: "
            "choose model.activation=selu or model.dropout_kind=standard"
        )
    if p == 0 or kind in ("spatial", "dropconnect"):
        return None
    return nn.AlphaDropout(p) if kind == "alpha" else nn.Dropout(p)


def linear(features: int, width: int, bias: bool, kind: DropoutKind, p: float) -> nn.Linear:
    """A linear layer, with DropConnect if `kind` is that."""
    if kind == "dropconnect" and p > 0:
        return DropConnectLinear(features, width, bias, p=p)
    return nn.Linear(features, width, bias)


class DropConnectLinear(nn.Linear):
    """A linear layer that zeroes each weight with probability p while training and divides the others by 1 - p.

    Inputs (..., in) → outputs (..., out). The mean over the draws is the output of evaluation, which drops nothing.
    Source: Wan et al. 2013 (ICML, PMLR 28(3)), with one draw for the whole batch instead of one for each example,
    biases kept, and plain evaluation in place of its sampling from a normal distribution.

    Args:
        p: probability of zeroing a weight; the other arguments are those of nn.Linear.
    """

    def __init__(self, *args: Any, p: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.p = p

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, F.dropout(self.weight, self.p, self.training), self.bias)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, p={self.p:g}"


class DropConnectConv2d(nn.Conv2d):
    """A convolution that zeroes each weight of its filters with probability p; see `DropConnectLinear`.

    Inputs (B, C, H, W) → outputs as those of nn.Conv2d, whose arguments it takes.
    """

    def __init__(self, *args: Any, p: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.p = p

    def forward(self, input: Tensor) -> Tensor:
        output: Tensor = self._conv_forward(input, F.dropout(self.weight, self.p, self.training), self.bias)
        return output

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, p={self.p:g}"  # type: ignore[no-untyped-call]
