"""One clock for every learning-rate schedule: the optimizer step, whatever unit the schedule itself counts in."""

import copy
import math
from collections.abc import Callable
from typing import Any, Literal, SupportsFloat

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from dlrun.contracts import Optimizer

MOMENTA = ("momentum", "betas")  # what 1cycle and CLR may change beside the learning rate


class Schedule:
    """Any torch scheduler behind a linear warm-up, advanced once per optimizer step.

    The learning rate of a group at step s, counted from 0, is

        lr_factor · min((s + 1) / (W + 1), 1) · η(max(s - W, 0))        W = warmup_steps,

    where η is the inner schedule, so that its milestones and horizons count from the end of the warm-up, as after
    torch's SequentialLR. It sees the common learning rate, without the groups' "lr_factor": an absolute value such as
    OneCycleLR's `max_lr` or CosineAnnealingLR's `eta_min` is thus scaled for every group like the rate itself.
    In a group that ends early, at step U, a straight line η0 · max(1 - s / U, 0) is in the place of η, η0 being the
    optimizer's own learning rate.

    The inner scheduler works on a stand-in for the optimizer and its results are copied over. The optimizer needs
    only `param_groups`; its `step` is not wrapped; a learning rate held in a tensor (a captured CUDA graph) is filled
    in place, without waiting for the device. Whoever sets `lr` elsewhere is overruled at the next change.

    Args:
        optimizer: its groups hold the learning rates to start from; "lr_factor" is 1 where absent, and U, their
            "until_steps", infinite.
        make: called with the stand-in, returns the scheduler; a `_partial_` of any class of torch.optim.lr_scheduler.
        warmup_steps: W.
        steps_per_epoch: optimizer steps in an epoch.
        interval: when the inner scheduler advances after the warm-up: every step, every `steps_per_epoch` steps, or
            at every `on_metric`.
        hold: (step, learning rate): from that step on the rate is constant, times the groups' "lr_factor"; those that
            end early keep to their line.

    Attributes:
        inner: the scheduler that `make` returned.
        cycles_momentum: whether momentum or beta1 change too; a captured CUDA graph would keep their first values.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        make: Callable[[torch.optim.Optimizer], LRScheduler],
        warmup_steps: int,
        steps_per_epoch: int,
        interval: Literal["step", "epoch", "metric"],
        hold: tuple[int, float] | None = None,
    ) -> None:
        if warmup_steps < 0 or steps_per_epoch < 1 or interval not in ("step", "epoch", "metric"):
            raise ValueError(
                "a schedule needs warmup_steps >= 0, steps_per_epoch >= 1 and interval step, epoch or metric, got "
                f"{warmup_steps}, {steps_per_epoch} and {interval}"
            )
        self.optimizer = optimizer
        self.warmup_steps = warmup_steps
        self.interval = interval
        self.hold = hold
        self._every = steps_per_epoch if interval == "epoch" else 1
        self._steps = 0
        self._factors = [float(group.get("lr_factor", 1.0)) for group in optimizer.param_groups]
        # The very tensors that a captured graph reads; load_state_dict puts others into the groups.
        self._tensors = [group["lr"] if isinstance(group["lr"], Tensor) else None for group in optimizer.param_groups]
        self._written: dict[int, float] = {}  # what stands in them, by id
        self._until = [float(group.get("until_steps", math.inf)) for group in optimizer.param_groups]
        self._ended = max((until for until in self._until if until < math.inf), default=-1)
        self._stand_in = _StandIn(optimizer, self._factors)
        self._peaks = [group["lr"] for group in self._stand_in.param_groups]  # before the inner schedule sets its own
        self.inner = make(self._stand_in)
        # The step after the last is asked for too, where OneCycleLR would overshoot and soon raise: it holds its end.
        self._last = self.inner.total_steps - 1 if isinstance(self.inner, OneCycleLR) else None
        self.cycles_momentum = bool(getattr(self.inner, "cycle_momentum", False))
        self._write()

    @property
    def lr(self) -> float:
        """The learning rate of the next step for a group whose factor is 1."""
        return self._planned(self._stand_in.param_groups[0])

    @property
    def lrs(self) -> list[float]:
        """The learning rate of the next step for each of the optimizer's groups."""
        groups = zip(self._stand_in.param_groups, self._factors, self._until, self._peaks, strict=True)
        return [
            factor * (self._planned(group) if until == math.inf else self._on_its_line(peak, until))
            for group, factor, until, peak in groups
        ]

    def step(self) -> None:
        """Set the learning rates for the next optimizer step; call after every one."""
        self._steps += 1
        if self._is_due():
            self.inner.step()
        elif self._steps > self.warmup_steps and not self._begins_to_hold() and self._steps > self._ended:
            return
        self._write()

    def on_metric(self, value: SupportsFloat) -> None:
        """Give a schedule with interval "metric" the monitored metric; others, and the warm-up, ignore it.

        Args:
            value: of the last validation; which direction is better, the inner scheduler was told when made.
        """
        if self.interval == "metric" and self._steps >= self.warmup_steps:
            self.inner.step(value)  # type: ignore[arg-type]
            self._write()

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue, as plain values and independent of what happens later."""
        groups = [{key: group[key] for key in group if key != "params"} for group in self._stand_in.param_groups]
        return copy.deepcopy({"steps": self._steps, "groups": groups, "inner": self.inner.state_dict()})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned, and set the learning rates accordingly."""
        state = copy.deepcopy(state)
        self._steps = state["steps"]
        for group, saved in zip(self._stand_in.param_groups, state["groups"], strict=True):
            group.update(saved)
        self.inner.load_state_dict(state["inner"])
        self._write()

    def _is_due(self) -> bool:
        """Whether the inner schedule advances at this step."""
        after = self._steps - self.warmup_steps
        if after <= 0 or self.interval == "metric" or after % self._every:
            return False
        return self._last is None or self.inner.last_epoch < self._last

    def _begins_to_hold(self) -> bool:
        return self.hold is not None and self._steps == self.hold[0]

    def _planned(self, group: dict[str, Any]) -> float:
        """The learning rate of the next step for a group of the stand-in, without its factor."""
        if self.hold is not None and self._steps >= self.hold[0]:
            return self.hold[1]
        return float(group["lr"]) * self._warmth

    def _on_its_line(self, peak: float, until: float) -> float:
        """The learning rate of the next step for a group that ends early, without its factor."""
        return peak * self._warmth * max(1 - self._steps / until, 0.0)

    @property
    def _warmth(self) -> float:
        """What the warm-up leaves of the learning rate of the next step."""
        return min((self._steps + 1) / (self.warmup_steps + 1), 1.0)

    def _write(self) -> None:
        groups = zip(self.optimizer.param_groups, self._stand_in.param_groups, strict=True)
        for (group, planned), lr, tensor in zip(groups, self.lrs, self._tensors, strict=True):
            group["lr"] = lr if tensor is None else tensor
            if tensor is not None and lr != self._written.get(id(tensor)):
                self._written[id(tensor)] = lr
                tensor.fill_(lr)
            if self.cycles_momentum:
                group.update({key: planned[key] for key in MOMENTA if key in group})


class _StandIn(torch.optim.Optimizer):
    """Groups with the settings of another optimizer's, the learning rate undone of "lr_factor" and held as a float."""

    def __init__(self, optimizer: Optimizer, factors: list[float]) -> None:
        groups = [
            {**group, "lr": float(group["lr"]) / factor}
            for group, factor in zip(optimizer.param_groups, factors, strict=True)
        ]
        super().__init__(groups, dict(getattr(optimizer, "defaults", {})))
        self._opt_called = (
            True  # or torch warns that schedulers come after optimizer.step(), which is not seen from here
        )

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Nothing: schedulers want it to be there."""
