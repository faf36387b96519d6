"""The optimizer over its parameter groups, and the schedule behind its warm-up."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import ConstantLR

from dlrun.build.calling import Part, call, default_of, factory_of, parameters_of
from dlrun.build.settings import parameter_rules
from dlrun.errors import ConfigError, ContractError
from dlrun.optim.durations import resolve, resolve_arguments
from dlrun.optim.parameter_groups import parameter_groups
from dlrun.optim.schedule import Schedule


def build_optimizer(config: Part, model: nn.Module) -> Any:
    """The optimizer over parameter groups that follow `optimizer.param_groups`; fused where torch has it.

    On a CUDA device its learning rates are tensors there, if it takes them so, for its steps to be captured in a graph.
    For a model in which nothing learns, one without parameters that is never asked for a step.
    """
    if not any(p.requires_grad for p in model.parameters()):
        return torch.optim.SGD([{"params": []}], lr=0.0)
    node, rules = dict(config["optimizer"]), parameter_rules(config)
    node.pop("param_groups", None)
    factory = factory_of("optimizer", node)
    parameters = parameters_of(factory)
    lr = node.get("lr", default_of(parameters, "lr", 1e-3))
    decay = node.get("weight_decay", default_of(parameters, "weight_decay", 0.0))
    groups = parameter_groups(model, lr=float(lr), weight_decay=float(decay or 0.0), rules=rules)
    if not decay:
        for group in groups:
            group.pop("weight_decay")
    extra = {"fused": True} if can_fuse(parameters, node, model) else {}
    on_cuda = all(p.device.type == "cuda" for p in model.parameters())
    if on_cuda and "capturable" in parameters and node.get("capturable") is None and not node.get("differentiable"):
        extra["capturable"] = True
    optimizer = call("optimizer", node, factory, groups, **extra)
    for group in optimizer.param_groups if on_cuda else ():
        if group.get("capturable") or (isinstance(optimizer, torch.optim.SGD) and group["fused"]):
            group["lr"] = torch.tensor(float(group["lr"]), device=group["params"][0].device)
    if not hasattr(optimizer, "step") or not hasattr(optimizer, "param_groups"):
        raise ContractError(f"optimizer={node['_target_']} gives no optimizer but {type(optimizer).__name__}.")
    return optimizer


def build_schedule(
    config: Part,
    optimizer: Any,
    *,
    total_steps: int,
    steps_per_epoch: int,
    higher_is_better: bool,
    hold: tuple[int, float] | None = None,
) -> Schedule:
    """The schedule behind its warm-up, every length resolved to optimizer steps (or to its own interval).

    Args:
        hold: (step, learning rate): from that step on the rate is constant.
    """
    if total_steps == 0:
        return Schedule(optimizer, partial(ConstantLR, factor=1.0), 0, steps_per_epoch, "step")
    node = dict(config.get("scheduler") or {"_target_": "torch.optim.lr_scheduler.ConstantLR", "factor": 1.0})
    interval, warmup = node.pop("interval", "step"), node.pop("warmup", 0)
    warmup_steps = resolve(
        warmup, unit="step", steps_per_epoch=steps_per_epoch, total_steps=total_steps, key="scheduler.warmup"
    )
    if warmup_steps == total_steps == 1:
        warmup_steps = 0  # a share of the only step of a try-out
    if warmup_steps >= total_steps:
        raise ConfigError(
            f"scheduler.warmup must be shorter than training, which has {total_steps} steps, got {warmup} "
            f"({warmup_steps} steps)."
        )
    node = resolve_arguments(
        node,
        unit="epoch" if interval == "epoch" else "step",
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps - warmup_steps,
    )
    for group in optimizer.param_groups:
        if group.get("until") is not None:
            group["until_steps"] = resolve(
                group["until"],
                unit="step",
                steps_per_epoch=steps_per_epoch,
                total_steps=total_steps,
                key="optimizer.param_groups.until",
            )
    factory = factory_of("scheduler", node)
    if interval == "metric" and "mode" in parameters_of(factory):
        factory = partial(factory, mode="max" if higher_is_better else "min")

    def make(stand_in: torch.optim.Optimizer) -> Any:
        return call("scheduler", node, factory, stand_in)

    return Schedule(optimizer, make, warmup_steps, steps_per_epoch, interval, hold)


def can_fuse(parameters: Mapping[str, inspect.Parameter], node: Part, model: nn.Module) -> bool:
    """Whether one kernel may do the whole update: faster, also on the CPU."""
    if "fused" not in parameters or any(node.get(key) is not None for key in ("fused", "foreach", "differentiable")):
        return False
    # Of Adagrad the kernel for CUDA came after torch 2.11, and there is none for mps.
    devices = ("cpu",) if node["_target_"] == "torch.optim.Adagrad" else ("cpu", "cuda", "mps")
    return all(p.device.type in devices and p.is_floating_point() for p in model.parameters())
