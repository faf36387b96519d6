"""Optimizers of the optional package pytorch_optimizer, by name."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable
from typing import Any

import torch

from dlrun.contracts import NonNegativeFloat, PositiveFloat
from dlrun.errors import ConfigError, MissingExtraError, did_you_mean

REFUSED = {
    "it needs the gradient's own graph": ("adahessian", "sophiah"),
    "it takes more than one evaluation, or the loss itself, to make a step": ("alig", "bsam", "lbfgs"),
    "it takes the model in place of its parameters": ("adalomo", "adammini", "lomo"),
    "it wants parameters marked for it; optimizer=muon is dlrun's own": (
        "adago", "adamuon", "distributedmuon", "muon", "muonclip", "normuon", "spectralsphere",
    ),
    "it evaluates other weights than it trains": (
        "schedulefreeadamw", "schedulefreeradam", "schedulefreesgd", "splus",
    ),
    "what it remembers is not plain tensors, so its runs could not be resumed": (
        "adashift", "conda", "demo", "scalableshampoo", "scion", "scionlight",
    ),
    "it does not go on from its saved state exactly": ("kron",),
}  # fmt: skip


def by_name(
    params: Iterable[Any],
    *,
    name: str,
    lr: PositiveFloat = 1e-3,
    weight_decay: NonNegativeFloat = 0.0,
    **options: Any,
) -> torch.optim.Optimizer:
    """The optimizer of pytorch_optimizer with that name, capitals or not: Lion, AdaBelief, Adan, SOAP, …

    Args:
        params: parameter groups.
        options: further arguments of that optimizer.

    Raises:
        MissingExtraError if pytorch_optimizer is not installed.
        ConfigError if it has no such optimizer, or one that does not fit into a training step.
    """
    try:
        library = importlib.import_module("pytorch_optimizer")
    except ImportError:
        raise MissingExtraError("optimizer=pytorch_optimizer", "pytorch_optimizer") from None
    known: list[str] = library.get_supported_optimizers()
    if name.lower() not in known:
        raise ConfigError(
            f"optimizer.name must be an optimizer of pytorch_optimizer, got '{name}'."
            f"{did_you_mean(name.lower(), known)} Its own list: pytorch_optimizer.get_supported_optimizers()."
        )
    for reason, names in REFUSED.items():
        if name.lower() in names:
            raise ConfigError(f"optimizer.name={name} cannot be used here: {reason}.")
    kind = library.load_optimizer(name.lower())
    takes = inspect.signature(kind.__init__).parameters
    if weight_decay and "weight_decay" not in takes:
        raise ConfigError(f"optimizer.weight_decay={weight_decay:g}: {name} has no weight decay; set it to 0.")
    common = {"lr": lr, "weight_decay": weight_decay}
    optimizer: torch.optim.Optimizer = kind(params, **{key: common[key] for key in common if key in takes}, **options)
    return optimizer
