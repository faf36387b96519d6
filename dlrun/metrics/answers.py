"""Everything that can be read from the probabilities of a whole split, by torchmetrics where it has it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from dlrun.metrics.calibration import Reliability, reliability


class Answers:
    """The answers to the N examples of a split, on the CPU, where equal ones are scored equally to the bit.

    Args:
        outputs: (N, K) logits, or log-probabilities.
        targets: (N,) class indices.
    """

    def __init__(self, outputs: Tensor, targets: Tensor) -> None:
        self.log_p = outputs.log_softmax(-1)
        self.targets = targets
        self.num_classes = outputs.shape[-1]

    def at_temperature(self, temperature: float) -> Answers:
        """The same answers with softmax(outputs / temperature) as their probabilities."""
        return Answers(self.log_p / temperature, self.targets)

    @cached_property
    def p(self) -> Tensor:
        """(N, K) probabilities."""
        return self.log_p.exp()

    @cached_property
    def found(self) -> Tensor:
        """(K,) examples of each class."""
        return torch.bincount(self.targets, minlength=self.num_classes)

    @cached_property
    def confusion(self) -> Tensor:
        """(K, K) counts: row the target, column the answer."""
        matrix: Tensor = torchmetrics_multiclass("confusion_matrix")(
            self.p, self.targets, self.num_classes, validate_args=False
        )
        return matrix

    @cached_property
    def reliability(self) -> Reliability:
        """How often answers of each confidence are right."""
        confidence, answer = self.p.max(-1)
        return reliability(confidence, answer == self.targets)

    def ece(self) -> float:
        """Expected calibration error over 15 bins; see `dlrun.metrics.calibration`."""
        return self.reliability.error

    def brier(self) -> float:
        """The mean of Σ_k (p_k - [k is the target])² = Σ_k p_k² - 2 p_target + 1, between 0 and 2."""
        p = self.p.double()
        return float((p.square().sum(-1) - 2 * self._of_target(p) + 1).mean())

    def nll(self) -> float:
        """The mean of -ln p(target): the cross-entropy without smoothing or weights."""
        return -float(self._of_target(self.log_p).double().mean())

    def average(self, what: str, average: str, **more: Any) -> float:
        """accuracy (of the `top_k` most probable), precision, recall or f1_score.

        Args:
            average: macro: the mean over the classes that occur, as a target or an answer; micro: all answers counted
                together, which with one class to each example makes all of them the accuracy.
        """
        function = torchmetrics_multiclass(what)
        return float(function(self.p, self.targets, self.num_classes, average=average, validate_args=False, **more))

    def auroc(self) -> float:
        """Area under the ROC curve of each class against the rest; the mean over the classes that have a rest."""
        return self._one_against_rest("auroc", (self.found > 0) & (self.found < len(self.targets)))

    def average_precision(self) -> float:
        """Area under the curve of precision over recall, in steps, of each class; the mean over those that occur."""
        return self._one_against_rest("average_precision", self.found > 0)

    def _of_target(self, values: Tensor) -> Tensor:
        return values.gather(1, self.targets[:, None]).squeeze(1)

    def _one_against_rest(self, what: str, classes: Tensor) -> float:
        with warnings.catch_warnings():  # of classes that do not occur, which are left out here
            warnings.simplefilter("ignore")
            each: Tensor = torchmetrics_multiclass(what)(
                self.p, self.targets, self.num_classes, average="none", validate_args=False
            )
        return float(each[classes].double().mean())


def torchmetrics_multiclass(name: str) -> Callable[..., Any]:
    """A functional metric of torchmetrics."""
    # Takes 3 s to load, which training without scores should not wait for.
    import torchmetrics.functional.classification as functional

    return getattr(functional, f"multiclass_{name}")  # type: ignore[no-any-return]
