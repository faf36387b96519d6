"""Learning-rate schedules that torch lacks. All are closed forms of the number t of steps since the warm-up; η0 is the
optimizer's learning rate. Lengths written as "20%" or "2ep" arrive here as whole steps (dlrun/optim/durations.py)."""

import math
from typing import Literal

from torch import Tensor
from torch.optim.lr_scheduler import CyclicLR, LRScheduler
from torch.optim.optimizer import Optimizer

from dlrun.contracts import Duration, Fraction, NonNegativeFloat, PositiveFloat, PositiveInt


class ClosedForm(LRScheduler):
    """A schedule given by `at`: the learning rate as a function of η0 and t alone."""

    def at(self, lr: float | Tensor, t: int) -> float | Tensor:
        """The learning rate at step `t` of a group whose η0 is `lr`."""
        raise NotImplementedError

    def get_lr(self) -> list[float | Tensor]:
        return [self.at(lr, self.last_epoch) for lr in self.base_lrs]


class Polynomial(ClosedForm):
    """η(t) = η_end + (η0 - η_end) · (1 - t/T)^p up to T, then η_end.

    Args:
        total_steps: T.
        power: p; 1 is a straight line, 2 falls fast and levels off, 0.5 the other way round.
        end_lr: η_end. torch's PolynomialLR is the case 0.
    """

    def __init__(
        self, optimizer: Optimizer, *, total_steps: Duration, power: PositiveFloat = 2.0, end_lr: NonNegativeFloat = 0.0
    ) -> None:
        self.total_steps = _whole("total_steps", total_steps)
        self.power = power
        self.end_lr = end_lr
        super().__init__(optimizer)

    def at(self, lr: float | Tensor, t: int) -> float | Tensor:
        left = (1 - min(t / self.total_steps, 1.0)) ** self.power
        return self.end_lr + (lr - self.end_lr) * float(left)


class InverseSqrt(ClosedForm):
    """η(t) = η0 · sqrt(τ / (τ + t)).

    With τ equal to the warm-up this is the schedule of the Transformer ("Noam"), whose peak is η0.

    Args:
        timescale: τ, after which the learning rate has fallen to η0 / √2.

    Source: Vaswani et al. 2017, sec. 5.3 (arXiv:1706.03762).
    """

    def __init__(self, optimizer: Optimizer, *, timescale: Duration) -> None:
        self.timescale = _whole("timescale", timescale)
        super().__init__(optimizer)

    def at(self, lr: float | Tensor, t: int) -> float | Tensor:
        return lr * math.sqrt(self.timescale / (self.timescale + t))


