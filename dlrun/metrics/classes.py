"""Right and wrong decisions for classes, counted."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dlrun.metrics.sums import counts, ratio


class Accuracy:
    """The share of examples whose largest output is the target class.

    outputs (B, K); targets class indices (B,), or probabilities (B, K), of which the largest counts.
    """

    names: Sequence[str] = ("accuracy",)
    higher_is_better = {"accuracy": True}  # noqa: RUF012

    def reset(self, device: torch.device) -> None:
        self.totals = counts(2, device)
        self.correct, self.count = self.totals.unbind()

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        classes = targets.argmax(-1) if targets.ndim == outputs.ndim else targets
        self.correct += outputs.argmax(-1).eq_(classes).sum()  # in place: integers are summed faster than booleans
        self.count += classes.numel()

    def update_each(self, totals: Tensor, outputs: Tensor, targets: Tensor) -> None:
        """Count for several models at once: outputs (M, B, K), `totals` of each (M, 2)."""
        classes = targets.argmax(-1) if targets.ndim == outputs.ndim else targets
        totals[:, 0] += outputs.argmax(-1).eq_(classes).flatten(1).sum(1)
        totals[:, 1] += classes[0].numel()

    def compute(self) -> dict[str, float]:
        correct, count = self.totals.tolist()
        return {"accuracy": ratio(correct, count)}


class Labels:
    """Accuracy and F1 over all decisions (example, label), a logit above 0 deciding for the label.

    outputs and targets (B, K). F1 is micro-averaged, 2 TP / (2 TP + FP + FN); 0 when nothing is true or predicted.
    """

    names: Sequence[str] = ("accuracy", "f1")
    higher_is_better = {"accuracy": True, "f1": True}  # noqa: RUF012

    def reset(self, device: torch.device) -> None:
        self.totals = counts(4, device)
        self.both, self.predicted, self.true, self.count = self.totals.unbind()

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        predicted, true = outputs > 0, targets > 0.5
        self.both += (predicted & true).sum()
        self.predicted += predicted.sum()
        self.true += true.sum()
        self.count += targets.numel()

    def compute(self) -> dict[str, float]:
        both, predicted, true, count = self.totals.tolist()
        return {"accuracy": 1 - ratio(predicted + true - 2 * both, count), "f1": ratio(2 * both, predicted + true)}
