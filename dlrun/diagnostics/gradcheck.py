"""Backpropagation against finite differences: (L(θ + ε) - L(θ - ε)) / 2ε for some numbers θ of every parameter.

The error of a central difference is L‴ ε² / 6 from the curve and about 1e-16 L / ε from rounding in float64; they meet
near ε = 1e-5, where both are far below the errors that a wrong backward makes. Dropout is off, for it draws anew.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dlrun import assembly
from dlrun.errors import ConfigError

EPSILON, TOLERANCE = 1e-5, 1e-6
TRIES = 4  # so many times the coordinates wanted are looked at, where the loss has kinks
EXAMPLES = 16  # of the batch: enough for a gradient, and few that stand near a kink of ReLU
Norm = Literal["train", "eval"]


@dataclass(frozen=True)
class Checked:
    """One parameter tensor.

    Attributes:
        coordinates: how many were checked.
        error: the largest, |autograd - difference| / max(|autograd|, |difference|, floor); NaN if none was checked.
        autograd, difference: of that coordinate.
        kinks: coordinates left out because the loss bends there between θ - ε and θ + ε, as ReLU's does at zero.
    """

    name: str
    shape: tuple[int, ...]
    coordinates: int
    error: float
    autograd: float
    difference: float
    kinks: int

    def passes(self, tolerance: float) -> bool:
        """Whether the error is below; by NaN never."""
        return self.error <= tolerance


def gradcheck(
    config: dict[str, Any], *, coordinates: int = 5, epsilon: float = EPSILON, norm: Norm = "eval"
) -> list[Checked]:
    """Check a configuration's model and loss on examples of its first training batch, in float64 on the CPU.

    Args:
        coordinates: of each parameter tensor, drawn by the configuration's seed; all where it has fewer.
        norm: whether batch norm takes its statistics from the batch, or those it has collected (none yet: 0 and 1).

    Raises: DlrunError for what keeps the configuration from being trained, or cannot be done in float64.
    """
    fixed = {**config, "trainer": {**config["trainer"], "precision": "fp32", "compile": False}}
    a = assembly.assemble(fixed, device_word="cpu")
    training = assembly.prepare_training(a, lambda record: None, ())
    batch = next(iter(training.loader.epoch(0))).split(EXAMPLES)[0].map(double)
    model = a.model.double().eval()
    if norm == "train":
        for module in model.modules():
            module.training = isinstance(module, _BatchNorm)
    if isinstance(a.loss, nn.Module):
        a.loss.double()
    objective = training.train_step.objective

    def loss() -> Tensor:
        value = objective(model(*batch.arguments), batch)
        if value.dtype != torch.float64:
            raise ConfigError(f"gradcheck needs float64, but the loss comes out in {value.dtype}.")
        return value

    generator = torch.Generator().manual_seed(int(config["seed"]))
    return check_gradients(model, loss, generator, coordinates, epsilon)


def check_gradients(
    model: nn.Module, loss: Callable[[], Tensor], generator: torch.Generator, coordinates: int, epsilon: float = EPSILON
) -> list[Checked]:
    """Check some coordinates of every parameter that learns. Nothing of the model is changed but its `.grad`.

    Args:
        model: in float64.
        loss: from the parameters as they are, the same each time: a scalar in float64.
    """
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}

    def settled() -> Tensor:
        value = loss()
        for name, buffer in model.named_buffers():  # running statistics are no part of the function
            buffer.data.copy_(buffers[name])
        return value

    model.zero_grad(set_to_none=True)
    middle = settled()
    middle.backward()
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad and p.grad is not None]
    # A gradient of exactly zero has no relative error: what is below this is rounding.
    floor = 1e-4 * max((float(p.grad.abs().max()) for _, p in named if p.grad is not None), default=1.0) + 1e-10
    with torch.no_grad():
        return [_check(name, p, settled, float(middle), generator, coordinates, epsilon, floor) for name, p in named]


def _check(
    name: str,
    p: nn.Parameter,
    loss: Callable[[], Tensor],
    middle: float,
    generator: torch.Generator,
    coordinates: int,
    epsilon: float,
    floor: float,
) -> Checked:
    assert p.grad is not None
    values, gradient = p.data.reshape(-1), p.grad.reshape(-1)
    shared = values.data_ptr() == p.data.data_ptr()
    order = torch.randperm(p.numel(), generator=generator)[: TRIES * coordinates].tolist()
    worst, checked, kinks = (math.nan, 0.0, 0.0), 0, 0
    for i in order:
        if checked == coordinates:
            break
        at = values[i].item()
        sides = []
        for step in (epsilon, -epsilon):
            values[i] = at + step
            if not shared:
                p.data.copy_(values.reshape(p.shape))
            sides.append(loss().item())
        values[i] = at
        if not shared:
            p.data.copy_(values.reshape(p.shape))
        expected, found = (sides[0] - sides[1]) / (2 * epsilon), gradient[i].item()
        error = abs(found - expected) / max(abs(found), abs(expected), floor)
        rounding = 8 * torch.finfo(p.dtype).eps * abs(middle) / epsilon
        if error > TOLERANCE and _is_kink(found, sides, middle, epsilon, rounding):
            kinks += 1
            continue
        checked += 1
        if not error <= worst[0]:
            worst = (error, found, expected)
    return Checked(name, tuple(p.shape), checked, *worst, kinks)


def _is_kink(found: float, sides: Sequence[float], middle: float, epsilon: float, rounding: float) -> bool:
    """Whether the slopes to the left and right differ, and the gradient is one of them or between: a subgradient."""
    right, left = (sides[0] - middle) / epsilon, (middle - sides[1]) / epsilon
    low, high = sorted((left, right))
    bends = high - low > 1e-3 * max(abs(low), abs(high)) + rounding  # ε · L″ where it is smooth
    slack = 0.01 * (high - low)
    return bends and low - slack <= found <= high + slack


def double(tensor: Tensor) -> Tensor:
    """Real numbers in float64, whole ones as they are."""
    return tensor.double() if tensor.is_floating_point() else tensor
