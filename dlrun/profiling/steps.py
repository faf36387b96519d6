"""Steps of the real loop, timed, from its entry to wherever it has taken long enough."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from torch import nn

from dlrun.engine.callbacks import Callback, CallbackList
from dlrun.engine.loop import fit
from dlrun.engine.training import Training
from dlrun.errors import DlrunError
from dlrun.machine.clock import synchronise

ENDLESS = 1 << 60  # steps
LEAST = 3  # steps that a measurement has, however long they take
PASSES = 20  # of the limits of `timed_steps` that one training is put through


@dataclass
class Timing:
    """So many steps of training.

    Attributes:
        seconds: all of them took, until the device had done them.
        each: what the host saw of each.
    """

    steps: int
    seconds: float
    samples: int
    each: list[float] = field(repr=False)
    on_host: bool = True

    @property
    def step_seconds(self) -> float:
        """A step's time: the median where the host computes; a GPU is behind the host, so there the mean."""
        return statistics.median(self.each) if self.on_host else self.seconds / self.steps

    @property
    def samples_per_second(self) -> float:
        return self.samples / self.steps / self.step_seconds


def ready(training: Training) -> Training:
    """Take from a training all that is not a step: validation, checkpoints, records, its end."""

    def validate(model: nn.Module) -> dict[str, float]:
        return {training.monitor: 0.0}

    training.validate = validate
    training.eval_every = training.total_steps = ENDLESS
    training.record = _forget
    return training


def _forget(record: dict[str, Any]) -> None:
    pass


def timed_steps(training: Training, steps: int, seconds: float, least: int = LEAST) -> Timing:
    """Go on training for `steps` steps, or `least` of them and `seconds` seconds if these come sooner.

    Raises: DlrunError if the loss is no number any more; KeyboardInterrupt on Ctrl-C.
    """
    watch = _Watch(steps, seconds, least)
    training.callbacks = CallbackList([watch])
    samples = training.samples
    training.status = "running"
    synchronise(training.device)
    begin = time.perf_counter()
    fit(training)
    synchronise(training.device)
    passed = time.perf_counter() - begin
    if training.interrupt.requested:
        raise KeyboardInterrupt
    at = training.divergence
    if at is not None:
        raise DlrunError(
            f"the loss became {at['loss']} at step {at['step']}, and what is computed from then on is not training; "
            "take a smaller optimizer.lr to profile."
        )
    ends = [begin, *watch.ends]
    each = [after - before for before, after in pairwise(ends)]
    on_host = training.device.type == "cpu"
    return Timing(len(watch.ends), passed, training.samples - samples, each, on_host)


class _Watch(Callback):
    """Ends training when it has run for long enough."""

    def __init__(self, steps: int, seconds: float, least: int) -> None:
        self.steps, self.deadline, self.least = steps, time.perf_counter() + seconds, least
        self.ends: list[float] = []

    def on_step_end(self, training: Training) -> None:
        self.ends.append(time.perf_counter())
        late = self.ends[-1] > self.deadline and len(self.ends) >= self.least
        if len(self.ends) == self.steps or late:
            training.status = "interrupted"
