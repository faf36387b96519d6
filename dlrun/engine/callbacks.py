"""Callbacks: what happens beside the training step, in a documented order.

Order of hooks in one step: the step itself; `on_log` every `log_every` steps; `on_validate` after a validation;
`on_step_end`. Each hook is called for the callbacks in the order of their list: best weights and early stopping first,
then the user's own, checkpoints last, so that a checkpoint holds what the others have just done.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dlrun.contracts import Duration, NonNegativeFloat, PositiveInt
from dlrun.errors import ConfigError
from dlrun.optim.durations import parse, resolve

if TYPE_CHECKING:
    from dlrun.engine.training import Training

EVERY = "callbacks.snapshots.every"


class Callback:
    """Override what is needed. `state_dict` returns plain values and tensors, for an exact resume."""

    def on_fit_start(self, training: Training) -> None:
        """Before the first step, and again when a run resumes, with the state restored."""

    def on_log(self, training: Training, record: dict[str, Any]) -> None:
        """Every `log_every` steps; `record` is what goes to metrics.jsonl and may be added to."""

    def on_validate(self, training: Training, metrics: dict[str, float]) -> None:
        """After each validation, with everything measured; may be added to. Set `training.status` to stop."""

    def on_step_end(self, training: Training) -> None:
        """After each optimizer step. On the hot path: do not read the device here."""

    def on_fit_end(self, training: Training) -> None:
        """After the last step, however training ended."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""


