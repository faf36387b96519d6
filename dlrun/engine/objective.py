"""What training minimises: the loss, and what may be added to it."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlrun.contracts import IGNORED, Batch
from dlrun.engine.evaluate import loss_weight

Shares = Sequence[Tensor | float]


class Term(Protocol):
    """One summand of the objective, a mean over the batch."""

    def __call__(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Its value, a scalar."""

    def weight(self, batch: Batch) -> Tensor | float:
        """What its mean divides by, so that micro-batches add up to exactly the big batch."""


class Objective:
    """factor · loss + the sum of the other terms.

    `train/loss` is this; `val/loss` and `test/loss` are the loss alone.

    Args:
        loss: (outputs, targets) to the mean over the batch.
    """

    def __init__(
        self, loss: Callable[[Tensor, Tensor], Tensor], terms: Sequence[Term] = (), factor: float = 1.0
    ) -> None:
        self.terms: list[Term] = [TaskLoss(loss, factor), *terms]

    def __call__(self, outputs: Tensor, batch: Batch, shares: Shares | None = None) -> Tensor:
        """A scalar; with `shares`, of a micro-batch, its part of the objective of the whole batch."""
        values = [term(outputs, batch) for term in self.terms]
        if shares is not None:
            values = [value * share for value, share in zip(values, shares, strict=True)]
        return sum(values[1:], values[0])

    def shares(self, parts: Sequence[Batch]) -> list[Shares]:
        """For each micro-batch, by what each of its terms is multiplied before all are added up."""
        columns = []
        for term in self.terms:
            weights = [term.weight(part) for part in parts]
            total = sum(weights)
            columns.append([weight / total for weight in weights])
        return list(zip(*columns, strict=True))


class TaskLoss:
    """The loss of the task, times a factor."""

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor], factor: float = 1.0) -> None:
        self.loss, self.factor = loss, factor

    def __call__(self, outputs: Tensor, batch: Batch) -> Tensor:
        value = self.loss(outputs, batch.targets)
        return value if self.factor == 1 else value * self.factor

    def weight(self, batch: Batch) -> Tensor | float:
        return loss_weight(self.loss, batch)


class Penalty:
    """l1 · Σ|w| + l2/2 · Σw² over all weights given: gradients l1 · sign(w) + l2 · w.

    So `l2` with SGD is SGD's own weight decay; with Adam it is Adam's first, coupled one, which the gradients' size
    rescales, and not AdamW's.
    """

    def __init__(self, weights: Sequence[Tensor], l1: float = 0.0, l2: float = 0.0) -> None:
        self.weights, self.l1, self.l2 = list(weights), l1, l2

    def __call__(self, outputs: Tensor, batch: Batch) -> Tensor:
        value = outputs.new_zeros((), dtype=_wide(outputs))
        for weight in self.weights:
            if self.l1:
                value = value + self.l1 * weight.abs().sum()
            if self.l2:
                value = value + 0.5 * self.l2 * weight.square().sum()
        return value

    def weight(self, batch: Batch) -> Tensor | float:
        return float(len(batch))


class Distillation:
    """factor · T² · KL(teacher ‖ student) of the class probabilities softened by the temperature T.

    The mean over examples, or over all tokens that count. T² keeps the gradients' size when T changes. The teacher
    sees the inputs that the student sees, augmented ones too.

    Args:
        teacher: a model with the outputs of the one that is trained, (B, classes) or (B, T, classes) logits.

    Source: Hinton et al. 2015 (arXiv:1503.02531), sec. 2.
    """

    def __init__(self, teacher: nn.Module, temperature: float, factor: float) -> None:
        self.teacher = teacher.eval().requires_grad_(False)
        self.temperature, self.factor = temperature, factor

    def __call__(self, outputs: Tensor, batch: Batch) -> Tensor:
        with torch.no_grad():
            taught = self.teacher(*batch.arguments)
        wide = _wide(outputs)
        ours = F.log_softmax(outputs.to(wide) / self.temperature, -1)
        theirs = F.log_softmax(taught.to(wide) / self.temperature, -1)
        apart = F.kl_div(ours, theirs, reduction="none", log_target=True).sum(-1)
        if (counted := _counted(batch)) is not None:
            apart = apart * counted
        return self.factor * self.temperature**2 * apart.sum() / self.weight(batch)

    def weight(self, batch: Batch) -> Tensor | float:
        counted = _counted(batch)
        return float(len(batch)) if counted is None else counted.sum()


def _counted(batch: Batch) -> Tensor | None:
    """1 for each token that counts, (B, T); None where targets are not tokens."""
    is_tokens = batch.targets.ndim == 2 and not batch.targets.is_floating_point()
    return (batch.targets != IGNORED).float() if is_tokens else None


def _wide(outputs: Tensor) -> torch.dtype:
    return torch.promote_types(outputs.dtype, torch.float32)
