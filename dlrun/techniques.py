"""What `trainer` asks of an optimizer step beyond the plain one: settings turned into the objects that do it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from dlrun.config import schema
from dlrun.contracts import DataSpec, Task
from dlrun.engine.freezing import Freezing
from dlrun.engine.objective import Distillation, Objective, Penalty, Term
from dlrun.engine.seeding import derive
from dlrun.errors import ConfigError, ContractError
from dlrun.optim.averaging import ExponentialMovingAverage, StochasticWeightAverage, WeightAverage
from dlrun.optim.gradients import (
    ClipAdaptive,
    ClipEach,
    ClipNorm,
    ClipPercentile,
    ClipValue,
    GradientNoise,
    GradientTransform,
)
from dlrun.optim.parameter_groups import decayed_parameters, last_layer
from dlrun.optim.rules import ParameterGroups

Steps = Callable[[str, Any], int]  # from a key of trainer and the length it holds to optimizer steps
CLASSES = (Task.CLASSIFICATION, Task.LANGUAGE_MODELLING, Task.SEQUENCE_TO_SEQUENCE)


def build_freezing(settings: schema.Trainer, rules: ParameterGroups, model: nn.Module, steps: Steps) -> Freezing | None:
    """Freezes what never learns at once, so it must come before the optimizer; the rest goes by the step."""
    if settings.freeze is None and not rules.until:
        return None
    thaws = {
        pattern: None if until == "always" else steps(f"freeze.{pattern}", until)
        for pattern, until in (settings.freeze or {}).items()
    }
    return Freezing(model, thaws, {pattern: steps(f"until.{pattern}", end) for pattern, end in rules.until.items()})


def build_transforms(
    settings: schema.Trainer, model: nn.Module, seed: int, device: torch.device
) -> list[GradientTransform]:
    """In the order in which they are applied: limits for all gradients together, for each tensor, for each unit, for
    each number; noise comes last, so that no clipping changes its variance."""
    clip, noise = settings.clip, settings.gradient_noise
    built: list[GradientTransform] = []
    if clip.percentile is not None:
        built.append(ClipPercentile(clip.percentile, clip.history, clip.norm, device))
    elif clip.norm is not None:
        built.append(ClipNorm(clip.norm))
    if clip.per_parameter is not None:
        built.append(ClipEach(clip.per_parameter))
    if clip.agc is not None:
        built.append(ClipAdaptive(clip.agc, last_layer(model)))
    if clip.value is not None:
        built.append(ClipValue(clip.value))
    if noise is not None:
        built.append(GradientNoise(noise.eta, noise.gamma, partial(derive, seed, "gradient_noise"), device))
    return built


def build_objective(
    settings: schema.Trainer,
    rules: ParameterGroups,
    spec: DataSpec,
    model: nn.Module,
    loss: nn.Module,
    teacher: nn.Module | None,
) -> Objective:
    """The loss with the penalties and the teacher that `trainer` asks for."""
    terms: list[Term] = []
    penalty, distill = settings.penalty, settings.distill
    if penalty is not None and (penalty.l1 or penalty.l2):
        terms.append(Penalty(decayed_parameters(model, rules), penalty.l1, penalty.l2))
    if distill is None:
        return Objective(loss, terms)
    if spec.task not in CLASSES:
        raise ContractError(
            f"trainer.distill compares probabilities of classes, and data={spec.name} ({spec.task.value}) has none; "
            "set it to null."
        )
    assert teacher is not None
    return Objective(loss, [*terms, Distillation(teacher, distill.temperature, 1 - distill.alpha)], distill.alpha)


def build_average(settings: schema.Trainer, model: nn.Module, steps: Steps, total_steps: int) -> WeightAverage | None:
    """The average of the weights that is evaluated in their place, or None."""
    if settings.ema is not None and settings.swa is not None:
        raise ConfigError(
            f"trainer.ema={settings.ema} and trainer.swa both say which average of the weights is evaluated; set one "
            "of them to null."
        )
    if settings.ema:
        return ExponentialMovingAverage(model, settings.ema)
    if settings.swa is None:
        return None
    start, every = steps("swa.start", settings.swa.start), steps("swa.every", settings.swa.every)
    if start > total_steps:
        raise ConfigError(
            f"trainer.swa.start must lie within training, which has {total_steps} steps, got {settings.swa.start} "
            f"({start} steps)."
        )
    return StochasticWeightAverage(model, start, max(1, every))


def constant_rate(settings: schema.Trainer, steps: Steps) -> tuple[int, float] | None:
    """The step from which the schedule gives way to a constant learning rate, and that rate."""
    swa = settings.swa
    return None if swa is None or swa.lr is None else (steps("swa.start", swa.start), swa.lr)
