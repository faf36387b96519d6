"""One optimizer step: forward, loss, backward over the micro-batches; clip, update, schedule, average."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from dlrun.contracts import Batch, Metric, Optimizer
from dlrun.engine.evaluate import loss_weight
from dlrun.engine.precision import Precision
from dlrun.errors import ConfigError
from dlrun.optim.averaging import ExponentialMovingAverage
from dlrun.optim.clipping import clip_gradients, gradient_norm


class Schedule(Protocol):
    """The learning rate's course: `step` once per optimizer step, `on_metric` after each validation."""

    def step(self) -> None: ...

    def on_metric(self, value: float) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class TrainStep:
    """Everything that happens to the model for one batch. Nothing here waits for the device.

    Args:
        loss: (outputs, targets) to the mean over the batch.
        forward: called instead of `model`, such as its compiled form, which shares its weights.
        accumulate: micro-batches a batch is cut into. Their gradients are weighted by what each loss is a mean
            over, so the sum is the gradient of the whole batch, also when the last is smaller.
        clip_norm, clip_value: largest norm of all gradients together, largest absolute value of any; or None.
        average: of the weights, updated after each step; or None.
        metrics: of training, updated with the outputs as they come.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[Tensor, Tensor], Tensor],
        optimizer: Optimizer,
        schedule: Schedule,
        precision: Precision,
        *,
        forward: Callable[..., Any] | None = None,
        micro_batch_size: int,
        accumulate: int = 1,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        average: ExponentialMovingAverage | None = None,
        metrics: Sequence[Metric] = (),
    ) -> None:
        self.model, self.loss, self.optimizer, self.schedule = model, loss, optimizer, schedule
        self.forward = forward or model
        self.precision, self.scaler = precision, precision.scaler
        self.micro_batch_size, self.accumulate = micro_batch_size, accumulate
        self.clip_norm, self.clip_value = clip_norm, clip_value
        self.average, self.metrics = average, tuple(metrics)
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.needs_closure = isinstance(optimizer, torch.optim.LBFGS) or getattr(optimizer, "needs_closure", False)
        if self.needs_closure and self.scaler is not None:
            raise ConfigError(
                f"trainer.precision=fp16 does not go with {type(optimizer).__name__}, which evaluates the loss several "
                "times in a step and would take scaled gradients for true ones; use fp32 or bf16."
            )
        self.measure_norm = False
        self.gradient_norm: Tensor | None = None

    def __call__(self, batch: Batch) -> Tensor:
        """Train on one batch. Returns: its loss, a scalar on the device."""
        if self.needs_closure:
            loss = self._step_with_closure(batch)
        else:
            loss = self._gradients(batch, self.metrics)
            self._finish_gradients()
            if self.scaler is None:
                self.optimizer.step()
            else:
                self.scaler.step(self.optimizer)  # type: ignore[arg-type]
                self.scaler.update()
        self.schedule.step()
        if self.average is not None:
            self.average.update()
        return loss

    def _gradients(self, batch: Batch, metrics: Sequence[Metric]) -> Tensor:
        """Leave the gradient of the batch's mean loss in the parameters. Returns: that loss."""
        self.optimizer.zero_grad(set_to_none=True)
        if self.accumulate == 1:
            return self._backward(batch, None, metrics)
        parts = batch.split(self.micro_batch_size)
        weights = [loss_weight(self.loss, part) for part in parts]
        total = sum(weights)
        return torch.stack(
            [self._backward(part, weight / total, metrics) for part, weight in zip(parts, weights, strict=True)]
        ).sum()

    def _backward(self, batch: Batch, share: Tensor | float | None, metrics: Sequence[Metric]) -> Tensor:
        with self.precision.autocast():
            outputs = self.forward(*batch.arguments)
            loss = self.loss(outputs, batch.targets)
        if share is not None:
            loss = loss * share
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()
        outputs = outputs.detach()
        for metric in metrics:
            metric.update(outputs, batch.targets)
        return loss.detach()

    def _finish_gradients(self) -> None:
        """Unscale and clip; measure the norm when clipping does or when it is asked for."""
        if self.clip_norm is None and self.clip_value is None and not self.measure_norm:
            return
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)  # type: ignore[arg-type]
        before = gradient_norm(self.parameters) if self.measure_norm and self.clip_norm is None else None
        clipped = clip_gradients(self.parameters, norm=self.clip_norm, value=self.clip_value)
        self.gradient_norm = before if clipped is None else clipped

    def _step_with_closure(self, batch: Batch) -> Tensor:
        """For optimizers such as L-BFGS that evaluate the loss several times in one step."""
        losses: list[Tensor] = []

        def closure() -> Tensor:
            loss = self._gradients(batch, () if losses else self.metrics)
            self._finish_gradients()
            losses.append(loss)
            return loss

        self.optimizer.step(closure)
        return losses[0]

    def state_dict(self) -> dict[str, Any]:
        """Everything that evolves: weights, optimizer, schedule, loss scale, average."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict() if self.scaler else None,
            "average": self.average.state_dict() if self.average else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        if self.scaler is not None:
            self.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
