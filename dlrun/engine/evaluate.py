"""Loss and metrics of a model over a split."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from dlrun.contracts import Batch, Examples, Metric
from dlrun.engine.device import total_memory
from dlrun.engine.loaders import Preparation, gather
from dlrun.engine.memory import halving, logger
from dlrun.engine.precision import Precision
from dlrun.engine.views import View, over_views

EVAL_BATCH = {"cpu": 512, "cuda": 16384, "mps": 1024}  # on a CPU larger ones spill the caches
EVAL_SHARE = 1 / 8  # of the device's memory


class Tally:
    """Loss and metrics summed over batches; it waits for the device once, in `result`."""

    def __init__(
        self,
        loss: Callable[[Tensor, Tensor], Tensor],
        metrics: Sequence[Metric],
        precision: Precision,
        device: torch.device,
    ) -> None:
        self.loss, self.metrics, self.precision = loss, metrics, precision
        self.total = torch.zeros((), dtype=wide(device), device=device)
        self.weights = torch.zeros_like(self.total)
        for metric in metrics:
            metric.reset(device)

    @torch.inference_mode()
    def add(self, outputs: Tensor, batch: Batch) -> None:
        """Count one batch."""
        with self.precision.autocast():
            loss = self.loss(outputs, batch.targets)
        weight = loss_weight(self.loss, batch)
        self.total += loss * weight
        self.weights += weight
        for metric in self.metrics:
            metric.update(outputs, batch.targets)

    def result(self) -> dict[str, float]:
        """{"loss": …, and each metric's names}, the loss as the mean over all that was counted."""
        result = {"loss": float(self.total / self.weights)}
        for metric in self.metrics:
            result |= metric.compute()
        return result


class Evaluator:
    """Evaluates models on one split, waiting for the device once, at the end.

    Args:
        examples: the split; moved to the device batch by batch unless it is there already.
        prepare: normalisation, without augmentation.
        loss: (outputs, targets) to the mean over a batch.
        metrics: of this split alone; reset at the beginning of each evaluation.
        views: of each image over which outputs are averaged; None: the image as it is.

    Attributes:
        batch_size: becomes smaller when memory runs out.
        warn: receives the sentence that says so.
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
        views: View | None = None,
    ) -> None:
        self.views = views
        self.examples, self.batch_size, self.prepare = examples, batch_size, prepare
        self.loss, self.metrics, self.precision, self.device = loss, metrics, precision, device
        # Where the examples are, so that no batch waits for its indices; lengths, where there are any, are on the CPU.
        place = torch.device("cpu") if hasattr(examples, "lengths") else examples.device
        self._index = torch.arange(len(examples), device=place)
        self.warn: Callable[[str], None] = logger.warning

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """{"loss": …, and each metric's names}, the loss as the mean over all examples."""
        was_training = model.training
        model.eval()
        result = self.measure(model, self.metrics)
        model.train(was_training)
        return result

    def measure(self, model: nn.Module, metrics: Sequence[Metric]) -> dict[str, float]:
        """The same of the model as it is, by `metrics`, in batches that fit into memory."""

        def attempt() -> dict[str, float]:
            tally = self.tally(metrics)
            for outputs, batch in self.forward(model):
                tally.add(outputs, batch)
            return tally.result()

        return halving([self], attempt)

    def forward(self, model: nn.Module) -> Iterator[tuple[Tensor, Batch]]:
        """The outputs for each batch of the split, and the batch; the model is used as it is."""
        for batch in self.batches():
            # Not around the yield: what the caller does meanwhile is the caller's.
            with torch.inference_mode(), self.precision.autocast():
                if self.views is None:
                    outputs = model(*batch.arguments)
                else:
                    outputs = over_views(model, batch.arguments[0], self.views)
            yield outputs, batch

    def tally(self, metrics: Sequence[Metric]) -> Tally:
        """Empty sums of loss and `metrics` for this split."""
        return Tally(self.loss, metrics, self.precision, self.device)

    def batches(self) -> Iterator[Batch]:
        """The split in its own order, prepared, on the device."""
        for index in self._index.split(self.batch_size):
            batch = gather(self.examples, index).map(lambda tensor: tensor.to(self.device, non_blocking=True))
            yield self.prepare(batch, 0)


def loss_weight(loss: object, batch: Batch) -> Tensor | float:
    """What the loss's mean divides by: the number of examples, unless it says otherwise."""
    weight = getattr(loss, "weight", None)
    return weight(batch.targets) if callable(weight) else float(len(batch))


def evaluation_batch_size(bytes_per_example: int, device: torch.device) -> int:
    """As many examples as are quick together, a power of two: fewer where that would take much of the device's memory.

    A function of model and device, not of the memory that is free at the moment: the last bits of a mean depend on it.
    """
    room = int(EVAL_SHARE * total_memory(device)) // max(bytes_per_example, 1)
    return min(EVAL_BATCH[device.type], 1 << max(room.bit_length() - 1, 0))


def wide(device: torch.device) -> torch.dtype:
    """The type for sums over many batches; MPS has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64
