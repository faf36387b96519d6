"""How a model's weights start: functions that change a model in place, with PyTorch's global generator alone.

One that looks at the data asks for `inputs` by name: a function that gives so many training inputs, evenly spaced over
the training split, ready for the model and without augmentation. The others know the model alone.

Each fills the weights of linear, convolutional and recurrent layers and of attention, matrix by matrix where one tensor
holds several (gates, groups, queries and keys and values), and sets their biases to zero. Norms keep what they have,
and so do embeddings but for `gpt2`.
With weight norm, w = g · v / ‖v‖, it is v that is filled, and g becomes ‖v‖, so that w is what was drawn.
"""

from __future__ import annotations

import fnmatch
import logging
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized

from dlrun.contracts import PositiveFloat, PositiveInt
from dlrun.errors import ConfigError

Distribution = Literal["uniform", "normal"]

JOINED = {"qkv": 3, "key_value": 2, "gate_value": 2}  # linear layers, by name, that are several in one product


def default(model: nn.Module) -> None:
    """Leave the weights as PyTorch's constructors made them."""


def xavier(model: nn.Module, *, gain: PositiveFloat = 1.0, distribution: Distribution = "uniform") -> None:
    """Variance gain² · 2 / (fan_in + fan_out). Source: Glorot & Bengio 2010, sec. 4.2.1."""
    _fill(model, lambda fan_in, fan_out: gain * math.sqrt(2 / (fan_in + fan_out)), distribution)


def he(
    model: nn.Module,
    *,
    gain: PositiveFloat = 2**0.5,
    mode: Literal["fan_in", "fan_out"] = "fan_in",
    distribution: Distribution = "normal",
) -> None:
    """Variance gain² / fan; √2 is the gain of ReLU. Source: He et al. 2015 (arXiv:1502.01852)."""
    _fill(model, lambda fan_in, fan_out: gain / math.sqrt(fan_in if mode == "fan_in" else fan_out), distribution)


def lecun(model: nn.Module, *, gain: PositiveFloat = 1.0, distribution: Distribution = "normal") -> None:
    """Variance gain² / fan_in, right for SELU. Source: LeCun et al. 1998, Efficient BackProp, sec. 4.6."""
    _fill(model, lambda fan_in, fan_out: gain / math.sqrt(fan_in), distribution)


def orthogonal(model: nn.Module, *, gain: PositiveFloat = 1.0) -> None:
    """Rows or columns, whichever are fewer, orthonormal times `gain`. Source: Saxe et al. 2013 (arXiv:1312.6120)."""
    _apply(model, lambda weight: nn.init.orthogonal_(weight, gain))


def truncated_normal(model: nn.Module, *, std: PositiveFloat = 0.02, cutoff: PositiveFloat = 2.0) -> None:
    """Normal with mean 0, drawn again where beyond `cutoff` times `std`; usual for transformers (arXiv:1810.04805).

    `std` is that of the whole normal; the truncated one's is smaller, .88 of it at cutoff 2.
    """
    _apply(model, lambda weight: nn.init.trunc_normal_(weight, std=std, a=-cutoff * std, b=cutoff * std))


def gpt2(model: nn.Module, *, std: PositiveFloat = 0.02, residual: str = "*.inner.output") -> None:
    """Normal with mean 0 and one `std` for matrices, embeddings and learned positions, whatever their size.

    Linear layers that end a residual branch, n of them, have std / √n, so that the sum of the branches does not grow
    with the depth. Norms keep what they have.

    Args:
        residual: of the names of these layers within the model; * stands for any characters. Transformers of this
            package call them `attention.inner.output` and `feed_forward.inner.output`; nanoGPT `c_proj`.

    Raises: ConfigError if no linear layer has such a name.
    Source: Radford et al. 2019, Language Models are Unsupervised Multitask Learners, sec. 2.3.
    """
    ends = [
        module
        for name, module in model.named_modules()
        if fnmatch.fnmatchcase(name, residual) and isinstance(module, nn.Linear)
    ]
    if not ends:
        raise ConfigError(
            f"init=gpt2 found no linear layer named '{residual}' in this model: it needs a transformer (such as "
            "model=gpt), or init.residual with the name of the layers that end its residual branches"
        )
    _apply(model, lambda weight: nn.init.normal_(weight, std=std))
    for table in _embeddings(model):
        nn.init.normal_(table, std=std)
    with torch.no_grad():
        for layer in ends:
            layer.weight.div_(math.sqrt(len(ends)))


