"""The layers models choose by name: activations and normalisations."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from dlrun.contracts import Activation, Norm
from dlrun.errors import ConfigError, did_you_mean

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "hardswish": nn.Hardswish,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "softplus": nn.Softplus,
    "identity": nn.Identity,
}


def activation(name: Activation) -> nn.Module:
    """The activation called `name`, with PyTorch's default parameters.

    Raises: ConfigError naming the activations there are.
    """
    if name not in ACTIVATIONS:
        raise ConfigError(
            f"activation must be one of {', '.join(ACTIVATIONS)}, got '{name}'.{did_you_mean(name, ACTIVATIONS)}"
        )
    return ACTIVATIONS[name]()


def norm(name: Norm, features: int, dims: Literal[0, 1, 2]) -> nn.Module:
    """The normalisation called `name` of tensors (B, features), (B, features, T) or (B, features, H, W).

    Over what each takes its statistics, for images:

    - batch: one feature, over the batch and all positions (arXiv:1502.03167);
    - layer: all features and positions of an example (arXiv:1607.06450), as `GroupNorm(1)`;
    - group: a group of features and all positions (arXiv:1803.08494), see `num_groups`;
    - instance: one feature and all positions of an example (arXiv:1607.08022), with scale and shift;
    - rms: all features at one position, without the mean (arXiv:1910.07467);
    - none: nothing, an `nn.Identity`.

    Args:
        features: size of axis 1.
        dims: how many axes follow it.

    Raises: ConfigError for an unknown name, for `instance` of vectors, whose features are single numbers, and for
        `weight`, which normalises no tensor but the weights of a layer: models that have it use `normed`.
    """
    if name not in get_args(Norm):
        raise ConfigError(
            f"norm must be one of {', '.join(get_args(Norm))}, got '{name}'.{did_you_mean(name, get_args(Norm))}"
        )
    if name == "instance" and dims == 0:
        raise ConfigError(
            "norm=instance normalises each feature over its positions, and the features of a vector have none: "
            "choose norm=layer or norm=batch"
        )
    if name == "weight":
        raise ConfigError(
            "norm=weight normalises the weights of a layer and not its outputs, and this model has no place for it: "
            "choose norm=batch, layer, group or rms"
        )
    match name:
        case "batch":
            return (nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d)[dims](features)
        case "instance":
            return (nn.InstanceNorm1d, nn.InstanceNorm2d)[dims - 1](features, affine=True)
        case "layer":
            return nn.GroupNorm(1, features) if dims else nn.LayerNorm(features)
        case "group":
            return nn.GroupNorm(num_groups(features, smallest=1 if dims else 8), features)
        case "rms":
            return ChannelRMSNorm(features) if dims else nn.RMSNorm(features)
    return nn.Identity()


def normed(layer: nn.Module, name: Norm, features: int, dims: Literal[0, 1, 2]) -> list[nn.Module]:
    """`layer` and the norm of its outputs, to be applied in this order; without a second entry where there is none.

    With `weight` it is `layer` itself that changes, in place: the weights w of each output of every linear layer and
    convolution in it become g · v / ‖v‖, with g and v learnt and w the same at the start (arXiv:1602.07868).

    Args:
        layer: what makes the tensors to be normalised: a linear layer, a convolution, or a module of several.
        features, dims: of its outputs, as in `norm`.

    Raises: ConfigError as `norm` does.
    """
    if name == "weight":
        for module in [*layer.modules()]:
            if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
                weight_norm(module)
            elif isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
                weight_norm(module, dim=1)  # its outputs are axis 1
        return [layer]
    return [layer] if name == "none" else [layer, norm(name, features, dims)]


def num_groups(features: int, smallest: int = 1) -> int:
    """The largest number of groups, at most 32, that divides `features` into groups of at least `smallest`.

    Vectors want `smallest` > 1: a group of one number has no spread, and group norm would erase it.
    """
    return max((n for n in range(1, 33) if features % n == 0 and features // n >= smallest), default=1)


def follows_shift(name: Norm) -> bool:
    """Whether this norm cancels a constant added to a feature, so that a bias just before it would be idle."""
    return name in ("batch", "instance")


class ChannelRMSNorm(nn.RMSNorm):
    """RMS norm over axis 1 of (B, C, ...), separately at each position. Source: arXiv:1910.07467."""

    def forward(self, x: Tensor) -> Tensor:
        last = x.movedim(1, -1)  # a free view when x is channels_last
        return F.rms_norm(last, self.normalized_shape, self.weight, self.eps).movedim(-1, 1)
