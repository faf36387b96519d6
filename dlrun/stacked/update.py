"""From the gradients of a stack to the update of each run's weights, by its own optimizer's rule and rates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from dlrun.engine.step import TrainStep
from dlrun.optim.gradients import TINY, ClipNorm
from dlrun.stacked.stack import Stack

KINDS = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)
UNUSUAL = ("amsgrad", "maximize", "differentiable", "dampening")
Number = float | Tensor  # of all runs, or (K, 1)


class Update(Protocol):
    """Moves the weights of all runs."""

    def __call__(self, gradients: Tensor, measure: bool) -> list[float]:
        """One step of every run.

        Args:
            gradients: (K, P).
            measure: leave the norm of each run's in its `gradient_norm`.

        Returns: the learning rate of each run's first group in this step.
        """

    def hand_back(self, k: int) -> None:
        """Bring the optimizer of a run up to date, so that it can be saved or go on alone."""

    def keep(self, chosen: Sequence[int]) -> None:
        """Go on with these runs only; call after `Stack.keep`."""


class Each:
    """Every run by its own optimizer, whatever that is, one after the other; to the bit what it would do alone."""

    def __init__(self, stack: Stack, steps: Sequence[TrainStep]) -> None:
        self.stack, self.steps = stack, list(steps)

    def __call__(self, gradients: Tensor, measure: bool) -> list[float]:
        taken = [step.schedule.lrs[0] for step in self.steps]
        for model, step, own in zip(self.stack.models, self.steps, self.stack.cut(gradients), strict=True):
            step.measure_norm = measure
            step.begin()
            for name, gradient in own.items():
                model.get_parameter(name).grad = gradient
            step.follow()
            step.end()
        return taken

    def hand_back(self, k: int) -> None:
        """Nothing: it is."""

    def keep(self, chosen: Sequence[int]) -> None:
        self.steps = [self.steps[k] for k in chosen]


@dataclass
class _Block:
    """Columns whose parameters are in the same group of each run's optimizer, and what these groups say.

    Attributes:
        settings: of each run, those of the rule beside rate and decay; `columns_of` each of them for all runs.
    """

    columns: slice
    groups: list[int]
    lr: list[float] = field(default_factory=list)
    decay: list[float] = field(default_factory=list)
    settings: list[tuple[Any, ...]] = field(default_factory=list)
    columns_of: list[Number] = field(default_factory=list)


class Together:
    """SGD, Adam or AdamW for all runs at once: a dozen operations on (K, P) with rates (K, 1), however many runs.

    The rules are those of torch.optim, up to rounding. Schedules that are equal are advanced once.

    Args:
        steps: of runs whose optimizers have done none yet; see `can_be_together`.
        schedules: one for each run, some of them perhaps the same.
    """

    def __init__(self, stack: Stack, steps: Sequence[TrainStep]) -> None:
        self.stack, self.steps = stack, list(steps)
        self.blocks = blocks_of(stack, self.steps)
        self.is_sgd = isinstance(self.steps[0].optimizer, torch.optim.SGD)
        self.state = [torch.zeros_like(stack.flat) for _ in range(1 if self.is_sgd else 2)]
        self.count = 0
        self._settle()

    @torch.no_grad()
    def __call__(self, gradients: Tensor, measure: bool) -> list[float]:
        limits = [step.transforms[0].limit if step.transforms else math.inf for step in self.steps]  # type: ignore[attr-defined]
        if measure or min(limits) < math.inf:
            norms = gradients.norm(dim=1)
            for step, norm in zip(self.steps, norms.unbind(), strict=True):
                step.gradient_norm = norm
            if min(limits) < math.inf:
                gradients.mul_((torch.as_tensor(self._column(limits)) / (norms.unsqueeze(1) + TINY)).clamp(max=1.0))
        self.count += 1
        if any(schedule.cycles_momentum for schedule in self._schedules):
            self._settle()
        rates = {id(schedule): schedule.lrs for schedule in self._schedules}
        for block in self.blocks:
            block.lr = [rates[id(step.schedule)][group] for step, group in zip(self.steps, block.groups, strict=True)]
            if any(block.decay):
                self._decay(block, gradients)
        for span in _spans(self.blocks):
            weights, gradient = self.stack.flat[:, span.columns], gradients[:, span.columns]
            state = [tensor[:, span.columns] for tensor in self.state]
            (self._sgd if self.is_sgd else self._adam)(weights, gradient, state, span)
        for schedule in self._schedules:
            schedule.step()
        for step in self.steps:
            step.settle()
        return [rates[id(step.schedule)][0] for step in self.steps]

    def hand_back(self, k: int) -> None:
        step, model = self.steps[k], self.stack.models[k]
        optimizer: Any = step.optimizer
        for group, lr in zip(optimizer.param_groups, step.schedule.lrs, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr
        own = [self.stack.cut(tensor)[k] for tensor in self.state]
        for group in optimizer.param_groups if self.count else ():
            counter = group["params"][0].device if group.get("capturable") or group.get("fused") else "cpu"
            for name, parameter in model.named_parameters():
                if not any(parameter is p for p in group["params"]):
                    continue
                if not self.is_sgd:
                    step_count = torch.tensor(float(self.count), device=counter)
                    averages, squares = (tensors[name].clone() for tensors in own)
                    optimizer.state[parameter] = {"step": step_count, "exp_avg": averages, "exp_avg_sq": squares}
                elif group["momentum"]:
                    optimizer.state[parameter] = {"momentum_buffer": own[0][name].clone()}

    def keep(self, chosen: Sequence[int]) -> None:
        self.steps = [self.steps[k] for k in chosen]
        self.state = [tensor[list(chosen)] for tensor in self.state]
        for block in self.blocks:
            block.groups = [block.groups[k] for k in chosen]
        self._settle()

    def _settle(self) -> None:
        """Take over what the optimizers' groups hold beside the learning rate."""
        self._schedules: list[Any] = list({id(step.schedule): step.schedule for step in self.steps}.values())
        for block in self.blocks:
            groups = [step.optimizer.param_groups[g] for step, g in zip(self.steps, block.groups, strict=True)]
            block.decay = [float(group["weight_decay"]) for group in groups]
            self._is_decoupled = bool(groups[0].get("decoupled_weight_decay"))
            if self.is_sgd:
                block.settings = [(group["momentum"], group["nesterov"]) for group in groups]
            else:
                block.settings = [(*group["betas"], group["eps"]) for group in groups]
            block.columns_of = [self._column(values) for values in zip(*block.settings, strict=True)]
            if not self.is_sgd:  # subtracted before they are rounded to the weights' type
                block.columns_of += [self._column([1 - s[i] for s in block.settings]) for i in range(2)]

    def _decay(self, block: _Block, gradients: Tensor) -> None:
        """Weight decay: of the weights themselves, or added to their gradients."""
        weights = self.stack.flat[:, block.columns]
        if self._is_decoupled:
            weights.mul_(self._column([1 - lr * decay for lr, decay in zip(block.lr, block.decay, strict=True)]))
        else:
            gradients[:, block.columns].add_(weights * self._column(block.decay))

    def _sgd(self, p: Tensor, g: Tensor, state: list[Tensor], block: _Block) -> None:
        momentum, is_nesterov = block.columns_of
        if isinstance(momentum, Tensor) or momentum:
            state[0].mul_(momentum).add_(g)
            g = g + state[0] * momentum if is_nesterov else state[0]
        p.sub_(g * self._column(block.lr))

    def _adam(self, p: Tensor, g: Tensor, state: list[Tensor], block: _Block) -> None:
        averages, squares = state
        _, beta2, eps, rest1, rest2 = block.columns_of
        averages.lerp_(g, rest1)
        squares.mul_(beta2).add_(g * g * rest2)
        sizes = [lr / (1 - first**self.count) for lr, (first, _, _) in zip(block.lr, block.settings, strict=True)]
        roots = [math.sqrt(1 - second**self.count) for _, second, _ in block.settings]
        denominator = squares.sqrt().div_(self._column(roots)).add_(eps)
        p.sub_((averages * self._column(sizes)).div_(denominator))

    def _column(self, values: Sequence[float]) -> Number:
        """A number of each run, (K, 1); one alone where all have the same."""
        if all(value == values[0] for value in values):
            return float(values[0])
        flat = self.stack.flat
        column = torch.tensor(values, dtype=flat.dtype).unsqueeze(1)
        return column if flat.device.type == "cpu" else column.pin_memory().to(flat.device, non_blocking=True)