def zero_last_norm(model: nn.Module, *, pattern: str = "*last_norm") -> None:
    """Zero the scale of the last norm of each residual block, so that the block starts as the identity.

    Source: Goyal et al. 2017, sec. 5.1 (arXiv:1706.02677). All other weights stay as they are.

    Args:
        pattern: of the names of these norms within the model; * stands for any characters. Models of this package
            call them `last_norm`; torchvision's ResNets `bn2` or `bn3`.

    Raises: ConfigError if no module with a scale has such a name.
    """
    scales = [
        module.weight
        for name, module in model.named_modules()
        if fnmatch.fnmatchcase(name, pattern) and isinstance(getattr(module, "weight", None), Tensor)
    ]
    if not scales:
        raise ConfigError(
            f"init=zero_last_norm found no norm named '{pattern}' in this model: it needs residual blocks with norms "
            "(for model=mlp: model.residual=true model.norm=batch), or init.pattern with the name the model uses"
        )
    for scale in scales:
        nn.init.zeros_(scale)


def whitening(
    model: nn.Module,
    inputs: Callable[[int], Tensor],
    *,
    layer: str = "whitening",
    images: PositiveInt = 5000,
    eps: PositiveFloat = 5e-4,
) -> None:
    """Fill a convolution with the whitening of its input: filters ±vᵢ / √(λᵢ + eps), least variance first.

    λᵢ and vᵢ are eigenvalues and eigenvectors of the second moment of the patches that the filters see. With both signs
    an activation that stops negative numbers loses nothing. Its bias and all other weights stay as they are.

    Args:
        inputs: see above.
        layer: name of the convolution within the model.
        images: how many inputs to take patches from.
        eps: keeps directions in which patches hardly vary from being blown up.

    Raises: ConfigError if there is no such convolution, or it has not twice as many filters as a patch has numbers.
    Source: hlb-CIFAR10 (https://github.com/tysam-code/hlb-CIFAR10); Jordan 2024, sec. 3.1 (arXiv:2404.00498).
    """
    found = dict(model.named_modules()).get(layer)
    if not isinstance(found, nn.Conv2d):
        raise ConfigError(
            f"init=whitening fills a convolution called '{layer}', and this model has none: it needs "
            "model=whitened_cnn, or init.layer with the name of a convolution of the model"
        )
    numbers = found.in_channels * math.prod(found.kernel_size)
    if found.groups > 1 or found.out_channels != 2 * numbers:
        raise ConfigError(
            f"init=whitening makes {2 * numbers} filters, two for each number in a patch of "
            f"{found.in_channels}x{found.kernel_size[0]}x{found.kernel_size[1]}, but init.layer={layer} has "
            f"{found.out_channels} in {found.groups} groups"
        )
    moment = torch.zeros(numbers, numbers, dtype=torch.float64)
    count = 0
    for part in inputs(images).float().split(1000):
        patches = nn.functional.unfold(part, found.kernel_size)  # (B, numbers, places)
        moment += (patches @ patches.mT).sum(0).cpu()
        count += len(patches) * patches.shape[2]
    values, vectors = torch.linalg.eigh(moment / count)
    filters = vectors.T / (values + eps).sqrt()[:, None]
    with torch.no_grad():
        found.weight.copy_(torch.cat([filters, -filters]).view_as(found.weight))


def weights(model: nn.Module) -> Iterator[Tensor]:
    """The matrices and kernels (out, in, ...) of `model`, as views of its parameters, each parameter once.

    Of a weight-normed layer it is v, the direction.
    """
    seen: set[int] = set()
    for path, module in model.named_modules():
        parts = JOINED.get(path.rpartition(".")[2], 1) if isinstance(module, nn.Linear) else 1
        for name, parameter in _owned(module).items():
            if "weight" in name and id(parameter) not in seen:
                seen.add(id(parameter))
                for matrix in _matrices(module, name, parameter):
                    yield from matrix.chunk(parts)


def _embeddings(model: nn.Module) -> Iterator[Tensor]:
    """Tables of embeddings and of positions."""
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if isinstance(module, nn.Embedding | nn.EmbeddingBag) or "embed" in name:
                yield parameter


def _owned(module: nn.Module) -> dict[str, Tensor]:
    """The parameters of `module` itself, v of weight norm under the name of the weight that it makes."""
    owned: dict[str, Tensor] = dict(module.named_parameters(recurse=False))
    return owned | {name: each.get_parameter("original1") for name, each in _weight_normed(module).items()}


def _weight_normed(module: nn.Module) -> dict[str, ParametrizationList]:
    """What makes each weight of `module` that has weight norm; original0 is g and original1 is v."""
    lists = module.parametrizations.items() if is_parametrized(module) else ()  # type: ignore[union-attr, operator]
    return {name: each for name, each in lists if hasattr(each, "original1")}


