"""A training run in memory: the parts it is made of and the little that changes as it goes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dlrun.contracts import Metric
from dlrun.engine.callbacks import CallbackList
from dlrun.engine.capture import Advance
from dlrun.engine.interrupt import Interrupt
from dlrun.engine.loaders import Loader
from dlrun.engine.meter import LossMeter
from dlrun.engine.seeding import random_state, restore_random_state
from dlrun.engine.step import TrainStep

Status = Literal["running", "completed", "early_stopped", "interrupted", "diverged", "pruned"]


@dataclass
class Training:
    """What `fit` trains.

    Attributes:
        advance: makes the batch of a draw and trains on it; returns the objective, a scalar on the device.
        total_steps, eval_every, log_every: in optimizer steps.
        monitor: the metric that decides which weights are best, such as "val/accuracy".
        higher_is_better: its direction.
        record: receives each record of metrics.jsonl.
        save: writes a checkpoint now.
        save_weights: writes the evaluated weights, as best.pt has them, to checkpoints/NAME.pt.
        step: optimizer steps done; epoch and position in it follow from it.
        seconds: spent training, over all resumes; validation_seconds the part of it spent validating.
    """

    train_step: TrainStep
    loader: Loader
    advance: Advance
    validate: Callable[[nn.Module], dict[str, float]]
    metrics: Sequence[Metric]
    callbacks: CallbackList
    device: torch.device
    total_steps: int
    eval_every: int
    log_every: int
    monitor: str
    higher_is_better: bool
    record: Callable[[dict[str, Any]], None]
    save: Callable[[], None] = lambda: None
    save_weights: Callable[[str], None] = lambda name: None
    interrupt: Interrupt = field(default_factory=Interrupt)
    step: int = 0
    samples: int = 0
    seconds: float = 0.0
    validation_seconds: float = 0.0
    status: Status = "running"
    divergence: dict[str, Any] | None = None
    last_gradient_norm: tuple[int, float] | None = None

    def __post_init__(self) -> None:
        self.meter = LossMeter(self.log_every, self.device)
        self._clock = time.perf_counter()
        for metric in self.metrics:
            metric.reset(self.device)
        self._empty = [{name: x.clone() for name, x in tensors_of(metric).items()} for metric in self.metrics]

    @property
    def model(self) -> nn.Module:
        return self.train_step.model

    @property
    def evaluated_model(self) -> nn.Module:
        """The model that validation and test see: the averaged one where there is an average."""
        average = self.train_step.average
        return self.model if average is None else average.evaluated

    @property
    def progress(self) -> float:
        """Epochs done, with fraction."""
        return self.step / self.loader.steps_per_epoch

    @property
    def lr(self) -> float:
        """The learning rate of the next step, of the first parameter group."""
        return self.train_step.schedule.lrs[0]

    def improves(self, value: float, best: float, min_delta: float = 0.0) -> bool:
        """Whether `value` is better than `best` by more than `min_delta`; NaN never is, all else is better than NaN."""
        if math.isnan(value) or math.isnan(best):
            return not math.isnan(value)
        return value > best + min_delta if self.higher_is_better else value < best - min_delta

    def tick(self) -> float:
        """Bring `seconds` up to date. Returns: seconds since the last call."""
        now = time.perf_counter()
        passed, self._clock = now - self._clock, now
        self.seconds += passed
        return passed

    def clear_metrics(self) -> None:
        """Let the metrics of training start again, in the tensors they have: a captured graph adds to those."""
        for metric, empty in zip(self.metrics, self._empty, strict=True):
            _fill(metric, empty)

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs to go on bit for bit: plain values and tensors."""
        return {
            "step": self.step,
            "samples": self.samples,
            "seconds": self.seconds,
            "validation_seconds": self.validation_seconds,
            "train": self.train_step.state_dict(),
            "meter": self.meter.state_dict(),
            "metrics": [tensors_of(metric) for metric in self.metrics],
            "callbacks": self.callbacks.state_dict(),
            "random": random_state(self.device),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.step, self.samples = state["step"], state["samples"]
        self.seconds, self.validation_seconds = state["seconds"], state["validation_seconds"]
        self.train_step.load_state_dict(state["train"])
        self.meter.load_state_dict(state["meter"])
        for metric, tensors in zip(self.metrics, state["metrics"], strict=True):
            _fill(metric, tensors)
        self.callbacks.load_state_dict(state["callbacks"])
        restore_random_state(state["random"], self.device)


def _fill(metric: Metric, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        getattr(metric, name).copy_(tensor)  # in place: one may be a view of another


def tensors_of(metric: Metric) -> dict[str, Tensor]:
    """A metric's state: the tensors among its attributes."""
    return {name: value for name, value in vars(metric).items() if isinstance(value, Tensor)}
