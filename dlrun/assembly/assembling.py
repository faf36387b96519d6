"""Data, model and loss from a configuration, checked to fit together, on the device."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from dlrun import build
from dlrun.assembly.batch_size import find_batch_size
from dlrun.assembly.loader import build_loader
from dlrun.assembly.parts import Assembly, convolves, resident
from dlrun.contracts import Examples, Splits
from dlrun.engine.device import choose_device, use_threads
from dlrun.engine.evaluate import Evaluator, evaluation_batch_size
from dlrun.engine.heap import keep_freed_memory
from dlrun.engine.loaders import Preparation
from dlrun.engine.precision import choose_precision
from dlrun.engine.seeding import make_deterministic, make_repeatable, seed_everything
from dlrun.engine.views import check_views
from dlrun.optim.eager import keep_dynamo_unloaded


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
    make_deterministic(settings.deterministic)
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
        if resident(splits, data, device):
            examples = examples.to(device)
        size = min(data.eval_batch_size or max(data.chosen_batch_size, quick), max(1, len(examples)))
        metrics = build.build_metrics(splits.spec, settings.metrics)
        chosen = settings.tta if views else None
        made = Evaluator(examples, size, plain, loss, metrics, precision, device, chosen)
        made.warn = lambda text: a.warn(text)
        return made

    a = Assembly(config, settings, device, precision, splits, model, loss, evaluator, build_loader)
    if config["data"].get("batch_size") == "auto":
        find_batch_size(a)
    return a
