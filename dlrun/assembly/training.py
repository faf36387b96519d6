"""The training of an assembly before its first step: loader, optimizer step, callbacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from dlrun import build, techniques
from dlrun.assembly.parts import Assembly, convolves
from dlrun.config import schema
from dlrun.engine.activations import checkpoint_activations
from dlrun.engine.callbacks import BestWeights, Callback, CallbackList, SaveCheckpoints, StopEarly
from dlrun.engine.capture import Advance, CapturedStep, EagerStep, obstacle
from dlrun.engine.evaluate import Evaluator
from dlrun.engine.freezing import Freezing
from dlrun.engine.loaders import Loader, Preparation
from dlrun.engine.seeding import derive, seed_everything
from dlrun.engine.statistics import EvaluateAverage
from dlrun.engine.step import Schedule, TrainStep
from dlrun.engine.training import Training
from dlrun.errors import ConfigError
from dlrun.optim.averaging import StochasticWeightAverage, WeightAverage
from dlrun.optim.durations import resolve
from dlrun.optim.lookahead import Lookahead
from dlrun.optim.momentum import start_momentum
from dlrun.optim.sam import SharpnessAware


def prepare_training(
    a: Assembly,
    record: Callable[[dict[str, Any]], None],
    callbacks: Sequence[Callback],
    teacher: nn.Module | None = None,
    warn: Callable[[str], None] = lambda sentence: None,
) -> Training:
    """The training of an assembly, before its first step. One in which nothing can learn has no steps.

    Args:
        record: receives each record.
        callbacks: beside those that `trainer` asks for; called between them and the checkpoints.
        teacher: on the device, for `trainer.distill`.
        warn: receives what the user should know, a sentence each.
    """
    settings, data = a.settings, build.data_settings(a.config)
    stopping = settings.early_stopping
    monitor, higher_is_better = build.choose_monitor(a.spec, stopping.monitor if stopping else None, settings.metrics)
    plain = Preparation(a.spec, (), a.config["seed"], a.device, convolves(a.model))
    build.check_smallest_batch(a.model, a.splits, plain, data.chosen_batch_size, data.drop_last)
    loader = a.loader(a, data, build.build_augment(a.config, a.spec))
    planned_steps = settings.max_steps or settings.epochs * loader.steps_per_epoch

    def steps(name: str, length: int | float | str) -> int:
        key, per_epoch = f"trainer.{name}", loader.steps_per_epoch
        return resolve(length, unit="step", steps_per_epoch=per_epoch, total_steps=planned_steps, key=key)

    freezing = techniques.build_freezing(settings, build.parameter_rules(a.config), a.model, steps)
    a.learning = sum(p.numel() for p in a.model.parameters() if p.requires_grad)  # parts may thaw, and end early
    total_steps = planned_steps if a.parameters else 0
    optimizer = build.build_optimizer(a.config, a.model)
    schedule = build.build_schedule(
        a.config,
        optimizer,
        total_steps=total_steps,
        steps_per_epoch=loader.steps_per_epoch,
        higher_is_better=higher_is_better,
        hold=techniques.constant_rate(settings, steps),
    )
    average = techniques.build_average(settings, a.model, steps, planned_steps)
    step = build_step(a, data, optimizer, schedule, average, freezing, teacher)
    saving = SaveCheckpoints(
        steps("checkpoint_every", settings.checkpoint_every) if settings.checkpoint_every else None
    )
    own: list[Callback] = [BestWeights()]
    if stopping is not None:
        own.append(StopEarly(stopping.patience, stopping.min_delta))
    # Dropout draws from its own stream: it is the same whatever initialisation has drawn.
    seed_everything(derive(a.config["seed"], "train") % 2**32)
    validate: Callable[[nn.Module], dict[str, float]] = (of_val := a.evaluator("val", views=False))
    if isinstance(average, StochasticWeightAverage):
        validate = EvaluateAverage(validate, average, lambda: _like(a.evaluator("train"), of_val), a.precision)
    return Training(
        train_step=step,
        loader=loader,
        advance=build_advance(settings, step, loader, a.device, warn),
        validate=validate,
        metrics=step.metrics,
        callbacks=CallbackList([*own, *callbacks, *build.build_callbacks(a.config), saving]),
        device=a.device,
        total_steps=total_steps,
        eval_every=max(1, steps("eval_every", settings.eval_every)),
        log_every=settings.log_every,
        monitor=monitor,
        higher_is_better=higher_is_better,
        record=record,
    )


def build_step(
    a: Assembly,
    data: schema.Data,
    optimizer: Any,
    schedule: Schedule,
    average: WeightAverage | None,
    freezing: Freezing | None,
    teacher: nn.Module | None,
) -> TrainStep:
    """The optimizer step with all that `trainer` puts into it."""
    settings, rules = a.settings, build.parameter_rules(a.config)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    sam, lookahead = settings.sam, settings.lookahead
    if settings.checkpoint_activations:
        checkpoint_activations(a.model)
    # The fused SGD takes the momentum of a group all for the first time or none, so nothing could thaw later.
    if a.precision.scaler is not None or freezing is not None:
        start_momentum(optimizer)
    return TrainStep(
        a.model,
        techniques.build_objective(settings, rules, a.spec, a.model, a.loss, teacher),
        optimizer,
        schedule,
        a.precision,
        # Not by torch's own rule, a shape that changes: which kernels a batch meets would depend on those before it.
        forward=torch.compile(a.model, dynamic=hasattr(a.splits.train, "lengths")) if settings.compile else None,
        micro_batch_size=data.chosen_batch_size,
        accumulate=settings.accumulate,
        transforms=techniques.build_transforms(settings, a.model, a.config["seed"], a.device),
        sam=SharpnessAware(parameters, sam.rho, sam.adaptive) if sam else None,
        lookahead=Lookahead(parameters, lookahead.steps, lookahead.alpha) if lookahead else None,
        average=average,
        freezing=freezing,
        metrics=build.build_metrics(a.spec, training=True),
    )


def build_advance(
    settings: schema.Trainer, step: TrainStep, loader: Loader, device: torch.device, warn: Callable[[str], None]
) -> Advance:
    """Steps by CUDA graphs, where `trainer.graph` and the parts allow it, else operation by operation.

    Raises: ConfigError if graphs are asked for and cannot be had.
    """
    if settings.graph is False or (settings.graph == "auto" and device.type != "cuda"):
        return EagerStep(step, loader)
    reason = obstacle(step) if device.type == "cuda" else f"they need a CUDA device, and training is on {device.type}"
    if not reason:
        return CapturedStep(step, loader, device, warn)
    if settings.graph is True:
        raise ConfigError(f"trainer.graph=true: steps cannot be captured in a CUDA graph: {reason}; use auto.")
    warn(f"Steps are not captured in a CUDA graph, which makes small models slower: {reason}.")
    return EagerStep(step, loader)


def _like(evaluator: Evaluator, other: Evaluator) -> Evaluator:
    """The evaluator, in batches no larger than memory has left to the other."""
    evaluator.batch_size = min(evaluator.batch_size, other.batch_size)
    return evaluator
