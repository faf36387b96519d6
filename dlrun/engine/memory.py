"""What happens when memory runs out: smaller parts, and on with the same result."""

from __future__ import annotations

import copy
import gc
import logging
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dlrun.contracts import Batch, Metric
from dlrun.engine.seeding import random_state, restore_random_state
from dlrun.errors import DlrunError

logger = logging.getLogger("dlrun")
T = TypeVar("T")
Shape = tuple[torch.Size, ...]

# What PyTorch's allocators and libraries say where they raise no torch.OutOfMemoryError.
SAID = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
# What cuDNN says of shapes that it has no way to compute, and of too little memory for any of its ways
# (https://github.com/pytorch/pytorch/issues/108645).
NO_ENGINE = "unable to find an engine to execute this computation"
SCARCE = 0.05  # of a GPU's memory: with so little left it means the second
INSTEAD = (
    "choose a smaller model, trainer.checkpoint_activations=true or trainer.precision=bf16, "
    "or give it a device with more memory"
)


class DeviceMemoryError(DlrunError):
    """What was asked for does not fit into the memory of the device, however it is cut up."""

    exit_code = 1


class LateMemoryError(DlrunError):
    """A step ran out of memory though one like it has fitted: what it has changed can only come from a checkpoint.

    `micro_batch_size` is what to go on with from there.
    """

    exit_code = 1

    def __init__(self, message: str, micro_batch_size: int) -> None:
        super().__init__(message)
        self.micro_batch_size = micro_batch_size


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory has run out, on whatever device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if not isinstance(error, RuntimeError):
        return False
    return any(text in str(error) for text in SAID) or (NO_ENGINE in str(error) and _is_scarce())


def _is_scarce() -> bool:
    """Whether little of the GPU's memory is left, counting what PyTorch has fetched and does not use."""
    free, total = torch.cuda.mem_get_info()
    return free + torch.cuda.memory_reserved() - torch.cuda.memory_allocated() < SCARCE * total


