"""The exponential moving average of a model's weights."""

import copy
from typing import Any

import torch
from torch import Tensor, nn


class ExponentialMovingAverage:
    """A second model whose weights are the moving average of the first one's: θ' <- d·θ' + (1-d)·θ.

    Parameters and the running statistics of normalisation layers (floating buffers named `running_*`) are averaged,
    the latter because the live statistics fit the live weights, not weights that lag behind them; timm and
    EfficientNet do the same. Other buffers (counters, masks, tables) are copied: an average of -inf would be NaN.

    Args:
        model: the model being trained, already on its device. Its parameters may change, but not be replaced.
        decay: d, in [0, 1): the average looks back about 1 / (1 - d) updates.
        warmup: use d_t = min(d, (1 + t) / (10 + t)) at the t-th update (t = 0, 1, …), so that a short run does not
            end as an average of its random start: with d = 0.999 and without warm-up, 37 % of the weights after 1000
            updates are still the initial ones. As in TensorFlow's ExponentialMovingAverage(num_updates).

    Attributes:
        module: the averaged model, in evaluation mode, without gradients.
        updates: how many there have been.
    """

    def __init__(self, model: nn.Module, decay: float, warmup: bool = True) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay}")
        self.decay = decay
        self.warmup = warmup
        self.updates = 0
        self.module = copy.deepcopy(model).eval().requires_grad_(False)
        buffers = list(zip(self.module.named_buffers(), model.buffers(), strict=True))
        averaged = [(ours, theirs) for (name, ours), theirs in buffers if _is_statistic(name, ours)]
        copied = [(ours, theirs) for (name, ours), theirs in buffers if not _is_statistic(name, ours)]
        averaged += zip(self.module.parameters(), model.parameters(), strict=True)
        # One list per type: foreach kernels fall back to a loop over a mixed one.
        self._averaged = [
            _unzip([pair for pair in averaged if _type(pair[0]) == kind])
            for kind in dict.fromkeys(_type(ours) for ours, _ in averaged)
        ]
        self._copied = _unzip(copied)

    @torch.no_grad()
    def update(self) -> None:
        """Take the live weights into the average; call after each optimizer step."""
        t = self.updates
        decay = min(self.decay, (1 + t) / (10 + t)) if self.warmup else self.decay
        for ours, theirs in self._averaged:
            torch._foreach_lerp_(ours, theirs, 1 - decay)
        if self._copied[0]:
            torch._foreach_copy_(*self._copied)
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        """The averaged model's state and the number of updates; tensors are not copies."""
        return {"module": self.module.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self.module.load_state_dict(state["module"])
        self.updates = state["updates"]


def _is_statistic(name: str, buffer: Tensor) -> bool:
    return buffer.is_floating_point() and name.rpartition(".")[2].startswith("running_")


def _type(tensor: Tensor) -> tuple[torch.device, torch.dtype]:
    return tensor.device, tensor.dtype


def _unzip(pairs: list[tuple[Tensor, Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
    return [ours for ours, _ in pairs], [theirs for _, theirs in pairs]
