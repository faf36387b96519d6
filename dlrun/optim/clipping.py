"""Gradient clipping without waiting for the device."""

from collections.abc import Iterable

from torch import Tensor
from torch.nn.utils import clip_grad_norm_, clip_grad_value_, get_total_norm


def gradient_norm(parameters: Iterable[Tensor]) -> Tensor:
    """Euclidean norm of all gradients together, a scalar on their device (on the CPU if there are none)."""
    return get_total_norm([p.grad for p in parameters if p.grad is not None])


def clip_gradients(parameters: Iterable[Tensor], norm: float | None, value: float | None) -> Tensor | None:
    """Limit the gradients in place: first all together by their norm, then one by one by their size.

    Args:
        norm: g <- g · min(1, norm / ‖g‖), ‖g‖ over all gradients together (Pascanu et al. 2013, arXiv:1211.5063).
        value: g <- min(max(g, -value), value), element by element.

    Returns: ‖g‖ before clipping, a scalar on the device of the gradients, or None without `norm`: value clipping does
        not need it, and `gradient_norm` has it for those who want to look.
    """
    parameters = list(parameters)
    total = None if norm is None else clip_grad_norm_(parameters, norm)
    if value is not None:
        clip_grad_value_(parameters, value)
    return total
