"""The running statistics of batch norms measured anew over a whole data set."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from dlrun.contracts import Batch
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
    for batch in batches:
        if seen and len(batch) == 1:
            continue
        seen += len(batch)
        for norm in norms:
            norm.momentum = len(batch) / seen
        with precision.autocast():
            model(*batch.arguments)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.train(was_training)


class EvaluateAverage:
    """Evaluates models; an average of weights after its norms' statistics have been measured for it.

    Args:
        batches: gives the training data, not augmented, as what is evaluated is not.
    """

    def __init__(
        self,
        evaluate: Callable[[nn.Module], dict[str, float]],
        average: WeightAverage,
        batches: Callable[[], Iterable[Batch]],
        precision: Precision,
    ) -> None:
        self.evaluate, self.average = evaluate, average
        self.batches, self.precision = batches, precision

    def __call__(self, model: nn.Module) -> dict[str, float]:
        if model is self.average.module:
            recompute_statistics(model, self.batches(), self.precision, self.average.model)
        return self.evaluate(model)


def _with_statistics(model: nn.Module) -> list[_NormBase]:
    return [m for m in model.modules() if isinstance(m, _NormBase) and isinstance(m.running_mean, Tensor)]