class MicroBatches:
    """The parts in which a batch goes through the model; halved when they turn out to be too large.

    A step that runs out of memory is repeated from the state before it, so the run is, to the bit, one that had been
    configured with the smaller micro-batches and more of them. For that, what a forward pass changes (buffers, the
    generators' states, the metrics of training) is copied before the first step of each shape of batch, where memory
    practically always runs out, and before no other: the usual step pays one look into a set. One that runs out later,
    because another program has taken memory, say, raises `LateMemoryError`. A step that finds memory held which can be
    spared (`make_room`) is copied before as well, and gets that memory before anything is halved.

    Args:
        size: examples in a micro-batch; the last may have fewer.
        count: micro-batches in a whole batch.
        metrics: of training.

    Attributes:
        warn: receives the sentence that says what has been done.
        make_room: gives back memory that is held for the sake of speed alone; None if there is none.
    """

    def __init__(self, model: nn.Module, size: int, count: int = 1, metrics: Sequence[Metric] = ()) -> None:
        self.model, self.size, self.metrics = model, size, tuple(metrics)
        self.configured, self.effective = size, size * count
        self.warn: Callable[[str], None] = logger.warning
        self.make_room: Callable[[], None] | None = None
        self._fitted: set[Shape] = set()

    def parts(self, batch: Batch) -> list[Batch]:
        """The micro-batches of a batch, in order."""
        count, size = len(batch), self.size
        if count <= size:
            return [batch]
        if size < self.configured and count % size == 1 and self._batch_norm:
            # Which has no variance of one example: the last two parts share.
            whole = [size] * (count // size)
            return batch.split([*whole[:-1], size - 1, 2] if size > 2 else [*whole[:-1], size + 1])
        return batch.split(size)

    def fitted(self, compute: Callable[[Batch], Tensor], batch: Batch) -> Tensor:
        """`compute(batch)`, which goes by `parts`; repeated with smaller ones as long as memory runs out.

        Raises:
            DeviceMemoryError if the smallest do not fit either.
            LateMemoryError if a batch of that shape has fitted before.
        """
        shape: Shape = (batch.targets.shape, *(tensor.shape for tensor in batch.arguments))
        if shape in self._fitted and self.make_room is None:
            try:
                return compute(batch)
            except Exception as error:
                _unless_out_of_memory(error)
            size = self._smaller(len(batch))
            raise LateMemoryError(
                f"Out of memory in a step of which the like has fitted before: the run goes back to its last "
                f"checkpoint and on from there with micro-batches of {size}.",
                size,
            )
        before = Snapshot(self.model, self.metrics, batch.targets.device)
        while True:
            try:
                result = compute(batch)
            except Exception as error:
                _unless_out_of_memory(error)
            else:
                self._fitted.add(shape)
                return result
            self.free()
            if self.make_room is not None:
                make_room, self.make_room = self.make_room, None
                make_room()
                before.restore()
                continue
            self.size, tried = self._smaller(len(batch)), min(self.size, len(batch))
            before.restore()
            self.warn(self._sentence(tried))

    def forget(self) -> None:
        """What has fitted may not any more: more parameters learn."""
        self._fitted.clear()

    def free(self) -> None:
        """Give back the gradients, and what nothing refers to any more."""
        for parameter in self.model.parameters():
            parameter.grad = None
        release()

    def _smaller(self, count: int) -> int:
        tried = min(self.size, count)
        if getattr(self.model, "carried", None) is not None:
            raise DeviceMemoryError(
                f"out of memory in a step of {tried} examples, and model.carry=true needs each batch whole: choose a "
                f"smaller data.batch_size than {tried}, or {INSTEAD}"
            )
        least = 2 if self._batch_norm else 1
        if tried <= least:
            what = "two examples, the fewest that batch norm takes," if least == 2 else "one example"
            raise DeviceMemoryError(f"out of memory in a training step of {what} at a time: {INSTEAD}")
        return max(least, -(-tried // 2))

    def _sentence(self, tried: int) -> str:
        size, effective = self.size, self.effective
        words = f" (from the start: data.batch_size={size} trainer.accumulate={effective // size})"
        return (
            f"Out of memory with {tried} examples at a time: the step is repeated, and the run goes on, with "
            f"micro-batches of {size}, whose gradients are added up; the effective batch is still {effective}"
            f"{words if effective % size == 0 else ''}."
            + (f" Batch norm takes its statistics from {size} examples now." if self._batch_norm else "")
        )

    @property
    def _batch_norm(self) -> bool:
        return any(isinstance(module, _BatchNorm) for module in self.model.modules())


class Snapshot:
    """Copies of all that a forward pass and the counting of its outputs change, weights not being among it."""

    def __init__(self, model: nn.Module, metrics: Sequence[Metric], device: torch.device) -> None:
        self.device, self.random = device, random_state(device)
        self.buffers = [
            (owner._buffers, name, buffer, buffer.clone())
            for owner in model.modules()
            for name, buffer in owner._buffers.items()
            if buffer is not None
        ]
        self.extra: list[tuple[nn.Module, Any]] = [
            (owner, copy.deepcopy(owner.get_extra_state()))
            for owner in model.modules()
            if type(owner).get_extra_state is not nn.Module.get_extra_state
        ]
        self.counted = [
            (value, value.clone()) for metric in metrics for value in vars(metric).values() if isinstance(value, Tensor)
        ]

    @torch.no_grad()
    def restore(self) -> None:
        """Bring all of it back; may be done several times."""
        for buffers, name, tensor, copied in self.buffers:
            buffers[name] = tensor.copy_(copied)  # the tensor that was there, as averages refer to it
        for owner, state in self.extra:
            owner.set_extra_state(copy.deepcopy(state))
        for tensor, copied in self.counted:
            tensor.copy_(copied)
        restore_random_state(self.random, self.device)


class Sized(Protocol):
    """What evaluates a split in batches."""

    batch_size: int
    warn: Callable[[str], None]


def halving(evaluators: Sequence[Sized], measure: Callable[[], T]) -> T:
    """`measure()`, begun anew with batches of half the size as long as memory runs out; the result is the same.

    Args:
        evaluators: whose `batch_size` it goes by, equal in all of them.

    Raises: DeviceMemoryError if one example at a time does not fit either.
    """
    while True:
        try:
            return measure()
        except Exception as error:
            _unless_out_of_memory(error)
        release()
        tried = evaluators[0].batch_size
        if tried == 1:
            raise DeviceMemoryError(f"out of memory in the evaluation of one example at a time: {INSTEAD}")
        for evaluator in evaluators:
            evaluator.batch_size = -(-tried // 2)
        evaluators[0].warn(
            f"Out of memory in an evaluation of {tried} examples at a time: it begins again with {-(-tried // 2)} "
            f"(from the start: data.eval_batch_size={-(-tried // 2)})."
        )


def release() -> None:
    """Give back what nothing refers to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _unless_out_of_memory(error: Exception) -> None:
    """Raise what is something else; of the others, let go of the tensors in the frames they come from."""
    if not is_out_of_memory(error):
        raise error
    logger.info("%s", str(error).partition("\n")[0])
    traceback.clear_frames(error.__traceback__)