def _spans(blocks: Sequence[_Block]) -> list[_Block]:
    """The blocks, neighbours as one where only their decay differs: every operation on them costs as much as one."""
    spans = [blocks[0]]
    for block in blocks[1:]:
        last = spans[-1]
        if (block.lr, block.settings) == (last.lr, last.settings):
            spans[-1] = replace(last, columns=slice(last.columns.start, block.columns.stop))
        else:
            spans.append(block)
    return spans


def can_be_together(steps: Sequence[TrainStep]) -> bool:
    """Whether `Together` knows what all these steps do."""
    kinds = {type(step.optimizer) for step in steps}
    if len(kinds) > 1 or not kinds <= set(KINDS):
        return False
    for step in steps:
        if step.lookahead is not None or step.average is not None or len(step.transforms) > 1:
            return False
        if step.transforms and type(step.transforms[0]) is not ClipNorm:
            return False
        if any(group.get(name) for group in step.optimizer.param_groups for name in UNUSUAL):
            return False
    ways = {
        (group.get("nesterov"), group.get("decoupled_weight_decay"))
        for step in steps
        for group in step.optimizer.param_groups
    }
    return len(ways) == 1


def column_order(models: Sequence[Any], steps: Sequence[TrainStep]) -> list[str]:
    """The names of the parameters that learn, those together that share a group in every run's optimizer."""
    places = _groups_by_name(models, steps)
    return sorted(places, key=lambda name: places[name])


def blocks_of(stack: Stack, steps: Sequence[TrainStep]) -> list[_Block]:
    """The columns of the stack by the groups of the optimizers."""
    places = _groups_by_name(stack.models, steps)
    blocks: list[_Block] = []
    for name, (first, last) in stack.columns.items():
        if blocks and blocks[-1].groups == places[name]:
            blocks[-1].columns = slice(blocks[-1].columns.start, last)
        else:
            blocks.append(_Block(slice(first, last), list(places[name])))
    return blocks


def _groups_by_name(models: Sequence[Any], steps: Sequence[TrainStep]) -> dict[str, list[int]]:
    """For each parameter that learns, the position of its group in the optimizer of each run."""
    found: dict[str, list[int]] = {}
    for model, step in zip(models, steps, strict=True):
        position = {id(p): i for i, group in enumerate(step.optimizer.param_groups) for p in group["params"]}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                found.setdefault(name, []).append(position[id(parameter)])
    return found
