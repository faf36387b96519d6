"""Host batches copied to the device while it computes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from dlrun.contracts import Batch


def on_device_ahead(
    batches: Iterator[Batch], device: torch.device, copies: torch.cuda.Stream | None = None
) -> Iterator[Batch]:
    """The batches on `device`, in their order, each copied while the one before it is computed with.

    On CUDA the copies run on a stream of their own, from pinned memory without a wait; the stream on which a batch is
    taken waits for its copy, and the memory of a batch is not used again before what has been queued on that stream
    until then is done. On other devices batches are moved when they are taken.

    Args:
        batches: of tensors on the host; pinned, or each copy waits.
        copies: the stream of the copies on CUDA; None: a new one, whose memory no other makes use of later.
    """
    if device.type != "cuda":
        for batch in batches:
            yield batch.map(lambda tensor: tensor.to(device))
        return
    copies = copies or torch.cuda.Stream(device)

    def copied(batch: Batch) -> tuple[Batch, torch.cuda.Event]:
        with torch.cuda.stream(copies):
            there = batch.map(lambda tensor: tensor.to(device, non_blocking=True))
            done = torch.cuda.Event()
            done.record(copies)
        return there, done

    ahead: tuple[Batch, torch.cuda.Event] | None = None
    for batch in batches:
        following = copied(batch)
        if ahead is not None:
            yield _taken(*ahead, device)
        ahead = following
    if ahead is not None:
        yield _taken(*ahead, device)


def _taken(batch: Batch, done: torch.cuda.Event, device: torch.device) -> Batch:
    """A batch for the stream that computes now."""
    current = torch.cuda.current_stream(device)
    current.wait_event(done)  # this copy only: not those queued behind it

    def used(tensor: Tensor) -> Tensor:
        # The allocator knows of the stream that allocated alone, and would give the memory to the next copy too early.
        tensor.record_stream(current)
        return tensor

    return batch.map(used)
