"""AlexNet: large filters, local response normalisation, and two groups for what were two graphics cards."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn

from dlrun.contracts import Activation, DataSpec, Kind, Norm, PositiveInt, Probability
from dlrun.errors import ContractError
from dlrun.layers import activation as make_activation
from dlrun.layers import follows_shift, normed
from dlrun.layers.stem import Stem, resolve_stem

SMALLEST = {"imagenet": 63, "cifar": 15}  # pixels; the three 3x3 maxima of stride 2 need seven and the stem the rest


@dataclass(frozen=True)
class Layer:
    """A convolution, and whether response normalisation and pooling follow it."""

    channels: int
    kernel_size: int
    stride: int = 1
    padding: int = 1
    groups: int = 1
    lrn: bool = False
    pool: bool = False


STEMS = {
    "imagenet": Layer(96, kernel_size=11, stride=4, padding=2, lrn=True, pool=True),
    "cifar": Layer(96, kernel_size=5, padding=2, lrn=True, pool=True),
}
LAYERS = (
    Layer(256, kernel_size=5, padding=2, groups=2, lrn=True, pool=True),
    Layer(384, kernel_size=3),
    Layer(384, kernel_size=3, groups=2),
    Layer(256, kernel_size=3, groups=2, pool=True),
)


def alexnet(
    spec: DataSpec,
    *,
    stem: Stem = "auto",
    activation: Activation = "relu",
    norm: Norm | Literal["lrn"] = "lrn",
    head_widths: Sequence[PositiveInt] = (4096, 4096),
    dropout: Probability = 0.5,
) -> nn.Module:
    """Five convolutions, three 3x3 maxima of stride 2, and a small MLP.

    Inputs (B, C, H, W) → outputs (B, spec.num_outputs), without softmax. Images of 224 or 227 pixels come to 6x6 with
    256 channels, 9216 numbers: the padding of 2 gives the paper's 55x55 from 224, its 227 without padding does too.
    Source: Krizhevsky, Sutskever & Hinton 2012, doi:10.1145/3065386.

    Args:
        spec: images.
        stem: the first convolution. imagenet, 11x11 of stride 4; cifar, 5x5 of stride 1; auto, cifar if a side is
            shorter than 96 pixels.
        activation: after each layer but the output.
        norm: lrn is the paper's, after activation in the first two layers; any other stands before the activation in
            all five.
        head_widths: of the hidden linear layers.
        dropout: probability of zeroing an input of each hidden linear layer.

    Raises: ContractError if `spec` is not of images, or its images are too small.
    """
    spec.require("alexnet", Kind.IMAGE)
    features, *size = spec.shape
    kind = resolve_stem(stem, size)
    if min(size) < SMALLEST[kind]:
        raise ContractError(
            f"model=alexnet with stem={kind} needs images of at least {SMALLEST[kind]} pixels each way, but "
            f"data={spec.name} has images of shape {spec.shape}: choose model=cnn, or data.size where the data have it"
        )
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    for i, layer in enumerate((STEMS[kind], *LAYERS), start=1):
        modules |= {f"{part}{i}": module for part, module in _modules(layer, features, activation, norm).items()}
        size = [(n + 2 * layer.padding - layer.kernel_size) // layer.stride + 1 for n in size]
        size = [(n - 3) // 2 + 1 for n in size] if layer.pool else size
        features = layer.channels
    modules["flatten"] = nn.Flatten()
    features *= size[0] * size[1]
    for i, width in enumerate(head_widths, start=6):
        if dropout > 0:
            modules[f"dropout{i}"] = nn.Dropout(dropout)
        modules[f"linear{i}"] = nn.Linear(features, width)
        modules[f"activation{i}"] = make_activation(activation)
        features = width
    modules["output"] = nn.Linear(features, spec.num_outputs)
    return nn.Sequential(modules)


def _modules(
    layer: Layer, channels_in: int, activation: Activation, norm: Norm | Literal["lrn"]
) -> OrderedDict[str, nn.Module]:
    """A convolution and what follows it, in order."""
    bias = norm == "lrn" or not follows_shift(norm)
    conv = nn.Conv2d(
        channels_in, layer.channels, layer.kernel_size, layer.stride, layer.padding, groups=layer.groups, bias=bias
    )
    norms = [conv] if norm == "lrn" else normed(conv, norm, layer.channels, dims=2)
    modules = OrderedDict[str, nn.Module](zip(("conv", "norm"), norms, strict=False))
    if activation != "identity":
        modules["activation"] = make_activation(activation)
    if layer.lrn and norm == "lrn":
        modules["norm"] = local_response_norm()
    if layer.pool:
        modules["pool"] = nn.MaxPool2d(3, stride=2)
    return modules


def local_response_norm() -> nn.LocalResponseNorm:
    """a / (2 + 1e-4 · Σ a²)^.75 over five neighbouring channels, as in the paper, sec. 3.3.

    PyTorch divides its alpha by the number of channels that are summed; so five times the paper's.
    """
    return nn.LocalResponseNorm(size=5, alpha=5 * 1e-4, beta=0.75, k=2.0)
