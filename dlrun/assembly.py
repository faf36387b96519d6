"""All parts of one run put together, ready to train or to evaluate; nothing is written yet."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from dlrun import build, splitting, techniques
from dlrun.config import schema
from dlrun.contracts import Augment, DataSpec, Examples, Splits
from dlrun.engine import batch_size
from dlrun.engine.activations import checkpoint_activations
from dlrun.engine.callbacks import BestWeights, Callback, CallbackList, SaveCheckpoints, StopEarly
from dlrun.engine.capture import Advance, CapturedStep, EagerStep, obstacle
from dlrun.engine.device import choose_device, use_threads
from dlrun.engine.evaluate import Evaluator, evaluation_batch_size
from dlrun.engine.freezing import Freezing
from dlrun.engine.heap import keep_freed_memory
from dlrun.engine.loaders import Loader, Preparation, ResidentLoader, StreamingLoader, fits, normalise_ahead
from dlrun.engine.memory import logger
from dlrun.engine.order import alternating, make_order
from dlrun.engine.precision import Precision, choose_precision
from dlrun.engine.seeding import (
    derive,
    make_deterministic,
    make_repeatable,
    random_state,
    restore_random_state,
    seed_everything,
)
from dlrun.engine.statistics import EvaluateAverage
from dlrun.engine.step import Schedule, TrainStep
from dlrun.engine.training import Training
from dlrun.engine.views import check_views
from dlrun.errors import ConfigError
from dlrun.examples import TextWindows, with_mirror_images
from dlrun.optim.averaging import StochasticWeightAverage, WeightAverage
from dlrun.optim.durations import resolve
from dlrun.optim.eager import keep_dynamo_unloaded
from dlrun.optim.lookahead import Lookahead
from dlrun.optim.momentum import start_momentum
from dlrun.optim.sam import SharpnessAware


@dataclass
class Assembly:
    """The parts of a run that more than one command needs.

    Attributes:
        evaluator: makes the Evaluator of a split: "train", "val" or "test"; over the views of `trainer.tta` unless told
            otherwise.
        config: with numbers in place of what is found out here, so what a run is known by and repeated with.
        notes: what was found out.
        loader: makes the loader of training, from this, the settings of `data` and the augmentation.
        warn: receives a sentence about what memory did not allow.
    """

    config: dict[str, Any]
    settings: schema.Trainer
    device: torch.device
    precision: Precision
    splits: Splits
    model: nn.Module
    loss: nn.Module
    evaluator: Callable[..., Evaluator]
    warn: Callable[[str], None] = logger.warning
    notes: list[str] = field(default_factory=list)
    loader: Callable[[Assembly, schema.Data, Sequence[Augment]], Loader] = field(
        default_factory=lambda: build_loader, repr=False
    )

    @property
    def spec(self) -> DataSpec:
        return self.splits.spec

    @property
    def parameters(self) -> int:
        """Trainable numbers in the model."""
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)


def assemble(
    config: dict[str, Any],
    device_word: str | None = None,
    threads: int | None = None,
    splits: Splits | None = None,
) -> Assembly:
    """Build data, model and loss, check that they fit together, and put them on the device.

    Args:
        device_word: instead of the configuration's `trainer.device`.
        threads: instead of its `trainer.threads`.
        splits: complete ones, instead of its `data`.

    Raises: DlrunError, before anything is written, for whatever does not work out.
    """
    settings = build.trainer_settings(config)
    use_threads(threads or settings.threads)
    device = choose_device(device_word or settings.device)
    precision = choose_precision(settings.precision, device)
    if device.type == "cpu":
        keep_freed_memory()
    make_repeatable()
    if settings.deterministic:
        make_deterministic()
    if not settings.compile:
        keep_dynamo_unloaded()
    splits = splits or build.build_data(config)
    seed_everything(config["seed"])
    inputs = build.inputs_for(splits, Preparation(splits.spec, (), config["seed"], device), device)
    model = build.build_model(config, splits.spec, inputs).to(device)
    if convolves(model):
        model = model.to(memory_format=torch.channels_last)
    loss = build.build_loss(config, splits)
    if isinstance(loss, nn.Module):
        loss = loss.to(device)
    plain = Preparation(splits.spec, (), config["seed"], device, convolves(model))
    quick = evaluation_batch_size(build.check_fit(model, loss, splits, plain), device)
    check_views(settings.tta, splits.spec)

    def evaluator(split: str, *, views: bool = True) -> Evaluator:
        examples: Examples = getattr(splits, split)
        data = build.data_settings(a.config)
        if _resident(splits, data, device):
            examples = examples.to(device)
        size = min(data.eval_batch_size or max(data.chosen_batch_size, quick), max(1, len(examples)))
        metrics = build.build_metrics(splits.spec, settings.metrics)
        chosen = settings.tta if views else None
        made = Evaluator(examples, size, plain, loss, metrics, precision, device, chosen)
        made.warn = lambda text: a.warn(text)
        return made

    a = Assembly(config, settings, device, precision, splits, model, loss, evaluator)
    if config["data"].get("batch_size") == "auto":
        find_batch_size(a)
    return a


def find_batch_size(a: Assembly) -> None:
    """Put a number in the place of data.batch_size=auto, found by steps of training on copies of the model.

    Nothing of them is left: the run is, to the bit, the one that has the number written in its configuration.
    """
    settings, config = a.settings, a.config
    # What depends on the length of training is left out; what will learn, learns; and workers are not worth starting.
    settings = replace(
        settings,
        max_steps=10_000,
        compile=False,
        distill=None,
        freeze=settings.freeze and {k: v if v == "always" else 0 for k, v in settings.freeze.items()},
    )

    def sized(size: int, **more: Any) -> dict[str, Any]:
        return {**config, "data": {**config["data"], "batch_size": size, **more}}

    def trial(size: int) -> Training:
        a.config = {**sized(size, workers=0), "scheduler": None, "callbacks": None}
        tried = replace(a, settings=settings, model=copy.deepcopy(a.model))
        return prepare_training(tried, lambda record: None, ())

    state = random_state(a.device)
    size, why = batch_size.choose(trial, len(a.splits.train), settings.accumulate, a.device)
    restore_random_state(state, a.device)
    a.config = sized(size)
    lr = config["optimizer"].get("lr")
    kept = "" if lr is None else f"; optimizer.lr stays {lr:g}, whatever the batch"
    a.notes.append(f"data.batch_size=auto is {size}: {why}{kept}.")


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


def build_loader(a: Assembly, data: schema.Data, augment: Sequence[Augment]) -> Loader:
    """Resident where the data fit on the device, else streaming; `data.loader` overrides."""
    batch_size = data.chosen_batch_size * a.settings.accumulate
    prepare = Preparation(a.spec, augment, a.config["seed"], a.device, convolves(a.model))
    train, seed = a.splits.train, a.config["seed"]
    refuse_broken_carry(a.model, train, data, a.settings)
    order = make_order(data.order, train, batch_size, seed, data.curriculum_epochs)
    resident = _resident(a.splits, data, a.device)
    if data.alternating_flip:
        train = with_mirror_images(train.to(a.device) if resident else train, a.spec)
        order = alternating(order, len(train), seed)
    if resident:
        train, prepare = normalise_ahead(train.to(a.device), prepare)
        return ResidentLoader(train, batch_size, order, prepare, a.device, data.drop_last)
    return StreamingLoader(train, batch_size, order, prepare, a.device, data.drop_last, seed, data.workers)


def refuse_broken_carry(model: nn.Module, train: Examples, data: schema.Data, settings: schema.Trainer) -> None:
    """A model that carries its state from batch to batch (`carried`) must see batches that continue one another."""
    if getattr(model, "carried", None) is None:
        return
    if data.order != "contiguous":
        raise ConfigError(
            f"model.carry=true takes up a text where the batch before left it, which needs data.order=contiguous, got "
            f"{data.order}."
        )
    if settings.accumulate > 1:
        raise ConfigError(
            f"model.carry=true needs trainer.accumulate=1, got {settings.accumulate}: micro-batches do not "
            "continue one another."
        )
    if isinstance(train, TextWindows) and bool((train.starts.diff() < train.length).any()):
        raise ConfigError(
            "model.carry=true takes up a text where the batch before left it, but windows of the training text "
            "overlap, so that the state has seen what is to be predicted: leave data.stride and data.bootstrap at null."
        )


def convolves(model: nn.Module) -> bool:
    """Whether the model has two-dimensional convolutions, which run in half the time on channels-last images."""
    return any(isinstance(module, nn.Conv2d) for module in model.modules())


def checkpoint_header(a: Assembly, fingerprint: str) -> dict[str, Any]:
    """What every checkpoint says of itself."""
    return {"config": json.dumps(a.config, default=str), "spec": a.spec.to_dict(), "fingerprint": fingerprint}


def data_fingerprint(a: Assembly) -> str:
    """A hash of the data in all splits."""
    return splitting.fingerprint(a.splits)


def _like(evaluator: Evaluator, other: Evaluator) -> Evaluator:
    """The evaluator, in batches no larger than memory has left to the other."""
    evaluator.batch_size = min(evaluator.batch_size, other.batch_size)
    return evaluator


def _resident(splits: Splits, data: schema.Data, device: torch.device) -> bool:
    parts = [part for part in (splits.train, splits.val, splits.test) if part is not None]
    return data.loader == "resident" or (data.loader == "auto" and fits(sum(part.nbytes for part in parts), device))