def _matrices(module: nn.Module, name: str, weight: Tensor) -> tuple[Tensor, ...]:
    """`weight` cut into the matrices that act separately, outputs first; nothing for norms and embeddings."""
    match module:
        case nn.Linear() | nn.Conv1d() | nn.Conv2d() | nn.Conv3d():
            return (weight,)
        case nn.ConvTranspose1d() | nn.ConvTranspose2d() | nn.ConvTranspose3d():
            return tuple(part.transpose(0, 1) for part in weight.chunk(module.groups))
        case nn.RNNBase() | nn.RNNCellBase():
            # weight_hr projects an LSTM's output and has no gates.
            return (weight,) if "_hr_" in name else weight.chunk(_gates(module))
        case nn.MultiheadAttention():
            # Query, key and value in one, or q_proj_weight, k_proj_weight and v_proj_weight.
            return weight.chunk(3) if name == "in_proj_weight" else (weight,)
    return ()


def _gates(module: nn.RNNBase | nn.RNNCellBase) -> int:
    return 4 if isinstance(module, nn.LSTM | nn.LSTMCell) else 3 if isinstance(module, nn.GRU | nn.GRUCell) else 1


def _biases(model: nn.Module) -> Iterator[Tensor]:
    for module in model.modules():
        owned = _owned(module)
        if any("weight" in name and _matrices(module, name, weight) for name, weight in owned.items()):
            yield from (parameter for name, parameter in owned.items() if "bias" in name)


@torch.no_grad()
def _apply(model: nn.Module, fill: Callable[[Tensor], object]) -> None:
    for weight in weights(model):
        fill(weight)
    for module in model.modules():
        for each in _weight_normed(module).values():
            norm: Any = each[0]
            each.get_parameter("original0").copy_(norm.right_inverse(each.get_parameter("original1"))[0])
    for bias in _biases(model):
        bias.zero_()


def _fill(model: nn.Module, std: Callable[[int, int], float], distribution: Distribution) -> None:
    """Draw every weight with mean 0 and the standard deviation `std(fan_in, fan_out)`."""

    def fill(weight: Tensor) -> None:
        positions = math.prod(weight.shape[2:])
        spread = std(weight.shape[1] * positions, weight.shape[0] * positions)
        if distribution == "normal":
            nn.init.normal_(weight, 0.0, spread)
        else:
            nn.init.uniform_(weight, -math.sqrt(3) * spread, math.sqrt(3) * spread)

    _apply(model, fill)


def from_checkpoint(model: nn.Module, *, path: str, strict: bool = False) -> None:
    """Take the weights of another model where names and shapes agree, for fine-tuning; the others stay as they are.

    Args:
        path: the folder of a run, whose best weights are taken, or a .pt file: a checkpoint of dlrun or a state_dict,
            also one kept under "model" or "state_dict".
        strict: refuse unless every tensor of this model is found, and no other.

    Raises: ConfigError if there is no such file, it holds no weights, or they do not fit.
    """
    file = Path(path) / "checkpoints/best.pt" if Path(path).is_dir() else Path(path)
    found, ours = _read_weights(file), model.state_dict()
    fitting = {name: value for name, value in found.items() if name in ours and value.shape == ours[name].shape}
    left = [name for name in ours if name not in fitting]
    unused = [name for name in found if name not in fitting]
    if not fitting or (strict and (left or unused)):
        some = ", ".join([*left, *unused][:4])
        raise ConfigError(
            f"init.path={path} fits {len(fitting)} of the model's {len(ours)} tensors by name and shape, and holds "
            f"{len(unused)} others (such as {some})" + ("; init.strict=false takes those that fit" if fitting else "")
        )
    model.load_state_dict(fitting, strict=False)
    if left:
        logging.getLogger(__name__).warning(
            "init.path=%s: %d of %d tensors taken; left as initialised: %s",
            path, len(fitting), len(ours), ", ".join(left),
        )  # fmt: skip


def _read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors by name in a checkpoint or state_dict."""
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ConfigError(f"init.path: there is no file {file}; give the folder of a run, or a .pt file") from None
    except Exception as error:
        raise ConfigError(f"init.path={file} cannot be read as weights: {str(error).splitlines()[0]}") from None
    if isinstance(content, dict) and "state" in content:  # last.pt: what would be evaluated, as for `dlrun evaluate`
        trained = content["state"]["train"]
        content = trained["average"]["module"] if trained["average"] else trained["model"]
    for key in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise ConfigError(f"init.path={file} holds no weights by name but {type(content).__name__}")
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
