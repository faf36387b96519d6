"""One optimizer step: forward, loss, backward over the micro-batches; clip, update, schedule, average.

`TrainStep.compute` is all work of the device; what the host decides comes before it (`begin`) and after it (`end`), so
that a CUDA graph can stand for `compute` (dlrun/engine/capture.py).
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from dlrun.contracts import Batch, Metric, Optimizer
from dlrun.engine.freezing import Freezing
from dlrun.engine.memory import MicroBatches
from dlrun.engine.objective import Objective, Shares
from dlrun.engine.precision import Precision
from dlrun.errors import ConfigError
from dlrun.layers.buffers import buffers_kept
from dlrun.optim.averaging import WeightAverage
from dlrun.optim.direct import direct_update
from dlrun.optim.gradients import GradientTransform, gradient_norm
from dlrun.optim.lookahead import Lookahead
from dlrun.optim.sam import SharpnessAware

HOW = ("fused", "foreach", "capturable")  # settings of an optimizer's groups that are no part of what it computes


class Schedule(Protocol):
    """The learning rate's course: `step` once per optimizer step, `on_metric` after each validation.

    Attributes:
        lrs: of the next step, one per parameter group, as numbers of the host.
        cycles_momentum: whether momentum or beta1 change with it.
    """

    cycles_momentum: bool

    @property
    def lrs(self) -> list[float]: ...

    def step(self) -> None: ...

    def on_metric(self, value: float) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class TrainStep:
    """Everything that happens to the model for one batch. Nothing here waits for the device.

    Args:
        objective: what is minimised.
        forward: called instead of `model`, such as its compiled form, which shares its weights.
        micro_batch_size, accumulate: of the micro-batches that a batch is cut into, and their number. Their gradients
            are weighted by what each loss is a mean over, so the sum is the gradient of the whole batch, also when the
            last is smaller.
        transforms: of the gradients, in this order.
        sam: where to take the gradients from; None: from where the weights are.
        lookahead: slow weights behind the optimizer's; or None.
        average: of the weights, updated after each step; or None.
        freezing: which parameters learn at which step; None: all that the model lets learn.
        metrics: of training, updated with the outputs as they come.

    Attributes:
        steps: how many have been done.
        micro: the micro-batches; they become smaller when memory runs out.
        measure_norm: whether the next step is to leave `gradient_norm`.
        gradient_norm: of all gradients before any transform, a scalar on the device.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        optimizer: Optimizer,
        schedule: Schedule,
        precision: Precision,
        *,
        forward: Callable[..., Any] | None = None,
        micro_batch_size: int,
        accumulate: int = 1,
        transforms: Sequence[GradientTransform] = (),
        sam: SharpnessAware | None = None,
        lookahead: Lookahead | None = None,
        average: WeightAverage | None = None,
        freezing: Freezing | None = None,
        metrics: Sequence[Metric] = (),
    ) -> None:
        self.model, self.objective, self.optimizer, self.schedule = model, objective, optimizer, schedule
        self.forward = model if forward is None else forward  # a compiled model has no truth value
        self.precision, self.scaler = precision, precision.scaler
        self.transforms, self.sam, self.lookahead = tuple(transforms), sam, lookahead
        self.average, self.freezing, self.metrics = average, freezing, tuple(metrics)
        self.micro = MicroBatches(model, micro_batch_size, accumulate, self.metrics)
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.direct = None if self.scaler is not None else direct_update(optimizer)
        self.zero_grad = None if _clears_gradients_as_ever(optimizer) else optimizer.zero_grad
        self.needs_closure = isinstance(optimizer, torch.optim.LBFGS) or getattr(optimizer, "needs_closure", False)
        self.steps = 0
        self.measure_norm = False
        self.gradient_norm: Tensor | None = None
        self._refuse_contradictions()

    def __call__(self, batch: Batch) -> Tensor:
        """Train on one batch. Returns: its objective, a scalar on the device."""
        self.begin()
        loss = self.compute(batch)
        self.end()
        return loss

    def begin(self) -> None:
        """What the host does before a step, according to how many have been done."""
        if self.freezing is not None and self.freezing.at(self.steps):
            self.micro.forget()
        for transform in self.transforms:
            transform.begin(self.steps)

    def compute(self, batch: Batch) -> Tensor:
        """The part of a step that is the device's alone. Returns: the batch's objective, a scalar on the device."""
        if self.needs_closure:
            return self._step_with_closure(batch)
        loss = self.micro.fitted(self._evaluate, batch)
        self.follow()
        return loss

    def follow(self) -> None:
        """Transform the gradients that are in the parameters, and update by them."""
        self._transform_gradients()
        self._update()

    def abandon(self) -> None:
        """Forget a `compute` that has ended before its end, and has computed nothing: it was to be recorded."""
        if self.scaler is not None:
            self.scaler._per_optimizer_states.clear()  # or it takes the next gradients for unscaled already

    def end(self) -> None:
        """What follows from one more step having been done."""
        self.schedule.step()
        self.settle()

    def settle(self) -> None:
        """What follows beside the schedule, which the runs of a stack may share."""
        self.steps += 1
        if self.lookahead is not None:
            self.lookahead.update()
        if self.average is not None:
            self.average.update()

    @property
    def generators(self) -> list[torch.Generator]:
        """All that `compute` draws random numbers from, beside the device's default one."""
        return [generator for transform in self.transforms for generator in transform.generators]

    @property
    def variant(self) -> tuple[object, ...]:
        """What decides, beside the shapes of a batch, which work `compute` gives the device."""
        return self.measure_norm, self.micro.size, self.freezing.phase if self.freezing is not None else 0

    def _evaluate(self, batch: Batch) -> Tensor:
        """Leave the gradient that the update is to follow in the parameters. Returns: the objective."""
        loss = self._gradients(batch, self.metrics)
        if self.sam is not None:
            with self.sam.climbed(), buffers_kept(self.model):
                self._gradients(batch, ())
        return loss

    def _gradients(self, batch: Batch, metrics: Sequence[Metric]) -> Tensor:
        """Leave the gradient of the batch's objective in the parameters, and nothing else. Returns: the objective."""
        self._clear_gradients()
        parts = self.micro.parts(batch)
        if len(parts) == 1:
            return self._backward(batch, None, metrics)
        shares = self.objective.shares(parts)
        return torch.stack(
            [self._backward(part, share, metrics) for part, share in zip(parts, shares, strict=True)]
        ).sum()

    def _clear_gradients(self) -> None:
        if self.zero_grad is not None:
            self.zero_grad(set_to_none=True)
            return
        for parameter in self.parameters:
            parameter.grad = None

    def _backward(self, batch: Batch, shares: Shares | None, metrics: Sequence[Metric]) -> Tensor:
        with self.precision.autocast():
            outputs = self.forward(*batch.arguments)
            loss = self.objective(outputs, batch, shares)
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()
        outputs = outputs.detach()
        for metric in metrics:
            metric.update(outputs, batch.targets)
        return loss.detach()

    def _transform_gradients(self) -> None:
        """Unscale, measure, clip and so on."""
        if not self.transforms and not self.measure_norm:
            return
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)  # type: ignore[arg-type]
        self.gradient_norm = gradient_norm(self.parameters) if self.measure_norm else None
        for transform in self.transforms:
            transform(self.parameters)

    def _update(self) -> None:
        if self.scaler is not None:
            self.scaler.step(self.optimizer)  # type: ignore[arg-type]
            self.scaler.update()
        elif self.direct is not None:
            self.direct()
        else:
            self.optimizer.step()

    def _step_with_closure(self, batch: Batch) -> Tensor:
        """For optimizers such as L-BFGS that evaluate the loss several times in one step."""
        losses: list[Tensor] = []

        def closure() -> Tensor:
            metrics = () if losses else self.metrics
            loss = self.micro.fitted(lambda batch: self._gradients(batch, metrics), batch)
            self._transform_gradients()
            losses.append(loss)
            return loss

        self.optimizer.step(closure)
        return losses[0]

    def _refuse_contradictions(self) -> None:
        name = type(self.optimizer).__name__
        several = name if self.needs_closure else "trainer.sam" if self.sam is not None else None
        if several and self.scaler is not None:
            raise ConfigError(
                f"trainer.precision=fp16 does not go with {several}, which evaluates the loss several times in a step "
                "and would take scaled gradients for true ones; use fp32 or bf16."
            )
        if self.needs_closure and self.sam is not None:
            raise ConfigError(f"trainer.sam does not go with {name}, which evaluates the loss where it likes.")
        if self.needs_closure and any(transform.once_per_step for transform in self.transforms):
            raise ConfigError(
                f"trainer.clip.percentile and trainer.gradient_noise do not go with {name}, which evaluates the "
                "gradients several times in a step and expects the same at the same place; switch them off."
            )

    def _as_here(self, state: dict[str, Any]) -> dict[str, Any]:
        """An optimizer's state with what its steps are done by here: it may come from another kind of device."""
        groups = state.get("param_groups")
        if groups is None:
            return state
        pairs = zip(groups, self.optimizer.param_groups, strict=True)
        own = [saved | {key: group[key] for key in HOW if key in group} for saved, group in pairs]
        return {**state, "param_groups": own}

    def state_dict(self) -> dict[str, Any]:
        """Everything that evolves, tensors not copied."""
        return {
            "steps": self.steps,
            "micro_batch_size": self.micro.size,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict() if self.scaler else None,
            "transforms": [transform.state_dict() for transform in self.transforms],
            "lookahead": self.lookahead.state_dict() if self.lookahead else None,
            "average": self.average.state_dict() if self.average else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.steps = state["steps"]
        self.micro.size = state.get("micro_batch_size", self.micro.size)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(self._as_here(state["optimizer"]))
        _lay_out_like_parameters(self.optimizer)
        self.schedule.load_state_dict(state["schedule"])
        if self.scaler is not None:
            self.scaler.load_state_dict(state["scaler"])
        for transform, own in zip(self.transforms, state["transforms"], strict=True):
            transform.load_state_dict(own)
        if self.lookahead is not None:
            self.lookahead.load_state_dict(state["lookahead"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])


def _lay_out_like_parameters(optimizer: Optimizer) -> None:
    """Give moments the memory layout of their parameters, which fused kernels take for granted.

    It is another one after a passage through a stack of runs (dlrun/stacked), where no weights are channels-last.
    """
    for parameter, state in getattr(optimizer, "state", {}).items():
        for name, value in state.items() if isinstance(state, dict) else ():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _clears_gradients_as_ever(optimizer: Optimizer) -> bool:
    """Whether `zero_grad` does no more than to let go of the gradients, which a loop does in less time."""
    return getattr(type(optimizer), "zero_grad", None) is torch.optim.Optimizer.zero_grad
