"""The residual block of images, in every form of the ResNet family."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from dlrun.contracts import Activation, Norm
from dlrun.layers.channel_attention import Attention, channel_attention
from dlrun.layers.convolution import conv_of, norm_activation, norms_outputs
from dlrun.layers.named import activation, norm
from dlrun.layers.stochastic_depth import StochasticDepth

Shortcut = Literal["projection", "average", "zero_pad"]


@dataclass(frozen=True)
class BlockStyle:
    """What all blocks of a network have in common; `dlrun.models.resnet.resnet` says what each means."""

    bottleneck: bool = False
    preactivation: bool = False
    groups: int = 1
    shortcut: Shortcut = "projection"
    norm: Norm = "batch"
    activation: Activation = "relu"
    attention: Attention = "none"
    attention_reduction: int = 16
    dropout: float = 0.0
    zero_init: bool = False


class ResidualBlock(nn.Module):
    """after(shortcut(y) + drop(branch(y))) with y = before(x): one skip connection.

    Inputs (B, C, H, W) → (B, C', H', W'). `before` is not empty only where pre-activation is shared with the shortcut.
    """

    def __init__(
        self, before: nn.Module, branch: nn.Module, drop: nn.Module, shortcut: nn.Module, after: nn.Module
    ) -> None:
        super().__init__()
        self.before = before
        self.branch = branch
        self.shortcut = shortcut
        self.drop = drop
        self.after = after

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        output: Tensor = self.after(self.shortcut(x) + self.drop(self.branch(x)))
        return output


class ZeroPad(nn.Module):
    """Every `stride`-th pixel, and channels of zeros behind: a shortcut without weights.

    Source: He et al. 2015 (arXiv:1512.03385), sec. 4.1, option A.
    """

    def __init__(self, channels_added: int, stride: int) -> None:
        super().__init__()
        self.channels_added = channels_added
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.channels_added))


def residual_block(
    style: BlockStyle, channels_in: int, inner: int, channels_out: int, stride: int = 1, drop: float = 0.0
) -> ResidualBlock:
    """A block from `channels_in` over `inner` to `channels_out`; stride 2 halves the image, rounding up.

    Two 3x3 convolutions, or 1x1, 3x3, 1x1 (bottleneck), the stride being in the first 3x3. After activation
    (arXiv:1512.03385): conv norm act conv norm + act. Pre-activation (arXiv:1603.05027): norm act conv norm act conv +;
    where the shape changes, the shortcut starts from the activated input too.

    Args:
        drop: probability of leaving the branch of an example out while training.
    """
    changes = stride != 1 or channels_in != channels_out
    make = partial(conv_of, style.norm)  # with pre-activation too, all that reads the sum begins with a norm
    if style.bottleneck:
        convs = [make(channels_in, inner, 1), make(inner, inner, 3, stride, style.groups), make(inner, channels_out, 1)]
    else:
        convs = [make(channels_in, inner, 3, stride), make(inner, channels_out, 3)]
    before: dict[str, nn.Module] = {}
    branch = _branch(style, convs)
    if style.preactivation and changes:
        before = {name: branch.pop(name) for name in ("norm1", "activation1") if name in branch}
    if style.attention != "none":
        branch["attention"] = channel_attention(style.attention, channels_out, style.attention_reduction)
    return ResidualBlock(
        before=_sequential(before),
        branch=_sequential(branch),
        drop=StochasticDepth(drop) if drop > 0 else nn.Identity(),
        shortcut=_shortcut(style, channels_in, channels_out, stride) if changes else nn.Identity(),
        after=nn.Identity() if style.preactivation else activation(style.activation),
    )


def _branch(style: BlockStyle, convs: list[nn.Conv2d]) -> dict[str, nn.Module]:
    """`convs` with norms and activations between them, and before or behind."""
    modules: dict[str, nn.Module] = {}
    last = len(convs)
    for i, convolution in enumerate(convs, start=1):
        if style.preactivation:
            modules |= norm_activation(style.norm, style.activation, convolution.in_channels, i)
        if i == last and style.dropout > 0:
            modules["dropout"] = nn.Dropout(style.dropout)
        modules[f"conv{i}"] = convolution
        if i < last and not style.preactivation:
            modules |= norm_activation(style.norm, style.activation, convolution.out_channels, i)
    if not style.preactivation and norms_outputs(style.norm):
        modules["last_norm"] = norm(style.norm, convs[-1].out_channels, dims=2)
    if style.zero_init:
        # Not the norm of pre-activation: relu passes no gradient at 0, and the branch would never wake.
        silenced = modules.get("last_norm", convs[-1])
        for name, parameter in silenced.named_parameters():
            if not name.endswith("original1"):  # of g · v / ‖v‖ (norm=weight) g alone: v / ‖v‖ must have a direction
                nn.init.zeros_(parameter)
    return modules


def _shortcut(style: BlockStyle, channels_in: int, channels_out: int, stride: int) -> nn.Module:
    """From the shape of a block's input to that of its output."""
    if style.shortcut == "zero_pad":
        return ZeroPad(channels_out - channels_in, stride)
    modules: dict[str, nn.Module] = {}
    if style.shortcut == "average" and stride > 1:
        # As large as the 3x3 convolution of stride 2 leaves it; what hangs over the edge is not counted.
        modules["pool"] = nn.AvgPool2d(stride, ceil_mode=True)
        stride = 1
    modules["conv"] = conv_of(style.norm, channels_in, channels_out, 1, stride)
    if not style.preactivation:
        modules |= norm_activation(style.norm, "identity", channels_out)
    return _sequential(modules)


def _sequential(modules: dict[str, nn.Module]) -> nn.Module:
    return nn.Sequential(OrderedDict(modules)) if modules else nn.Identity()