class CallbackList:
    """Calls each hook for the callbacks that have it; the others cost nothing."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self.callbacks = list(callbacks)
        self._hooks = {
            name: [
                getattr(item, name) for item in callbacks if getattr(type(item), name) is not getattr(Callback, name)
            ]
            for name in ("on_fit_start", "on_log", "on_validate", "on_step_end", "on_fit_end")
        }

    def call(self, name: str, *arguments: Any) -> None:
        for hook in self._hooks[name]:
            hook(*arguments)

    def state_dict(self) -> list[dict[str, Any]]:
        return [item.state_dict() for item in self.callbacks]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        for item, state in zip(self.callbacks, states, strict=True):
            item.load_state_dict(state)


class BestWeights(Callback):
    """Remembers the weights of the best validation: those that are evaluated, so the averaged ones where there are.

    Of validations equal in the monitored metric, which small validation sets make common for an accuracy, the one with
    the lower loss is best.
    """

    def __init__(self) -> None:
        self.best: dict[str, Any] | None = None  # {"epoch", "step", "value", "metrics"}
        self.weights: dict[str, Tensor] | None = None

    def on_validate(self, training: Training, metrics: dict[str, float]) -> None:
        value = metrics[training.monitor]
        if self.best is None or self._is_better(training, value, metrics["val/loss"]):
            self.best = {
                "epoch": training.progress,
                "step": training.step,
                "value": value,
                "metrics": dict(metrics),
            }
            self._keep(training.evaluated_model.state_dict())

    def _keep(self, weights: dict[str, Any]) -> None:
        """Copy the weights; where a copy lies ready it is overwritten, at once and without allocating."""
        known, new = self.weights, list(weights.values())
        # A plain dict comes from a checkpoint and lacks the versions of the modules that a state_dict has.
        if type(known) is type(weights) and known.keys() == weights.keys() and all(map(_alike, known.values(), new)):
            torch._foreach_copy_(list(known.values()), new)
        else:
            self.weights = _copied(weights)

    def _is_better(self, training: Training, value: float, loss: float) -> bool:
        assert self.best is not None
        tie = value == self.best["value"] and loss < self.best["metrics"]["val/loss"]
        return tie or training.improves(value, self.best["value"])

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}  # the weights are in best.pt

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best = state["best"]


def _copied(weights: dict[str, Any]) -> dict[str, Any]:
    """A copy that keeps what the dict itself carries; of a view it has the part that the view shows and no more."""
    copies = copy.copy(weights)
    for name, value in weights.items():
        copies[name] = value.detach().clone() if isinstance(value, Tensor) else copy.deepcopy(value)
    return copies


def _alike(kept: Any, new: Any) -> bool:
    """Whether one can be copied over the other; not so the CPU's tensors of a checkpoint, or a model's other state."""
    if not (isinstance(kept, Tensor) and isinstance(new, Tensor)):
        return False
    return (kept.shape, kept.dtype, kept.device) == (new.shape, new.dtype, new.device)


class StopEarly(Callback):
    """Stop when `patience` validations in a row have not improved the monitored metric by more than `min_delta`."""

    def __init__(self, patience: PositiveInt = 10, min_delta: NonNegativeFloat = 0.0) -> None:
        self.patience, self.min_delta = patience, min_delta
        self.best = math.nan
        self.waited = 0

    def on_fit_start(self, training: Training) -> None:
        self._decide(training)

    def on_validate(self, training: Training, metrics: dict[str, float]) -> None:
        value = metrics[training.monitor]
        if training.improves(value, self.best, self.min_delta):
            self.best, self.waited = value, 0
        else:
            self.waited += 1
        self._decide(training)

    def _decide(self, training: Training) -> None:
        if self.waited >= self.patience:
            training.status = "early_stopped"

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.waited = state["best"], state["waited"]


class Snapshots(Callback):
    """Writes the weights to checkpoints/snapshot_1.pt, snapshot_2.pt, … at the end of each cycle of the schedule.

    Each file is like best.pt; the models are to be evaluated together. A cycle ends where the learning rate, having
    fallen, rises again, or training ends.

    Args:
        every: the length of a cycle instead, for schedules whose rate does not rise.

    Source: Huang et al. 2017, Snapshot Ensembles (arXiv:1704.00109).
    """

    def __init__(self, every: Duration | None = None) -> None:
        if every is not None and parse(every, EVERY)[0] == 0:
            raise ConfigError(f"{EVERY} must be above 0, got {every}; write null for the lows of the learning rate.")
        self.every = every
        self.count = 0
        self._every_steps = 0
        self._lr = 0.0
        self._has_fallen = False

    def on_fit_start(self, training: Training) -> None:
        if self.every is not None:
            per_epoch, total = training.loader.steps_per_epoch, training.total_steps
            self._every_steps = max(
                1, resolve(self.every, unit="step", steps_per_epoch=per_epoch, total_steps=total, key=EVERY)
            )
        if training.step == 0:
            self._lr = training.lr

    def on_step_end(self, training: Training) -> None:
        lr, before = training.lr, self._lr
        self._lr = lr
        is_low = self._has_fallen and (lr > before or training.step == training.total_steps)
        self._has_fallen = lr < before or (self._has_fallen and lr == before)
        if training.step % self._every_steps == 0 if self._every_steps else is_low:
            self.count += 1
            training.save_weights(f"snapshot_{self.count}")

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "lr": self._lr, "has_fallen": self._has_fallen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count, self._lr, self._has_fallen = state["count"], state["lr"], state["has_fallen"]


class SaveCheckpoints(Callback):
    """Save so that little is lost: every so many steps, or at validations, at most one per `seconds`.

    When it saves has no influence on training, so saving by the clock keeps runs exact.
    """

    def __init__(self, every_steps: int | None = None, seconds: float = 10.0) -> None:
        self.every_steps, self.seconds = every_steps, seconds
        self._last = time.monotonic()

    def on_validate(self, training: Training, metrics: dict[str, float]) -> None:
        if self.every_steps is None and time.monotonic() - self._last >= self.seconds:
            self._due = True

    _due = False

    def on_step_end(self, training: Training) -> None:
        if self._due or (self.every_steps is not None and training.step % self.every_steps == 0):
            training.save()
            self._due, self._last = False, time.monotonic()
