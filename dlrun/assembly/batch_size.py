"""data.batch_size=auto: the number that steps of training on copies of the model find."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from dlrun.assembly.parts import Assembly
from dlrun.assembly.training import prepare_training
from dlrun.engine import batch_size
from dlrun.engine.seeding import random_state, restore_random_state
from dlrun.engine.training import Training


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
        swa=settings.swa and replace(settings.swa, start=0, every=1),
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
