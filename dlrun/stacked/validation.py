"""The validation of several models in one pass over the split."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch

from dlrun.engine.evaluate import Evaluator, loss_weight, wide
from dlrun.stacked.counting import Counts
from dlrun.stacked.stack import Stack

SMALLEST = 64  # examples at a time


class Validation:
    """Loss and metrics of each model of a stack on the same examples.

    Args:
        evaluators: one for each model, over the same examples.
    """

    def __init__(self, stack: Stack, evaluators: Sequence[Evaluator]) -> None:
        self.stack, self.evaluators = stack, list(evaluators)
        for evaluator in self.evaluators:
            for metric in evaluator.metrics:
                metric.reset(evaluator.device)
        self._counts = Counts([evaluator.metrics for evaluator in self.evaluators])
        self._pass = copy.copy(self.evaluators[0])
        self._pass.batch_size = max(
            SMALLEST, self._pass.batch_size // len(stack)
        )  # K outputs of each example at a time

    @torch.no_grad()
    def __call__(self) -> list[dict[str, float]]:
        """{"loss": …, and each metric's names} for each model; waits for the device at the end."""
        stack, device = self.stack, self._pass.device
        training = stack.template.training
        stack.template.eval()
        self._counts.clear(device)
        total = torch.zeros(len(stack), dtype=wide(device), device=device)
        weights = torch.zeros((), dtype=wide(device), device=device)
        for batch in self._pass.batches():
            targets = batch.targets.expand(len(stack), *batch.targets.shape)
            with stack.precision.autocast():
                outputs = stack.outputs(batch.arguments, shared=True)
                losses = stack.losses(outputs, targets)
            weight = loss_weight(stack.loss, batch)
            total += losses * weight
            weights += weight
            self._counts.update(outputs, targets)
        stack.template.train(training)
        means = (total / weights).tolist()
        return [
            {"loss": mean, **{name: value for metric in own.metrics for name, value in metric.compute().items()}}
            for mean, own in zip(means, self.evaluators, strict=True)
        ]
