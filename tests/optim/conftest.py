import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from dlrun.optim.durations import resolve, resolve_arguments
from dlrun.optim.parameter_groups import parameter_groups
from dlrun.optim.rules import ParameterGroups
from dlrun.optim.schedule import Schedule

CONF = Path(__file__).parents[2] / "conf"


@functools.cache
def composed(group: str, name: str) -> DictConfig:
    return OmegaConf.merge(OmegaConf.load(CONF / group / "_common.yaml"), OmegaConf.load(CONF / group / f"{name}.yaml"))


def load(optimizer: str = "sgd", scheduler: str = "constant", **overrides: Any) -> dict[str, Any]:
    """Both groups as train.yaml composes them, resolved to plain values; overrides are `optimizer__lr=0.1`."""
    parts = {"optimizer": composed("optimizer", optimizer), "scheduler": composed("scheduler", scheduler)}
    config = OmegaConf.create(parts)
    for key, value in overrides.items():
        OmegaConf.update(config, key.replace("__", "."), value)
    return OmegaConf.to_container(config, resolve=True)


def build_optimizer(config: dict[str, Any], model: nn.Module) -> torch.optim.Optimizer:
    part = dict(config["optimizer"])
    rules = ParameterGroups(**part.pop("param_groups"))
    groups = parameter_groups(model, lr=part["lr"], weight_decay=part.get("weight_decay", 0.0), rules=rules)
    return instantiate(part, _convert_="all")(groups)


def build_schedule(config: dict[str, Any], optimizer: Any, total_steps: int, steps_per_epoch: int) -> Schedule:
    part = dict(config["scheduler"])
    interval = part.pop("interval")
    warmup = resolve(part.pop("warmup"), unit="step", steps_per_epoch=steps_per_epoch, total_steps=total_steps)
    unit = "step" if interval == "step" else "epoch"
    part = resolve_arguments(part, unit=unit, steps_per_epoch=steps_per_epoch, total_steps=total_steps - warmup)
    return Schedule(optimizer, instantiate(part, _convert_="all"), warmup, steps_per_epoch, interval)


@pytest.fixture
def compose() -> Callable[..., dict[str, Any]]:
    return load


@pytest.fixture
def make_optimizer() -> Callable[..., torch.optim.Optimizer]:
    return build_optimizer


@pytest.fixture
def make_schedule() -> Callable[..., Schedule]:
    return build_schedule
