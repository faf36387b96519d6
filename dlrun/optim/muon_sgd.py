"""Muon on weights of fixed norm for the hidden matrices, SGD with momentum for everything else, as one optimizer."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from dlrun.contracts import NonNegativeFloat, PositiveFloat, PositiveInt, Probability
from dlrun.optim.muon import orthogonalize


class MuonSGD(torch.optim.Optimizer):
    """Orthogonalised momentum for hidden matrices, whose norm is set anew before each step; Nesterov for the rest.

        hidden:      M <- μ·M + G              W <- W·sqrt(A) / ‖W‖ - η·NS(G + μ·M)
        the others:  V <- β·V + G + (λ/η₀)·W   W <- W - η·(G + (λ/η₀)·W + β·V)

    A is the number of rows of W: with so large a norm the rows are of length 1 on average. It pays where a norm
    follows, to which the size of the weights means nothing. Convolution weights (out, in, h, w) are taken as matrices
    (out, in·h·w); NS is `dlrun.optim.muon.orthogonalize`. Hidden are the parameters of groups with `hidden: true`,
    which `ParameterGroups.split_hidden` makes.

    Args:
        lr: η of a group whose "lr_factor" is 1; the others have their own, by `optimizer.param_groups.lr_factors`.
        weight_decay: λ, the share of the weights that a step takes away at the start, whatever the learning rate η₀ of
            that group is then; it falls with the schedule. Momentum multiplies it by 1 / (1 - β) in the long run.
        momentum: μ.
        sgd_momentum: β.
        ns_steps: Newton-Schulz iterations.
        normalize: whether the norm of hidden matrices is set at all.
        capturable: says that learning rates are to be tensors on the device, for steps captured in a CUDA graph; they
            may be so anyway.

    Source: Jordan 2024, airbench94_muon (https://github.com/KellerJordan/cifar10-airbench).
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: PositiveFloat = 0.24,
        weight_decay: NonNegativeFloat = 0.0,
        momentum: Probability = 0.6,
        sgd_momentum: Probability = 0.85,
        ns_steps: PositiveInt = 3,
        normalize: bool = True,
        capturable: bool | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "sgd_momentum": sgd_momentum,
            "ns_steps": ns_steps,
            "normalize": normalize,
            "capturable": capturable,
            "hidden": False,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; its learning rate now is what its weight decay is relative to."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        group["peak_lr"] = float(group["lr"])
        if group["hidden"] and any(p.ndim < 2 for p in group["params"]):
            raise ValueError("a group with hidden: true may hold matrices only, got a vector or scalar")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters that have a gradient; returns what `closure` does, if given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                (self._orthogonal if group["hidden"] else self._nesterov)(group, params)
        return loss

    def _nesterov(self, group: dict[str, Any], params: list[Tensor]) -> None:
        grads: Any = [p.grad for p in params]
        if group["weight_decay"]:
            grads = torch._foreach_add(grads, params, alpha=group["weight_decay"] / group["peak_lr"])
        updates = self._look_ahead(grads, params, group["sgd_momentum"])
        torch._foreach_mul_(updates, group["lr"])  # a number, or a scalar on the device
        torch._foreach_sub_(params, updates)

    def _orthogonal(self, group: dict[str, Any], params: list[Tensor]) -> None:
        updates = self._look_ahead([p.grad for p in params], params, group["momentum"])
        if group["normalize"]:
            for p, norm in zip(params, torch._foreach_norm(params), strict=True):
                p.mul_(len(p) ** 0.5 / norm)
        alike: dict[Any, list[int]] = {}
        for i, p in enumerate(params):
            alike.setdefault((p.shape, p.dtype, p.device), []).append(i)
        for members in alike.values():  # matrices of one shape are multiplied together
            stacked = torch.stack([updates[i].flatten(1) for i in members])
            steps = orthogonalize(stacked, group["ns_steps"]).to(stacked.dtype) * group["lr"]
            for i, step in zip(members, steps.unbind(), strict=True):
                params[i].sub_(step.view(params[i].shape))

    def _look_ahead(self, grads: Any, params: list[Tensor], momentum: float) -> list[Tensor]:
        """Add the gradients to the buffers. Returns: the gradients plus `momentum` times the buffers, new tensors."""
        for p in params:
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        buffers = [self.state[p]["momentum_buffer"] for p in params]
        torch._foreach_mul_(buffers, momentum)
        torch._foreach_add_(buffers, grads)
        return list(torch._foreach_add(grads, buffers, alpha=momentum))
