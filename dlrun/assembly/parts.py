"""The parts of a run that more than one command needs, on their device."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from dlrun import splitting
from dlrun.config import schema
from dlrun.contracts import Augment, DataSpec, Splits
from dlrun.engine.evaluate import Evaluator
from dlrun.engine.loaders import Loader, fits
from dlrun.engine.memory import logger
from dlrun.engine.precision import Precision


@dataclass
class Assembly:
    """The parts of a run that more than one command needs.

    Attributes:
        evaluator: makes the Evaluator of a split: "train", "val" or "test"; over the views of `trainer.tta` unless told
            otherwise.
        config: with numbers in place of what is found out here, so what a run is known by and repeated with.
        notes: what was found out.
        learning: see `parameters`.
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
    loader: Callable[[Assembly, schema.Data, Sequence[Augment]], Loader] = field(repr=False)
    warn: Callable[[str], None] = logger.warning
    notes: list[str] = field(default_factory=list)
    learning: int | None = None

    @property
    def spec(self) -> DataSpec:
        return self.splits.spec

    @property
    def parameters(self) -> int:
        """Trainable numbers in the model; once training is prepared, those that learn at some time in it."""
        if self.learning is not None:
            return self.learning
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)


def convolves(model: nn.Module) -> bool:
    """Whether the model has two-dimensional convolutions, which run in half the time on channels-last images."""
    return any(isinstance(module, nn.Conv2d) for module in model.modules())


def resident(splits: Splits, data: schema.Data, device: torch.device) -> bool:
    """Whether the data live on the device; `data.loader` decides, or their size."""
    parts = [part for part in (splits.train, splits.val, splits.test) if part is not None]
    return data.loader == "resident" or (data.loader == "auto" and fits(sum(part.nbytes for part in parts), device))


def checkpoint_header(a: Assembly, fingerprint: str) -> dict[str, Any]:
    """What every checkpoint says of itself."""
    return {"config": json.dumps(a.config, default=str), "spec": a.spec.to_dict(), "fingerprint": fingerprint}


def data_fingerprint(a: Assembly) -> str:
    """A hash of the data in all splits."""
    return splitting.fingerprint(a.splits)
