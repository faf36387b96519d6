"""Scores of a classification over all examples of a split at once: for `dlrun evaluate` and `trainer.metrics`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from dlrun.contracts import DataSpec, Task
from dlrun.metrics.answers import Answers

SCORES: dict[str, Callable[[Answers], float]] = {
    "top2": partial(Answers.average, what="accuracy", average="micro", top_k=2),
    "top5": partial(Answers.average, what="accuracy", average="micro", top_k=5),
    "precision_macro": partial(Answers.average, what="precision", average="macro"),
    "recall_macro": partial(Answers.average, what="recall", average="macro"),
    "f1_macro": partial(Answers.average, what="f1_score", average="macro"),
    "precision_micro": partial(Answers.average, what="precision", average="micro"),
    "recall_micro": partial(Answers.average, what="recall", average="micro"),
    "f1_micro": partial(Answers.average, what="f1_score", average="micro"),
    "auroc": Answers.auroc,
    "average_precision": Answers.average_precision,
    "nll": Answers.nll,
    "brier": Answers.brier,
    "ece": Answers.ece,
}
LOWER_IS_BETTER = {"nll", "brier", "ece"}
CLASSES_NEEDED = {"top2": 3, "top5": 6}  # with fewer they are 1 whatever is answered


def applicable(spec: DataSpec) -> list[str]:
    """The scores that tell something about these data."""
    if spec.task is not Task.CLASSIFICATION:
        return []
    return [name for name in SCORES if spec.num_outputs >= CLASSES_NEEDED.get(name, 1)]


class Scores:
    """A metric that keeps all outputs (B, K) and targets, class indices (B,) or probabilities (B, K), to score them.

    Args:
        names: which of `SCORES`.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names: Sequence[str] = tuple(names)
        self.higher_is_better = {name: name not in LOWER_IS_BETTER for name in names}

    def reset(self, device: torch.device) -> None:
        self.parts: list[tuple[Tensor, Tensor]] = []

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        self.parts.append((outputs.detach().float(), targets.argmax(-1) if targets.ndim > 1 else targets))

    def compute(self) -> dict[str, float]:
        if not self.parts:
            return dict.fromkeys(self.names, float("nan"))
        answers = self.answers()
        return {name: SCORES[name](answers) for name in self.names}

    def answers(self) -> Answers:
        """All that was collected."""
        outputs, targets = (torch.cat(parts).cpu() for parts in zip(*self.parts, strict=True))
        return Answers(outputs, targets)
