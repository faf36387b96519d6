"""Convolutional autoencoder: an image through a few numbers and back."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from dlrun.contracts import Activation, DataSpec, Kind, Norm, PositiveInt, Task
from dlrun.errors import ContractError
from dlrun.layers import activation as make_activation
from dlrun.layers import follows_shift, normed


def autoencoder(
    spec: DataSpec,
    *,
    channels: Sequence[PositiveInt] = (32, 64),
    bottleneck: PositiveInt | None = 32,
    activation: Activation = "relu",
    norm: Norm = "batch",
) -> nn.Module:
    """3x3 convolutions that halve the image, a linear layer to `bottleneck` numbers, and the same backwards.

    Inputs (B, C, H, W) → outputs (B, C·H·W), the image restored and flattened, linear: targets are the normalised
    pixels. `model.encode` gives the code. Source: Masci et al. 2011, doi:10.1007/978-3-642-21735-7_7, with strides for
    pooling.

    Args:
        spec: images to be restored.
        channels: of each convolution; each halves the image, rounding up.
        bottleneck: numbers in the code; null: the last images are the code, without linear layers.
        activation, norm: after each layer but the code and the output.

    Raises: ContractError if `spec` is not of images, or its task is not to restore them.
    """
    spec.require("autoencoder", Kind.IMAGE)
    if spec.task is not Task.RECONSTRUCTION:
        raise ContractError(
            f"model=autoencoder restores its input, but data={spec.name} is a {spec.task.value.replace('_', ' ')} "
            "task: write data.reconstruct=true"
        )
    sizes = [tuple(spec.shape[1:])]
    for _ in channels:
        sizes.append(tuple((n + 1) // 2 for n in sizes[-1]))
    widths = [spec.shape[0], *channels]
    encoder: OrderedDict[str, nn.Module] = OrderedDict()
    for i, (before, after) in enumerate(zip(widths, channels, strict=False), start=1):
        conv = nn.Conv2d(before, after, 3, stride=2, padding=1, bias=not follows_shift(norm))
        encoder |= _layer(conv, after, norm, activation, i)
    decoder: OrderedDict[str, nn.Module] = OrderedDict()
    if bottleneck is not None:
        shape = (widths[-1], *sizes[-1])
        features = shape[0] * shape[1] * shape[2]
        encoder |= {"flatten": nn.Flatten(), "code": nn.Linear(features, bottleneck)}
        decoder |= {"linear": nn.Linear(bottleneck, features), "activation": make_activation(activation)}
        decoder["unflatten"] = nn.Unflatten(1, shape)
    for i in range(len(channels), 0, -1):
        is_output = i == 1
        # A stride of 2 brings n to 2n - 1 pixels; one more where the image had an even number.
        extra = (sizes[i - 1][0] - (2 * sizes[i][0] - 1), sizes[i - 1][1] - (2 * sizes[i][1] - 1))
        bias = is_output or not follows_shift(norm)
        conv_back = nn.ConvTranspose2d(widths[i], widths[i - 1], 3, 2, 1, extra, bias=bias)
        if is_output:
            decoder["output"] = conv_back
        else:
            decoder |= _layer(conv_back, widths[i - 1], norm, activation, i)
    return Autoencoder(nn.Sequential(encoder), nn.Sequential(decoder))


class Autoencoder(nn.Module):
    """See `autoencoder`."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def encode(self, images: Tensor) -> Tensor:
        """The code (B, bottleneck) of images (B, C, H, W), or (B, channels, h, w) without a bottleneck."""
        code: Tensor = self.encoder(images)
        return code

    def decode(self, code: Tensor) -> Tensor:
        """The images (B, C, H, W) that a code stands for."""
        images: Tensor = self.decoder(code)
        return images

    def forward(self, images: Tensor) -> Tensor:
        return self.decode(self.encode(images)).flatten(1)


def _layer(conv: nn.Module, channels: int, norm: Norm, activation: Activation, number: int) -> dict[str, nn.Module]:
    names = (f"conv{number}", f"norm{number}")
    modules = dict(zip(names, normed(conv, norm, channels, dims=2), strict=False))
    return modules | ({f"activation{number}": make_activation(activation)} if activation != "identity" else {})
