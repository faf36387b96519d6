"""Whether probabilities are what they claim to be: of the answers given with 80 %, are 80 % right?"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

BINS = 15


class Reliability(NamedTuple):
    """Answers binned by their confidence: each (bins,) float64; confidence and accuracy are 0 in an empty bin."""

    counts: Tensor
    confidence: Tensor
    accuracy: Tensor

    @property
    def error(self) -> float:
        """The expected calibration error: the mean of |accuracy - confidence| over the answers, bin by bin."""
        gaps = (self.accuracy - self.confidence).abs()
        return float((self.counts * gaps).sum() / self.counts.sum())


def reliability(confidence: Tensor, correct: Tensor, bins: int = BINS) -> Reliability:
    """Bin answers by confidence into ((m - 1) / bins, m / bins], so that a certainty of exactly 1 is in the last.

    torchmetrics closes its bins on the other side and gives 1.0, the most frequent confidence of all, a bin of its own.

    Args:
        confidence: (N,) probability of each answer.
        correct: (N,) whether it is right.

    Source: Guo et al. 2017, eq. 2-3 (arXiv:1706.04599).
    """
    confidence = confidence.double()
    inner = torch.linspace(0, 1, bins + 1, dtype=torch.float64)[1:-1]
    where = torch.bucketize(confidence, inner)
    counts = torch.bincount(where, minlength=bins).double()
    sizes = counts.clamp_min(1)
    mean_confidence = torch.bincount(where, weights=confidence, minlength=bins) / sizes
    accuracy = torch.bincount(where, weights=correct.double(), minlength=bins) / sizes
    return Reliability(counts, mean_confidence, accuracy)
