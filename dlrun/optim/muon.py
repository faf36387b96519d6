"""Muon for the hidden matrices, AdamW for everything else, as one optimizer."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from dlrun.contracts import NonNegativeFloat, PositiveFloat, PositiveInt, Probability

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic, chosen for the steepest slope at zero


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised, for hidden matrices; AdamW for the other parameters.

        M <- μ·M + (1 - μ)·G          U = μ·M + (1 - μ)·G if nesterov else M
        W <- (1 - η·λ)·W - η·c·NS(U)

    NS(U) ≈ Q·Vᵀ for U = Q·S·Vᵀ, by Newton-Schulz iterations: all singular values end between about 0.7 and 1.2.
    Convolution weights (out, in, h, w) are taken as matrices (out, in·h·w).

    What is hidden: the parameters of a group with `hidden: true` (`ParameterGroups.split_hidden` makes those), none
    of a group with `hidden: false`, and where a group does not say, its parameters of two or more dimensions except
    the first and the last such among all groups: the input layer or embedding, and the output layer. Biases,
    normalisation, input and output layers go to AdamW, with the same learning rate and weight decay.

    Args:
        lr: η of both parts.
        weight_decay: λ of both parts, decoupled.
        momentum: μ.
        ns_steps: Newton-Schulz iterations.
        adjust_lr_fn: c for a matrix of A rows and B columns. match_rms_adamw: 0.2·sqrt(max(A, B)), an update as large
            as AdamW's, so that one learning rate serves both parts; original: sqrt(max(1, A / B)).
        betas, eps: of AdamW.
        fused: AdamW's one-kernel implementation.
        capturable: its steps may be captured in a CUDA graph; None: not, unless training asks for it.

    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/; match_rms_adamw: Liu et al. 2025
    (arXiv:2502.16982). Agrees with torch.optim.Muon, which takes two-dimensional parameters alone.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: PositiveFloat = 1e-3,
        weight_decay: NonNegativeFloat = 0.1,
        momentum: Probability = 0.95,
        nesterov: bool = True,
        ns_steps: PositiveInt = 5,
        adjust_lr_fn: Literal["match_rms_adamw", "original"] = "match_rms_adamw",
        betas: Sequence[Probability] = (0.9, 0.999),
        eps: NonNegativeFloat = 1e-8,
        fused: bool | None = None,
        capturable: bool | None = None,
    ) -> None:
        if adjust_lr_fn not in ("match_rms_adamw", "original"):
            raise ValueError(f"adjust_lr_fn must be match_rms_adamw or original, got {adjust_lr_fn}")
        own = {"momentum": momentum, "nesterov": nesterov, "ns_steps": ns_steps, "adjust_lr_fn": adjust_lr_fn}
        first, second = betas
        # It works on our groups and our state, see `step`; the empty parameter is there because it wants one.
        self._adamw = torch.optim.AdamW(
            [torch.empty(0)],
            lr=lr,
            weight_decay=weight_decay,
            betas=(first, second),
            eps=eps,
            fused=fused,
            capturable=bool(capturable),
        )
        groups = _as_groups(params)
        matrices = [p for group in groups for p in group["params"] if p.ndim >= 2]
        self._outer = {id(p) for p in (*matrices[:1], *matrices[-1:])}
        super().__init__(groups, {**self._adamw.defaults, **own})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, divided into its hidden matrices and the rest."""
        for part in self._divide(param_group):
            super().add_param_group(part)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters that have a gradient; returns what `closure` does, if given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        # Assigned anew each time because load_state_dict replaces both objects.
        self._adamw.param_groups = [group for group in self.param_groups if not group["hidden"]]
        self._adamw.state = self.state
        self._adamw.step()
        for group in self.param_groups:
            if group["hidden"]:
                self._update(group)
        return loss

    def _update(self, group: dict[str, Any]) -> None:
        params = [p for p in group["params"] if p.grad is not None]
        if not params:
            return
        grads = [p.grad for p in params]
        for p in params:
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        buffers = [self.state[p]["momentum_buffer"] for p in params]
        torch._foreach_lerp_(buffers, grads, 1 - group["momentum"])
        updates = torch._foreach_lerp(grads, buffers, group["momentum"]) if group["nesterov"] else buffers
        torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
        for alike in _by_shape(params):
            stacked = torch.stack([updates[i].flatten(1) for i in alike])
            scale = group["lr"] * _scale(group["adjust_lr_fn"], *stacked.shape[1:])
            steps = (orthogonalize(stacked, group["ns_steps"]).to(params[alike[0]].dtype) * scale).unbind()
            for i, step in zip(alike, steps, strict=True):
                params[i].sub_(step.view(params[i].shape))

    def _divide(self, group: dict[str, Any]) -> Iterator[dict[str, Any]]:
        params = _as_list(group["params"])
        said = group.get("hidden")
        hidden = [p.ndim >= 2 and id(p) not in self._outer if said is None else bool(said) for p in params]
        for flag in (True, False):
            part = [p for p, is_hidden in zip(params, hidden, strict=True) if is_hidden == flag]
            if part:
                if flag and any(p.ndim < 2 for p in part):
                    raise ValueError("a group with hidden: true may hold matrices only, got a vector or scalar")
                yield {**group, "params": part, "hidden": flag}


def orthogonalize(matrices: Tensor, steps: int) -> Tensor:
    """Replace all singular values by about 1, keeping the singular vectors: Newton-Schulz with a quintic.

    X <- a·X + b·(X·Xᵀ)·X + c·(X·Xᵀ)²·X maps each singular value s to a·s + b·s³ + c·s⁵.

    Args:
        matrices: (N, rows, columns).

    Returns: (N, rows, columns); in bfloat16 on CUDA, whose tensor cores make it several times faster and whose rounding
        the iteration forgives; in the given dtype elsewhere.
    """
    a, b, c = COEFFICIENTS
    x = matrices.bfloat16() if matrices.is_cuda else matrices
    tall = x.size(-2) > x.size(-1)
    if tall:  # the smaller of the two Gram matrices is the cheaper
        x = x.mT
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)  # spectral norm at most 1
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def _scale(rule: str, rows: int, columns: int) -> float:
    if rule == "match_rms_adamw":
        return 0.2 * math.sqrt(max(rows, columns))
    return math.sqrt(max(1, rows / columns))


def _by_shape(params: Sequence[Tensor]) -> list[list[int]]:
    """Positions of the parameters that are equal in shape and type: their matrices can be multiplied together."""
    alike: dict[Any, list[int]] = {}
    for i, p in enumerate(params):
        alike.setdefault((p.shape, p.dtype, p.device), []).append(i)
    return list(alike.values())


def _as_groups(params: Iterable[Any]) -> list[dict[str, Any]]:
    given = list(params)
    groups = given if given and isinstance(given[0], dict) else [{"params": given}]
    return [{**group, "params": _as_list(group["params"])} for group in groups]


def _as_list(params: Any) -> list[Tensor]:
    return [params] if isinstance(params, Tensor) else list(params)