class WarmupStableDecay(ClosedForm):
    """η(t) = η0 up to T - D, then η0 · (f + (1 - f) · s(x)) with x = (t - T + D) / D from 0 to 1, then f · η0.

    s is 1 - x (linear), (1 + cos πx) / 2 (cosine) or 1 - √x (1-sqrt). The warm-up is the common one.

    Args:
        total_steps: T.
        decay_steps: D, at most T.
        end_factor: f.
        shape: of the decay; 1-sqrt ends lowest in the comparison of Hägele et al.

    Source: Hu et al. 2024 (arXiv:2404.06395); the shapes: Hägele et al. 2024 (arXiv:2405.18392).
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        total_steps: Duration,
        decay_steps: Duration,
        end_factor: Fraction = 0.0,
        shape: Literal["linear", "cosine", "1-sqrt"] = "1-sqrt",
    ) -> None:
        self.total_steps = _whole("total_steps", total_steps)
        self.decay_steps = _whole("decay_steps", decay_steps)
        if self.decay_steps > self.total_steps:
            raise ValueError(f"decay_steps must be at most total_steps={total_steps}, got {decay_steps}")
        if shape not in ("linear", "cosine", "1-sqrt"):
            raise ValueError(f"shape must be linear, cosine or 1-sqrt, got {shape}")
        self.end_factor = end_factor
        self.shape = shape
        super().__init__(optimizer)

    def at(self, lr: float | Tensor, t: int) -> float | Tensor:
        x = min(max(t - self.total_steps + self.decay_steps, 0) / self.decay_steps, 1)
        if self.shape == "linear":
            left = 1 - x
        elif self.shape == "cosine":
            left = (1 + math.cos(math.pi * x)) / 2
        else:
            left = 1 - math.sqrt(x)
        return lr * (self.end_factor + (1 - self.end_factor) * left)


class CosineRestarts(ClosedForm):
    """Cosine annealing with warm restarts whose peaks fall: in cycle i, begun at t_i and P_i steps long,

        η(t) = η_min + (η0 · r^i - η_min) · (1 + cos(π · (t - t_i) / P_i)) / 2,    P_i = P_0 · g^i.

    P_0 is such that exactly `cycles` cycles fill T steps, so that training ends at the bottom of one; beyond T the
    cycles go on. A peak never lies below η_min.

    Args:
        total_steps: T.
        cycles: how often to anneal; 1 is plain cosine annealing.
        cycle_growth: g, each cycle's length over the one before.
        restart_decay: r, each peak over the one before; 1 is SGDR.
        eta_min: η_min.

    Source: Loshchilov & Hutter 2017, SGDR (arXiv:1608.03983), where P_0 is T_0 and g is T_mult.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        total_steps: Duration,
        cycles: PositiveInt = 5,
        cycle_growth: PositiveFloat = 1.0,
        restart_decay: PositiveFloat = 0.8,
        eta_min: NonNegativeFloat = 0.0,
    ) -> None:
        self.total_steps = _whole("total_steps", total_steps)
        self.cycles = cycles
        self.cycle_growth = cycle_growth
        self.restart_decay = restart_decay
        self.eta_min = eta_min
        super().__init__(optimizer)

    def at(self, lr: float | Tensor, t: int) -> float | Tensor:
        index, done = self._position(t)
        peak = max(lr * self.restart_decay**index, self.eta_min)
        return self.eta_min + (peak - self.eta_min) * (1 + math.cos(math.pi * done)) / 2

    def _position(self, t: int) -> tuple[int, float]:
        """The cycle at step `t` and how much of it is done, in [0, 1)."""
        start, length = 0.0, self.total_steps / sum(self.cycle_growth**i for i in range(self.cycles))
        index = 0
        # The tolerance keeps rounding from putting a restart one step late.
        while t >= start + length - 1e-6 and length > 1e-6:
            start, length, index = start + length, length * self.cycle_growth, index + 1
        return index, max(t - start, 0.0) / length


def cyclic(
    optimizer: Optimizer,
    *,
    max_lr: PositiveFloat,
    base_factor: Fraction = 0.1,
    step_size_up: Duration,
    step_size_down: Duration | None = None,
    mode: Literal["triangular", "triangular2", "exp_range"] = "triangular",
    gamma: Fraction = 1.0,
    cycle_momentum: bool = False,
    base_momentum: Fraction = 0.8,
    max_momentum: Fraction = 0.9,
) -> CyclicLR:
    """torch's CyclicLR with the lower bound as a factor of the upper one, so that `optimizer.lr` alone scales both.

    Args:
        base_factor: the lowest learning rate is base_factor · max_lr.

    Source: Smith 2017 (arXiv:1506.01186).
    """
    return CyclicLR(
        optimizer,
        base_lr=base_factor * max_lr,
        max_lr=max_lr,
        step_size_up=_whole("step_size_up", step_size_up),
        step_size_down=None if step_size_down is None else _whole("step_size_down", step_size_down),
        mode=mode,
        gamma=gamma,
        cycle_momentum=cycle_momentum,
        base_momentum=base_momentum,
        max_momentum=max_momentum,
    )


def _whole(name: str, value: int | float | str) -> int:
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number of steps >= 1, got {value!r}")
    return value
