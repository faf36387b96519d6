"""Models of other libraries, fitted to the data: torchvision's, and timm's (an optional extra)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torchvision import models as zoo

from dlrun.contracts import DataSpec, Kind
from dlrun.errors import ConfigError, ContractError, DataError, MissingExtraError, did_you_mean


def from_torchvision(spec: DataSpec, *, name: str = "resnet18", pretrained: bool = False, **options: Any) -> nn.Module:
    """A classifier of torchvision with the outputs and the input channels of `spec`.

    Inputs (B, C, H, W) → outputs (B, spec.num_outputs), without softmax. Images are used as they are; most of these
    models are made for 224 x 224. The auxiliary classifiers of googlenet and inception_v3 are left out. Where C is not
    3, the pretrained filters of the first convolution are averaged over their channels and shared out among the C, so
    that grey images give what they would as colour ones.

    Args:
        spec: images.
        name: as in torchvision.models.list_models(module=torchvision.models).
        pretrained: start from torchvision's best weights of ImageNet, downloaded once; the classifier starts anew
            unless the data have 1000 classes.
        options: further arguments of the model, such as dropout.

    Raises:
        ConfigError for a name that torchvision does not have, or options that the model does not take.
        ContractError if `spec` is not of images, or the model cannot read images of that shape.
        DataError if pretrained weights cannot be had.
    """
    spec.require("torchvision", Kind.IMAGE)
    known = zoo.list_models(module=zoo)
    if name not in known:
        raise ConfigError(
            f"model.name must be one of torchvision's {len(known)} classifiers, such as resnet50, densenet121 or "
            f"vit_b_16, got '{name}'.{did_you_mean(name, known)}"
        )
    fixed = _fixed_options(name, spec, pretrained) | options
    model = _made(
        lambda: zoo.get_model(name, weights=None, num_classes=spec.num_outputs, **fixed), "torchvision", name, spec
    )
    _set_channels(model, spec.shape[0])
    _try(model, "torchvision", name, spec)
    if pretrained:
        source = _downloaded(lambda: zoo.get_model(name, weights="DEFAULT", **options), "torchvision", name)
        _transplant(source, model)
    return model


def from_timm(spec: DataSpec, *, name: str = "resnet18", pretrained: bool = False, **options: Any) -> nn.Module:
    """A model of timm with the outputs and the input channels of `spec`; needs `pip install 'dlrun[timm]'`.

    Inputs (B, C, H, W) → outputs (B, spec.num_outputs), without softmax. Models of one size of image only, such as
    vision transformers, are made for the size of the data. With other than 3 channels, timm sums or repeats pretrained
    filters.

    Args:
        spec: images.
        name: as in timm.list_models(), with or without the tag of its weights: resnet50.a1_in1k.
        pretrained: start from its published weights, downloaded once; the classifier starts anew if it does not fit.
        options: further arguments of timm.create_model, such as drop_path_rate.

    Raises:
        MissingExtraError without timm.
        ConfigError for a name that timm does not have, or options that the model does not take.
        ContractError if `spec` is not of images, or the model cannot read images of that shape.
        DataError if pretrained weights cannot be had.
    """
    spec.require("timm", Kind.IMAGE)
    try:
        import timm  # an extra, and slow to import
    except ImportError as error:
        raise MissingExtraError("model=timm", "timm") from error
    known = timm.list_models()
    if name not in known and name not in timm.list_pretrained():
        raise ConfigError(
            f"model.name must be one of timm's {len(known):,} models, such as resnet50d or convnext_tiny, alone or "
            f"with the tag of its weights, got '{name}'.{did_you_mean(name.split('.')[0], known)}"
        )
    channels, *size = spec.shape
    published = timm.get_pretrained_cfg(name)
    if published is not None and published.fixed_input_size and list(published.input_size[1:]) != size:
        options = {"img_size": tuple(size)} | options

    def make(pretrained: bool) -> nn.Module:
        model: nn.Module = timm.create_model(
            name, pretrained=pretrained, num_classes=spec.num_outputs, in_chans=channels, **options
        )
        return model

    model = _made(lambda: make(pretrained=False), "timm", name, spec)
    _try(model, "timm", name, spec)
    return _downloaded(lambda: make(pretrained=True), "timm", name) if pretrained else model


def _fixed_options(name: str, spec: DataSpec, pretrained: bool) -> dict[str, Any]:
    """What the factories of some torchvision models have to be told about the data, or told not to do."""
    match name.split("_")[0]:
        case "googlenet" | "inception":
            # transform_input rescales three channels to what the published weights were trained on.
            return {
                "aux_logits": False,
                "init_weights": not pretrained,
                "transform_input": pretrained and spec.shape[0] == 3,
            }
        case "vit" if not pretrained:  # published positions are those of one size
            return {"image_size": spec.shape[1]}
        case "maxvit":
            return {"input_size": spec.shape[1:]}
    return {}


def _made(make: Callable[[], nn.Module], library: str, name: str, spec: DataSpec) -> nn.Module:
    try:
        return make()
    except TypeError as error:
        raise ConfigError(f"model={library} model.name={name} does not take what it was given: {error}") from error
    except (ValueError, AssertionError, RuntimeError) as error:
        raise ContractError(_cannot_read(library, name, spec, error)) from error


def _try(model: nn.Module, library: str, name: str, spec: DataSpec) -> None:
    """Pass two images through `model` without computing anything, which shows whether their shape fits.

    Raises: ContractError in the words of the library.
    """
    was_training = model.training
    tensors = {key: tensor.to("meta") for key, tensor in model.state_dict(keep_vars=True).items()}
    tensors |= {key: tensor.to("meta") for key, tensor in model.named_buffers()}  # those not saved, too
    try:
        torch.func.functional_call(model.eval(), tensors, torch.empty(2, *spec.shape, device="meta"))
    except NotImplementedError:
        pass  # shapes that depend on numbers; the check before training uses real ones
    except (RuntimeError, ValueError, AssertionError) as error:
        raise ContractError(_cannot_read(library, name, spec, error)) from error
    finally:
        model.train(was_training)


def _cannot_read(library: str, name: str, spec: DataSpec, error: Exception) -> str:
    reason = " ".join(str(error).split()).rstrip(".")
    return (
        f"model={library} model.name={name} cannot read images of shape {spec.shape}, as data={spec.name} gives them "
        f"({reason}): most such models are made for 224 x 224 pixels, so choose another model.name or larger images"
    )


def _downloaded(load: Callable[[], nn.Module], library: str, name: str) -> nn.Module:
    """What `load` gives; whatever goes wrong with a download becomes one sentence."""
    try:
        return load()
    except (OSError, RuntimeError) as error:  # no network, a full disk, a damaged file, no such weights
        reason = " ".join(str(error).split()).rstrip(".")
        raise DataError(
            f"the pretrained weights of model={library} model.name={name} cannot be had ({reason}): connect to the "
            f"network once, after which they are kept in {torch.hub.get_dir()} or where the library keeps them, or "
            "write model.pretrained=false"
        ) from error


def _first_convolution(model: nn.Module) -> tuple[str, nn.Conv2d]:
    return next((path, module) for path, module in model.named_modules() if isinstance(module, nn.Conv2d))


def _set_channels(model: nn.Module, channels: int) -> None:
    """Make the first convolution anew if it does not read images of `channels`."""
    path, conv = _first_convolution(model)
    if conv.in_channels != channels:
        fitting = nn.Conv2d(
            channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]  # two numbers, as the constructor makes them
            conv.stride,  # type: ignore[arg-type]
            conv.padding,  # type: ignore[arg-type]
            bias=conv.bias is not None,
        )
        model.set_submodule(path, fitting)


@torch.no_grad()
def _transplant(source: nn.Module, model: nn.Module) -> None:
    """Copy all weights of `source` but those of its classifier, which has another shape, and fit the first ones."""
    wanted, given = model.state_dict(), source.state_dict()
    path, conv = _first_convolution(model)
    first = f"{path}.weight"
    if wanted[first].shape != given[first].shape:
        mean = given[first].mean(1, keepdim=True)  # (out, 1, height, width)
        given[first] = (mean * given[first].shape[1] / conv.in_channels).expand_as(conv.weight)
    model.load_state_dict(
        wanted | {key: x for key, x in given.items() if key in wanted and x.shape == wanted[key].shape}
    )
