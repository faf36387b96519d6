"""Averages of a model's weights: a second model beside the one that is trained."""

import copy
from typing import Any

import torch
from torch import Tensor, nn


class WeightAverage:
    """A second model made of averages of the first one's weights.

    Args:
        model: the model being trained, already on its device. Its parameters may change, but not be replaced.
        with_statistics: average running statistics too; else they are copied like all other buffers.

    Attributes:
        module: the averaged model, in evaluation mode, without gradients.
        updates: how many there have been.
    """

    def __init__(self, model: nn.Module, with_statistics: bool) -> None:
        self.model = model
        self.updates = 0
        self.module = copy.deepcopy(model).eval().requires_grad_(False)
        for part in self.module.modules():
            if isinstance(part, nn.RNNBase):  # a copy's weights lie apart, and cuDNN would join them at every call
                part.flatten_parameters()
        buffers = list(zip(self.module.named_buffers(), model.buffers(), strict=True))
        averaged = [(ours, theirs) for (name, ours), theirs in buffers if with_statistics and _is_statistic(name, ours)]
        taken = {id(ours) for ours, _ in averaged}
        copied = [(ours, theirs) for (_, ours), theirs in buffers if id(ours) not in taken]
        averaged += zip(self.module.parameters(), model.parameters(), strict=True)
        # One list per type: foreach kernels fall back to a loop over a mixed one.
        self._averaged = [
            _unzip([pair for pair in averaged if _type(pair[0]) == kind])
            for kind in dict.fromkeys(_type(ours) for ours, _ in averaged)
        ]
        self._copied = _unzip(copied)

    @property
    def evaluated(self) -> nn.Module:
        """The model that validation and test see."""
        return self.module

    def update(self) -> None:
        """Take the live weights into the average; call after each optimizer step."""
        raise NotImplementedError

    @torch.no_grad()
    def _take(self, share: float) -> None:
        """average <- (1 - share) · average + share · live."""
        for ours, theirs in self._averaged:
            torch._foreach_lerp_(ours, theirs, share)
        if self._copied[0]:
            torch._foreach_copy_(*self._copied)
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        """The evaluated model's state and the number of updates; tensors are not copies."""
        return {"module": self.evaluated.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self.module.load_state_dict(state["module"])
        self.updates = state["updates"]


class ExponentialMovingAverage(WeightAverage):
    """The moving average of the weights: θ' <- d·θ' + (1-d)·θ.

    Parameters and the running statistics of normalisation layers (floating buffers named `running_*`) are averaged,
    the latter because the live statistics fit the live weights, not weights that lag behind them; timm and
    EfficientNet do the same. Other buffers (counters, masks, tables) are copied: an average of -inf would be NaN.

    Args:
        decay: d, in [0, 1): the average looks back about 1 / (1 - d) updates.
        warmup: use d_t = min(d, (1 + t) / (10 + t)) at the t-th update (t = 0, 1, …), so that a short run does not
            end as an average of its random start: with d = 0.999 and without warm-up, 37 % of the weights after 1000
            updates are still the initial ones. As in TensorFlow's ExponentialMovingAverage(num_updates).
    """

    def __init__(self, model: nn.Module, decay: float, warmup: bool = True) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay}")
        super().__init__(model, with_statistics=True)
        self.decay = decay
        self.warmup = warmup

    def update(self) -> None:
        t = self.updates
        self._take(1 - (min(self.decay, (1 + t) / (10 + t)) if self.warmup else self.decay))


class StochasticWeightAverage(WeightAverage):
    """The equal average of the weights of every `every`-th step from step `start` on.

    Until the first of them the live model is evaluated. Running statistics of batch norms are neither averaged nor
    right for averaged weights: they must be measured again before the average is evaluated (dlrun.engine.statistics).

    Args:
        start: steps before the first weights are taken.

    Source: Izmailov et al. 2018 (arXiv:1803.05407).
    """

    def __init__(self, model: nn.Module, start: int, every: int) -> None:
        super().__init__(model, with_statistics=False)
        self.start, self.every = start, every
        self.steps = 0

    @property
    def evaluated(self) -> nn.Module:
        return self.module if self.updates else self.model

    def update(self) -> None:
        self.steps += 1
        if self.steps >= self.start and (self.steps - self.start) % self.every == 0:
            self._take(1 / (self.updates + 1))

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.steps = state["steps"]


def _is_statistic(name: str, buffer: Tensor) -> bool:
    return buffer.is_floating_point() and name.rpartition(".")[2].startswith("running_")


def _type(tensor: Tensor) -> tuple[torch.device, torch.dtype]:
    return tensor.device, tensor.dtype


def _unzip(pairs: list[tuple[Tensor, Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
    return [ours for ours, _ in pairs], [theirs for _, theirs in pairs]
