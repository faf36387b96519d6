"""What may be done to the gradients between the backward pass and the update, without waiting for the device."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_, get_total_norm

TINY = 1e-6  # as in torch.nn.utils.clip_grad_norm_


def gradient_norm(parameters: Sequence[Tensor]) -> Tensor:
    """Euclidean norm of all gradients together, a scalar on their device (on the CPU if there are none)."""
    return get_total_norm([p.grad for p in parameters if p.grad is not None])


class GradientTransform:
    """Changes the gradients in place, those that are there. Whatever depends on the step is set by `begin`, so that the
    change itself can be captured in a CUDA graph.

    Attributes:
        once_per_step: whether it may be applied only once in a step, which rules out optimizers such as L-BFGS.
        generators: of the random numbers it draws.
    """

    once_per_step = False
    generators: Sequence[torch.Generator] = ()

    def begin(self, step: int) -> None:
        """Get ready for the step before which `step` optimizer steps have been done."""

    def __call__(self, parameters: Sequence[Tensor]) -> None:
        """Change `p.grad` of the parameters, by work on the device alone."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""


class ClipNorm(GradientTransform):
    """g <- g · min(1, limit / ‖g‖), ‖g‖ over all gradients together. Source: Pascanu et al. 2013 (arXiv:1211.5063)."""

    def __init__(self, limit: float) -> None:
        self.limit = limit

    def __call__(self, parameters: Sequence[Tensor]) -> None:
        clip_grad_norm_(parameters, self.limit)


class ClipPercentile(GradientTransform):
    """AutoClip: `ClipNorm` whose limit is a percentile of the norms so far, this step's among them.

    Norms that are not finite, as those of an overflow in fp16, are not remembered.

    Args:
        percentile: in (0, 100]; interpolated between neighbours, as in NumPy. 10 is the paper's.
        history: the latest so many norms are remembered. The paper remembers all.
        largest: the limit is never above this; None: no such bound.

    Source: Seetharaman et al. 2020, AutoClip (arXiv:2007.14469).
    """

    once_per_step = True

    def __init__(self, percentile: float, history: int, largest: float | None, device: torch.device) -> None:
        self.percentile, self.largest = percentile, largest
        self.norms = torch.full((history,), torch.nan, device=device)  # a ring; not yet filled: NaN
        self._position = torch.zeros(1, dtype=torch.long, device=device)

    def begin(self, step: int) -> None:
        self._position.fill_(step % len(self.norms))

    def __call__(self, parameters: Sequence[Tensor]) -> None:
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = get_total_norm(gradients)
        self.norms.index_copy_(0, self._position, norm.where(norm.isfinite(), torch.nan).to(self.norms).view(1))
        limit = torch.nanquantile(self.norms, self.percentile / 100)
        if self.largest is not None:
            limit = limit.clamp(max=self.largest)
        if gradients:
            torch._foreach_mul_(gradients, (limit / (norm + TINY)).clamp(max=1.0))

    def state_dict(self) -> dict[str, Any]:
        return {"norms": self.norms}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.norms.copy_(state["norms"])


class ClipEach(GradientTransform):
    """g <- g · min(1, limit / ‖g‖) for the gradient g of each parameter tensor on its own."""

    def __init__(self, limit: float) -> None:
        self.limit = limit

    def __call__(self, parameters: Sequence[Tensor]) -> None:
        gradients = [p.grad for p in parameters if p.grad is not None]
        if gradients:
            norms = torch.stack([norm.float() for norm in torch._foreach_norm(gradients)])
            factors = (self.limit / (norms + TINY)).clamp(max=1.0)
            for gradient, factor in zip(gradients, factors.unbind(), strict=True):
                gradient.mul_(factor)


class ClipAdaptive(GradientTransform):
    """AGC: the gradient of each unit is kept below `ratio` times the unit's weights.

        g_i <- g_i · min(1, ratio · max(‖w_i‖, 1e-3) / ‖g_i‖)

    A unit i is a row of a matrix or a filter of a convolution, all that leads to one output; a vector or scalar (bias,
    scale of a norm) is one unit.

    Args:
        excluded: parameters that are left alone: the paper's own are those of the last layer.

    Source: Brock et al. 2021 (arXiv:2102.06171), sec. 4.1.
    """

    def __init__(self, ratio: float, excluded: Sequence[Tensor] = ()) -> None:
        self.ratio = ratio
        self._excluded = {id(p) for p in excluded}

    def __call__(self, parameters: Sequence[Tensor]) -> None:
        for p in parameters:
            if p.grad is not None and id(p) not in self._excluded:
                limit = unit_norms(p.detach()).clamp(min=1e-3) * self.ratio
                p.grad.mul_((limit / unit_norms(p.grad).clamp(min=TINY)).clamp(max=1.0))


class ClipValue(GradientTransform):
    """g <- min(max(g, -limit), limit), element by element."""

    def __init__(self, limit: float) -> None:
        self.limit = limit

    def __call__(self, parameters: Sequence[Tensor]) -> None:
        gradients = [p.grad for p in parameters if p.grad is not None]
        if gradients:
            torch._foreach_clamp_min_(gradients, -self.limit)
            torch._foreach_clamp_max_(gradients, self.limit)


class GradientNoise(GradientTransform):
    """g <- g + N(0, σ²), element by element, with σ² = eta / (1 + t)^gamma at step t = 0, 1, …

    Args:
        seed: of the noise of a step, as a function of the step: nothing need be remembered to resume.

    Source: Neelakantan et al. 2015 (arXiv:1511.06807): gamma 0.55, eta of 0.01, 0.3 or 1.
    """

    once_per_step = True

    def __init__(self, eta: float, gamma: float, seed: Callable[[int], int], device: torch.device) -> None:
        self.eta, self.gamma, self.seed = eta, gamma, seed
        self.generator = torch.Generator(device)
        self.generators = (self.generator,)
        self._sigma = torch.zeros((), device=device)

    def sigma(self, step: int) -> float:
        """The noise's standard deviation at `step`."""
        return float((self.eta / (1 + step) ** self.gamma) ** 0.5)

    def begin(self, step: int) -> None:
        self.generator.manual_seed(self.seed(step))
        self._sigma.fill_(self.sigma(step))

    def __call__(self, parameters: Sequence[Tensor]) -> None:
        for p in parameters:
            if p.grad is not None:
                noise = torch.randn(p.shape, generator=self.generator, device=p.device, dtype=p.dtype)
                p.grad.add_(noise.mul_(self._sigma))


def unit_norms(tensor: Tensor) -> Tensor:
    """Euclidean norms over all dimensions but the first, which are kept with size 1; of a vector or scalar, all."""
    dimensions = None if tensor.ndim <= 1 else tuple(range(1, tensor.ndim))
    norms: Tensor = torch.linalg.vector_norm(tensor, dim=dimensions, keepdim=True)
    return norms
