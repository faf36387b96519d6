"""Lookahead: slow weights that follow the optimizer's fast ones, and from which these set out again."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class Lookahead:
    """After every `steps` updates of any optimizer:  φ <- φ + alpha·(θ - φ),  θ <- φ.

    θ are the parameters, which the optimizer moves, φ their slow copies. The optimizer's own state (momentum) is kept,
    as in the paper. What is evaluated is θ: the slow weights at every `steps`-th step, up to `steps` - 1 updates ahead
    of them in between; let trainer.eval_every be a multiple of `steps` to see the slow weights alone.

    Args:
        steps: k in the paper.
        alpha: in (0, 1]; 1 leaves the optimizer alone.

    Source: Zhang et al. 2019 (arXiv:1907.08610).
    """

    def __init__(self, parameters: Sequence[Tensor], steps: int = 5, alpha: float = 0.5) -> None:
        self.parameters = list(parameters)
        self.steps, self.alpha = steps, alpha
        self.slow = [p.detach().clone() for p in self.parameters]
        self.updates = 0

    @torch.no_grad()
    def update(self) -> None:
        """Call after each update of the optimizer."""
        self.updates += 1
        if self.updates % self.steps == 0 and self.parameters:
            torch._foreach_lerp_(self.slow, self.parameters, self.alpha)
            torch._foreach_copy_(self.parameters, self.slow)

    def state_dict(self) -> dict[str, Any]:
        """The slow weights, not copied, and the number of updates."""
        return {"slow": self.slow, "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        for ours, saved in zip(self.slow, state["slow"], strict=True):
            ours.copy_(saved)
        self.updates = state["updates"]
