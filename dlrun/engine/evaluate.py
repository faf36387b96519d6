"""Loss and metrics of a model over a split."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from dlrun.contracts import Batch, Examples, Metric
from dlrun.engine.loaders import Preparation, gather
from dlrun.engine.precision import Precision


class Evaluator:
    """Evaluates models on one split, waiting for the device once, at the end.

    Args:
        examples: the split; moved to the device batch by batch unless it is there already.
        prepare: normalisation, without augmentation.
        loss: (outputs, targets) to the mean over a batch.
        metrics: of this split alone; reset at the beginning of each evaluation.
    """

    def __init__(
        self,
        examples: Examples,
        batch_size: int,
        prepare: Preparation,
        loss: Callable[[Tensor, Tensor], Tensor],
        metrics: Sequence[Metric],
        precision: Precision,
        device: torch.device,
    ) -> None:
        self.examples, self.batch_size, self.prepare = examples, batch_size, prepare
        self.loss, self.metrics, self.precision, self.device = loss, metrics, precision, device

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """{"loss": …, and each metric's names}, the loss as the mean over all examples."""
        for metric in self.metrics:
            metric.reset(self.device)
        was_training = model.training
        model.eval()
        total = torch.zeros((), dtype=wide(self.device), device=self.device)
        weights = torch.zeros_like(total)
        with torch.inference_mode():
            for batch in self.batches():
                with self.precision.autocast():
                    outputs = model(*batch.arguments)
                    loss = self.loss(outputs, batch.targets)
                weight = loss_weight(self.loss, batch)
                total += loss * weight
                weights += weight
                for metric in self.metrics:
                    metric.update(outputs, batch.targets)
        model.train(was_training)
        result = {"loss": float(total / weights)}
        for metric in self.metrics:
            result |= metric.compute()
        return result

    def batches(self) -> Iterator[Batch]:
        """The split in its own order, prepared, on the device."""
        for index in torch.arange(len(self.examples)).split(self.batch_size):
            batch = gather(self.examples, index).map(lambda tensor: tensor.to(self.device, non_blocking=True))
            yield self.prepare(batch, 0)


def loss_weight(loss: object, batch: Batch) -> Tensor | float:
    """What the loss's mean divides by: the number of examples, unless it says otherwise."""
    weight = getattr(loss, "weight", None)
    return weight(batch.targets) if callable(weight) else float(len(batch))


def wide(device: torch.device) -> torch.dtype:
    """The type for sums over many batches; MPS has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64
