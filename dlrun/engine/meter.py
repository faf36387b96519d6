"""The losses of recent steps, kept on the device and read a window at a time."""

import math
from typing import Any

import torch
from torch import Tensor


class DivergedError(Exception):
    """The loss became NaN or infinite. `step` counts from 1."""

    def __init__(self, step: int, lr: float, loss: float) -> None:
        super().__init__(f"the loss is {loss} at step {step}")
        self.step, self.lr, self.loss = step, lr, loss


class LossMeter:
    """Collects one loss per step without waiting for the device.

    A loss is written into a buffer there. `drain` reads the buffer, one wait for the whole window, and finds the
    first loss that is not finite with its step. Means are taken in float64 on the host, weighted by batch size.

    Args:
        window: steps the buffer holds; it is drained when full.
    """

    def __init__(self, window: int, device: torch.device) -> None:
        self._buffer = torch.zeros(window, device=device)
        self._slots = self._buffer.unbind()
        self._sizes: list[int] = []
        self._lrs: list[float] = []
        self._since_log: list[tuple[float, int]] = []
        self._total, self._count, self._step = 0.0, 0, 0

    def add(self, loss: Tensor, size: int, lr: float) -> None:
        """Note the loss of one step, a scalar on the device, over `size` examples."""
        if len(self._sizes) == len(self._slots):
            self.drain()
        self._slots[len(self._sizes)].copy_(loss)
        self._sizes.append(size)
        self._lrs.append(lr)

    def drain(self) -> None:
        """Wait for the device and take over the losses of the window. Raises: DivergedError."""
        values = self._buffer[: len(self._sizes)].tolist()
        for value, size, lr in zip(values, self._sizes, self._lrs, strict=True):
            self._step += 1
            if not math.isfinite(value):
                raise DivergedError(self._step, lr, value)
            self._since_log.append((value, size))
            self._total += value * size
            self._count += size
        self._sizes.clear()
        self._lrs.clear()

    def mean_since_log(self) -> float:
        """Mean loss since this was last asked."""
        self.drain()
        total = sum(value * size for value, size in self._since_log)
        count = sum(size for _, size in self._since_log)
        self._since_log.clear()
        return total / max(count, 1)

    def mean_since_validation(self) -> float:
        """Mean loss since this was last asked."""
        self.drain()
        mean = self._total / max(self._count, 1)
        self._total, self._count = 0.0, 0
        return mean

    def state_dict(self) -> dict[str, Any]:
        """Plain values; drains first."""
        self.drain()
        return {"since_log": self._since_log, "total": self._total, "count": self._count, "step": self._step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._since_log = [(value, size) for value, size in state["since_log"]]
        self._total, self._count, self._step = state["total"], state["count"], state["step"]
