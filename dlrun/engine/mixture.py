"""The mean prediction of several models, or of one several times, and how much they disagree."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dlrun.contracts import IGNORED, DataSpec, Task
from dlrun.engine.units import own_units, standardised

CLASSES = (Task.CLASSIFICATION, Task.LANGUAGE_MODELLING, Task.SEQUENCE_TO_SEQUENCE)


class Mixture:
    """Mixes the outputs of members for the same batch and adds up their disagreement.

    - Classes and tokens: the mean of the probabilities, as its logarithm, which is its own log-softmax, so that losses
      and metrics take it as they take logits. Disagreement is the mean over the examples (tokens that count) of the
      entropy H of the mixed probabilities, and of the mutual information H - mean of the members' entropies: what is
      uncertain because the members differ. In nats. Source: Gal 2016; Lakshminarayanan et al. 2017 (arXiv:1612.01474).
    - Several labels: the logit of the mean of the probabilities.
    - Numbers: the mean; disagreement is `spread`, the mean of the members' standard deviation, in the target's units.

    Args:
        specs: of each member: their targets may be standardised differently. The mixture is in terms of the first.
    """

    def __init__(self, specs: Sequence[DataSpec]) -> None:
        self.specs = specs
        self.task = specs[0].task
        self.sums: dict[str, Tensor | float] = {}
        self.count: Tensor | float = 0.0

    @property
    def gives_log_probabilities(self) -> bool:
        """Whether what it gives are logarithms of probabilities, which not every loss takes for logits."""
        return self.task in CLASSES

    @torch.inference_mode()
    def __call__(self, outputs: Sequence[Tensor], targets: Tensor) -> Tensor:
        """Outputs of each member to one of the same shape, float32."""
        members = [output.float() for output in outputs]
        if self.task in CLASSES:
            return self._classes(torch.stack(members).log_softmax(-1), targets)
        if self.task is Task.MULTILABEL:
            return torch.stack(members).sigmoid().mean(0).logit(eps=1e-7)
        return self._numbers(
            torch.stack([own_units(output, spec) for output, spec in zip(members, self.specs, strict=True)])
        )

    def result(self) -> dict[str, float]:
        """The disagreement by name."""
        return {name: float(total / self.count) for name, total in self.sums.items()}

    def _classes(self, log_p: Tensor, targets: Tensor) -> Tensor:
        mixed = log_p.logsumexp(0) - math.log(len(log_p))
        counts = targets != IGNORED if mixed.ndim > 2 else torch.ones_like(mixed[..., 0])
        entropy = torch.special.entr(mixed.exp()).sum(-1)
        information = entropy - torch.special.entr(log_p.exp()).sum(-1).mean(0)
        self._add(counts.sum(), entropy=(entropy * counts).sum(), mutual_information=(information * counts).sum())
        return mixed

    def _numbers(self, values: Tensor) -> Tensor:
        spread = values.std(0, correction=0)
        self._add(spread.numel(), spread=spread.sum())
        return standardised(values.mean(0), self.specs[0])

    def _add(self, count: Tensor | float, **terms: Tensor) -> None:
        self.count = self.count + count
        for name, term in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + term
