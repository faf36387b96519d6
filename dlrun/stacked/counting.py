"""Metrics of several models at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dlrun.contracts import Metric
from dlrun.engine.training import tensors_of


class Counts:
    """The metrics of K models: counted together where a metric can (`update_each`), else one after the other.

    Args:
        metrics: of each model, the same kinds in the same order, already reset. Where they are counted together, the
            tensors of each become views of common ones.
    """

    def __init__(self, metrics: Sequence[Sequence[Metric]]) -> None:
        self._metrics = list(zip(*metrics, strict=True))
        self._totals = [_common(own) if hasattr(own[0], "update_each") else None for own in self._metrics]

    @torch.no_grad()
    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Count a batch of each model: outputs (K, B, …), targets (K, B, …)."""
        for metrics, totals in zip(self._metrics, self._totals, strict=True):
            if totals is not None:
                first: Any = metrics[0]
                first.update_each(totals, outputs, targets)
                continue
            for k, metric in enumerate(metrics):
                metric.update(outputs[k], targets[k])

    def clear(self, device: torch.device) -> None:
        """Begin again."""
        for metrics, totals in zip(self._metrics, self._totals, strict=True):
            if totals is not None:
                totals.zero_()
                continue
            for metric in metrics:
                metric.reset(device)


def _common(metrics: Sequence[Any]) -> Tensor:
    """The `totals` of the metrics as one tensor, (K, …), of which each metric's tensors become views."""
    totals = torch.stack([metric.totals for metric in metrics])
    for metric, own in zip(metrics, totals.unbind(), strict=True):
        before: Tensor = metric.totals
        for name, tensor in tensors_of(metric).items():
            position = (tensor.storage_offset() - before.storage_offset()) // before.stride(0)
            setattr(metric, name, own if tensor is before else own[position])
    return totals
