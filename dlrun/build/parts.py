"""Data, model, loss, augmentation, callbacks and loggers, each held to its contract."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from dlrun import splitting
from dlrun.build.calling import Part, call, factory_of, parameters_of
from dlrun.build.settings import COMMON_DATA
from dlrun.contracts import Augment, Batch, DataSpec, Logger, Splits, Task
from dlrun.engine.callbacks import Callback
from dlrun.engine.foreign import adapt
from dlrun.engine.loaders import gather
from dlrun.errors import ConfigError, ContractError

SPLITTING = set(inspect.signature(splitting.complete).parameters) - {"splits"}


def build_data(config: Part) -> Splits:
    """All three splits, carved, encoded and normalised."""
    node = config["data"]
    factory = factory_of("data", {key: value for key, value in node.items() if key not in COMMON_DATA})
    wanted = parameters_of(factory)
    shared = {key: value for key, value in node.items() if key in COMMON_DATA and key in wanted}
    if shared.get("batch_size") == "auto":
        raise ConfigError(
            f"data.batch_size=auto is found by training steps, but data={node['_target_']} needs the size to make its "
            "examples: give a number."
        )
    splits = call("data", node, factory, **shared)
    if not isinstance(splits, Splits):
        raise ContractError(f"data={node['_target_']} must return dlrun.contracts.Splits, got {type(splits).__name__}.")
    return splitting.complete(adapt(splits), **{key: value for key, value in node.items() if key in SPLITTING})


def build_model(config: Part, spec: DataSpec, inputs: Callable[[int], Any] | None = None) -> nn.Module:
    """The model, initialised. Draws from the global generator, so seed it first.

    Args:
        inputs: gives so many training inputs, ready for the model, to an initialisation that asks for them.

    Raises: ContractError if model and data do not fit; the message names both shapes.
    """
    node = config["model"]
    factory = factory_of("model", node)
    arguments = {"spec": spec} if "spec" in parameters_of(factory) else {}
    model = call("model", node, factory, **arguments)
    if not isinstance(model, nn.Module):
        raise ContractError(f"model={node['_target_']} must give a torch.nn.Module, got {type(model).__name__}.")
    if config.get("init"):
        factory = factory_of("init", config["init"])
        call(
            "init", config["init"], factory, model, **({"inputs": inputs} if "inputs" in parameters_of(factory) else {})
        )
    return model


def inputs_for(splits: Splits, prepare: Callable[[Batch, int], Batch], device: torch.device) -> Callable[[int], Any]:
    """What gives so many inputs, all if there are fewer, evenly spaced over the training split, ready for a model."""

    def inputs(count: int) -> Any:
        total = len(splits.train)
        index = torch.arange(min(count, total)) * total // min(count, total)
        return prepare(gather(splits.train, index).map(lambda tensor: tensor.to(device)), 0).inputs

    return inputs


def build_loss(config: Part, splits: Splits) -> nn.Module:
    """The loss; `spec` and `class_counts` are given to factories that take them."""
    node = config.get("loss") or {"_target_": "dlrun.losses.auto"}
    factory = factory_of("loss", node)
    wanted = parameters_of(factory)
    arguments: dict[str, Any] = {"spec": splits.spec} if "spec" in wanted else {}
    if "class_counts" in wanted and node.get("class_counts") is None and splits.spec.task is Task.CLASSIFICATION:
        targets = splitting.targets_of(splits.train)
        if targets.ndim == 1:  # soft labels have no counts
            arguments["class_counts"] = torch.bincount(targets, minlength=splits.spec.num_outputs).tolist()
    loss = call("loss", node, factory, **arguments)
    if not callable(loss):
        raise ContractError(
            f"loss={node['_target_']} must be callable as loss(outputs, targets), got {type(loss).__name__}."
        )
    return loss  # type: ignore[no-any-return]


def build_augment(config: Part, spec: DataSpec) -> list[Augment]:
    """The augmentations in the order given."""
    return [_with_spec(f"augment.{name}", node, spec) for name, node in (config.get("augment") or {}).items()]


def _with_spec(key: str, node: Part, spec: DataSpec) -> Any:
    factory = factory_of(key, node)
    return call(key, node, factory, **({"spec": spec} if "spec" in parameters_of(factory) else {}))


def build_callbacks(config: Part) -> list[Callback]:
    """The user's own callbacks."""
    built = []
    for name, node in (config.get("callbacks") or {}).items():
        callback = call(f"callbacks.{name}", node, factory_of(f"callbacks.{name}", node))
        if not isinstance(callback, Callback):
            raise ContractError(
                f"callbacks.{name} must be a dlrun.engine.callbacks.Callback, got {type(callback).__name__}."
            )
        built.append(callback)
    return built


def check_loggers(config: Part) -> None:
    """Let each logger that has a `require()` say what it lacks, before anything is written."""
    for name, node in (config.get("logger") or {}).items():
        factory = factory_of(f"logger.{name}", node)
        require = getattr(factory.func if isinstance(factory, partial) else factory, "require", None)
        if require is not None:
            require()


def build_loggers(config: Part, folder: str, start_step: int) -> list[Logger]:
    """The loggers; those that take `folder` get the run's directory, those that take `start_step` where it goes on."""
    built = []
    for name, node in (config.get("logger") or {}).items():
        factory = factory_of(f"logger.{name}", node)
        offered = {"folder": folder, "start_step": start_step}
        arguments = {key: value for key, value in offered.items() if key in parameters_of(factory)}
        built.append(call(f"logger.{name}", node, factory, **arguments))
    return built
