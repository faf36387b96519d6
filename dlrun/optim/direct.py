"""`optimizer.step()` of torch's fused SGD, Adam and AdamW on the CPU, with all that it looks up each time kept.

A step of a small model takes about a millisecond, and `optimizer.step()` spends a tenth of that on finding the same
tensors again: profiling ranges, hooks, a pass over the parameters for the lists of moments, their sorting by device and
type, and one addition for the step counter of every parameter. `DirectUpdate` keeps the lists and calls the kernel that
`step` calls, with the settings that the groups have at that moment, so that it gives the same bits.

It is safe because it only ever shortens the way. Which tensors the lists hold is decided by the optimizer, whose own
`step` makes them; whatever may change them (a loaded state, a parameter that begins or ceases to have a gradient, a
momentum that is switched on) has the lists made anew; whatever it does not know (hooks, a sparse gradient, a `step`
that someone has wrapped) goes through `step`. And as the kernels are private to torch, both ways are compared once on a
few numbers, in the torch there is, before one is taken for the other.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

KINDS = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)
UNUSUAL = ("amsgrad", "capturable", "differentiable")


def direct_update(optimizer: Any) -> DirectUpdate | None:
    """What to call instead of `optimizer.step()`; None if that is the only way."""
    if type(optimizer) not in KINDS or not all(map(_is_plain, optimizer.param_groups)):
        return None
    try:
        return DirectUpdate(optimizer) if _gives_the_same(optimizer) else None
    except Exception:  # of whatever kind: what it relies on is private to torch, and there is another way
        return None


@dataclass
class _Lists:
    """Parameters of a group that have gradients, and their state, in the order in which the kernel takes them."""

    group: dict[str, Any]
    parameters: list[Tensor]
    state: list[list[Tensor]]
    has_momentum: bool


class DirectUpdate:
    """Call it instead of `optimizer.step()`; see the head of this file."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self._update = _sgd if isinstance(optimizer, torch.optim.SGD) else _adam
        self._lists: list[_Lists] | None = None
        self._idle: list[Tensor] = []  # parameters that had no gradient
        self._steps = torch.zeros(0)  # the counters of all parameters, of which each has a view
        self._state: Any = None  # of the optimizer, when the lists were made
        self._groups: Any = None
        common: Any = sys.modules[Optimizer.__module__]
        self._hooks = (
            optimizer._optimizer_step_pre_hooks,
            optimizer._optimizer_step_post_hooks,
            common._global_optimizer_pre_hooks,
            common._global_optimizer_post_hooks,
        )

    def __call__(self) -> None:
        gradients = self._gradients()
        if gradients is None:
            self._collect()
            gradients = self._gradients()
        if gradients is None or self._is_watched():
            self.optimizer.step()
            return
        assert self._lists is not None
        with torch.no_grad():
            self._steps += 1
            for lists, own in zip(self._lists, gradients, strict=True):
                self._update(lists, own)

    def _gradients(self) -> list[list[Tensor]] | None:
        """What the lists are to be updated with; None if they are not those of this step."""
        if (
            self._lists is None
            or self._state is not self.optimizer.state
            or self._groups is not self.optimizer.param_groups
        ):
            return None
        for parameter in self._idle:
            if parameter.grad is not None:
                return None
        found = []
        for lists in self._lists:
            own = [parameter.grad for parameter in lists.parameters]
            for gradient in own:
                if gradient is None or gradient.is_sparse:
                    return None
            if _has_momentum(lists.group) is not lists.has_momentum:
                return None
            found.append(own)
        return found  # type: ignore[return-value]

    def _collect(self) -> None:
        """Make the lists, if the optimizer has a state for all parameters that have gradients."""
        optimizer = self.optimizer
        self._lists, self._state, self._groups = None, optimizer.state, optimizer.param_groups
        if not all(map(_is_plain, self._groups)):  # any more: a loaded state brings its own settings
            return
        lists, idle, counted = [], [], []
        for group in optimizer.param_groups:
            active = [p for p in group["params"] if p.grad is not None]
            idle += [p for p in group["params"] if p.grad is None]
            states = [optimizer.state.get(p, {}) for p in active]
            names = _names_of_state(optimizer, group)
            if not all(isinstance(state.get(name), Tensor) for state in states for name in names):
                return
            counted += [state for state in states if "step" in names]
            if active:
                lists.append((group, active, states, names))
        self._count(counted)
        self._idle = idle
        self._lists = [
            _Lists(group, active, [[state[name] for state in states] for name in names], _has_momentum(group))
            for group, active, states, names in lists
        ]

    def _count(self, states: list[dict[str, Any]]) -> None:
        """Let the step counters be views of one tensor, so that one addition advances them all."""
        self._steps = torch.tensor([float(state["step"]) for state in states])
        for state, counter in zip(states, self._steps.unbind(), strict=True):
            state["step"] = counter

    def _is_watched(self) -> bool:
        """Whether someone relies on `step` being called."""
        return "step" in vars(self.optimizer) or any(self._hooks)


def _sgd(lists: _Lists, gradients: list[Tensor]) -> None:
    group = lists.group
    torch._fused_sgd_(
        lists.parameters,
        gradients,
        *(lists.state or [[]]),
        weight_decay=group["weight_decay"],
        momentum=group["momentum"],
        lr=group["lr"],
        dampening=group["dampening"],
        nesterov=group["nesterov"],
        maximize=group["maximize"],
        is_first_step=False,
    )


def _adam(lists: _Lists, gradients: list[Tensor]) -> None:
    group = lists.group
    averages, squares, steps = lists.state
    beta1, beta2 = group["betas"]
    update = torch._fused_adamw_ if group["decoupled_weight_decay"] else torch._fused_adam_
    update(
        lists.parameters,
        gradients,
        averages,
        squares,
        [],
        steps,
        lr=group["lr"],
        beta1=beta1,
        beta2=beta2,
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        amsgrad=False,
        maximize=group["maximize"],
    )


def _names_of_state(optimizer: Optimizer, group: dict[str, Any]) -> tuple[str, ...]:
    """What the optimizer keeps for each parameter of a group, in the order of the kernel's arguments."""
    if isinstance(optimizer, torch.optim.SGD):
        return ("momentum_buffer",) if _has_momentum(group) else ()
    return ("exp_avg", "exp_avg_sq", "step")


def _has_momentum(group: dict[str, Any]) -> bool:
    return bool(group.get("momentum", 0))


def _is_plain(group: dict[str, Any]) -> bool:
    """Whether a group asks for the fused kernel on the CPU, with numbers and with nothing that changes its way."""
    parameters = group["params"]
    return (
        group["fused"] is True
        and not any(group.get(name) for name in UNUSUAL)
        and not any(isinstance(value, Tensor) for value in (*group.values(), *group.get("betas", ())))
        and all(p.device.type == "cpu" and p.dtype == parameters[0].dtype for p in parameters)
    )


def _gives_the_same(optimizer: Optimizer) -> bool:
    """Whether both ways lead to the same weights with the settings of every group."""
    ends = []
    for direct in (False, True):
        groups = [
            {**group, "params": [nn.Parameter(torch.linspace(-1, 1, n)) for n in (1, 5)]}
            for group in optimizer.param_groups
        ]
        kind: Any = type(optimizer)
        twin = kind(groups)
        update = DirectUpdate(twin) if direct else twin.step
        weights = [p for group in groups for p in group["params"]]
        for _ in range(3):
            for weight in weights:
                weight.grad = weight.detach().cos()
            update()
        ends.append(torch.cat([weight.detach() for weight in weights]))
    return torch.equal(*ends)
