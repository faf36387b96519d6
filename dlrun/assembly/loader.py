"""The loader of training: resident or streaming, in the order that is asked for."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from dlrun.assembly.parts import Assembly, convolves, resident
from dlrun.config import schema
from dlrun.contracts import Augment, Examples
from dlrun.engine.loaders import Loader, Preparation, ResidentLoader, StreamingLoader, normalise_ahead
from dlrun.engine.order import alternating, make_order
from dlrun.errors import ConfigError
from dlrun.examples import TextWindows, with_mirror_images


def build_loader(a: Assembly, data: schema.Data, augment: Sequence[Augment]) -> Loader:
    """Resident where the data fit on the device, else streaming; `data.loader` overrides."""
    batch_size = data.chosen_batch_size * a.settings.accumulate
    prepare = Preparation(a.spec, augment, a.config["seed"], a.device, convolves(a.model))
    train, seed = a.splits.train, a.config["seed"]
    refuse_broken_carry(a.model, train, data, a.settings)
    order = make_order(data.order, train, batch_size, seed, data.curriculum_epochs)
    is_resident = resident(a.splits, data, a.device)
    if data.alternating_flip:
        train = with_mirror_images(train.to(a.device) if is_resident else train, a.spec)
        order = alternating(order, len(train), seed)
    if is_resident:
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
    if isinstance(train, TextWindows) and bool((train.starts.diff() != train.length).any()):
        raise ConfigError(
            "model.carry=true takes up a text where the batch before left it, but windows of the training text overlap "
            "or leave gaps: leave data.stride, data.limit and data.bootstrap at null."
        )
