"""Sharpness-aware minimisation: the update follows the gradient at the worst point near the weights."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

ETA = 0.01  # keeps adaptive steps from vanishing with the weight (ASAM, sec. 4.2)


class SharpnessAware:
    """Moves the parameters to w + ε, where the loss is highest nearby, and back.

        ε = rho · g / ‖g‖                     adaptive: ε = rho · T²g / ‖Tg‖,  T = |w| + 0.01 element by element

    g is the gradient that is in the parameters when it climbs, ‖·‖ over all parameters together.

    Args:
        rho: how far. 0.05 is usual; adaptive, where it is relative to the weights, 0.5 to 2.

    Source: Foret et al. 2021 (arXiv:2010.01412); adaptive: Kwon et al. 2021, ASAM (arXiv:2102.11600).
    """

    def __init__(self, parameters: Sequence[Tensor], rho: float, adaptive: bool = False) -> None:
        self.parameters = list(parameters)
        self.rho, self.adaptive = rho, adaptive

    @contextmanager
    def climbed(self) -> Iterator[None]:
        """Within the context the parameters are w + ε; after it, w to the bit."""
        moved = [p for p in self.parameters if p.grad is not None]
        with torch.no_grad():
            before = [p.clone() for p in moved]
            if moved:
                torch._foreach_add_(moved, self._steps(moved))
        try:
            yield
        finally:
            with torch.no_grad():
                if moved:
                    torch._foreach_copy_(moved, before)  # adding and subtracting ε would leave rounding behind

    def _steps(self, parameters: list[Tensor]) -> list[Tensor]:
        directions = [p.grad for p in parameters if p.grad is not None]
        if not self.adaptive:
            norm = torch.nn.utils.get_total_norm(directions)
            return list(torch._foreach_mul(directions, self.rho / (norm + 1e-12)))
        scales = torch._foreach_add(torch._foreach_abs(parameters), ETA)
        scaled = torch._foreach_mul(directions, scales)
        norm = torch.nn.utils.get_total_norm(scaled)
        return list(torch._foreach_mul(torch._foreach_mul(scaled, scales), self.rho / (norm + 1e-12)))
