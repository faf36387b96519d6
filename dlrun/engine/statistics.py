"""The running statistics of batch norms measured anew over a whole data set."""

from collections.abc import Callable, Iterable
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from dlrun.contracts import Batch
from dlrun.engine.memory import Sized, halving
from dlrun.engine.precision import Precision
from dlrun.optim.averaging import WeightAverage


@torch.no_grad()
def recompute_statistics(
    model: nn.Module, batches: Iterable[Batch], precision: Precision, live: nn.Module | None = None
) -> None:
    """Set the running mean and variance of each norm to their averages over `batches`, weighted by size.

    As torch.optim.swa_utils.update_bn, but with dropout off, so that nothing is drawn from the generators of training,
    and with a smaller last batch counting less. One of a single example, which has no variance, is left out.
    Does nothing to a model without such norms.

    Args:
        live: the model in training of which `model` is an average. Norms that are in evaluation mode there, being
            frozen, keep their statistics, which are what the layers behind them have learnt with.
    """
    pairs = zip(_with_statistics(model), _with_statistics(live or model), strict=True)
    norms = [norm for norm, theirs in pairs if live is None or theirs.training]
    if not norms:
        return
    was_training, momenta = model.training, [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.train()
    seen = 0
    try:
        for batch in batches:
            if seen and len(batch) == 1:
                continue
            seen += len(batch)
            for norm in norms:
                norm.momentum = len(batch) / seen
            with precision.autocast():
                model(*batch.arguments)
    finally:  # memory may run out
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        model.train(was_training)


class Source(Sized, Protocol):
    """Data in batches whose size can be chosen."""

    def batches(self) -> Iterable[Batch]: ...


class EvaluateAverage:
    """Evaluates models; an average of weights after its norms' statistics have been measured for it.

    Args:
        source: gives the training data, not augmented, as what is evaluated is not; in smaller batches if need be.
    """

    def __init__(
        self,
        evaluate: Callable[[nn.Module], dict[str, float]],
        average: WeightAverage,
        source: Callable[[], Source],
        precision: Precision,
    ) -> None:
        self.evaluate, self.average = evaluate, average
        self.source, self.precision = source, precision
        self._measured = -1  # updates of the average whose statistics it has

    def __call__(self, model: nn.Module) -> dict[str, float]:
        self.settle()
        return self.evaluate(model)

    def settle(self) -> None:
        """Measure the statistics of the average, if it is one by now and has changed since."""
        model, live = self.average.evaluated, self.average.model
        if model is live or self._measured == self.average.updates:
            return
        source = self.source()
        halving([source], lambda: recompute_statistics(model, source.batches(), self.precision, live))
        self._measured = self.average.updates


def _with_statistics(model: nn.Module) -> list[_NormBase]:
    return [m for m in model.modules() if isinstance(m, _NormBase) and isinstance(m.running_mean, Tensor)]
