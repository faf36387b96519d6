"""Batches that are copied ahead: all of them, in order, one ahead and no more; the streams by a stand-in for CUDA."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from dlrun.contracts import Batch
from dlrun.engine.prefetch import on_device_ahead

CUDA = torch.device("cuda", 0)


def batches(count: int, log: list[str] | None = None) -> Iterator[Batch]:
    for n in range(count):
        if log is not None:
            log.append(f"made {n}")
        yield Batch((torch.full((2,), n), torch.full((2, 3), n)), torch.tensor([n, n]))


def number(batch: Batch) -> int:
    return int(batch.targets[0])


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_on_the_cpu_batches_pass_through_when_they_are_asked_for(count):
    log: list[str] = []
    stream = on_device_ahead(batches(count, log), torch.device("cpu"))
    assert log == []
    for n, batch in enumerate(stream):
        assert [number(batch), len(log)] == [n, n + 1]
        assert isinstance(batch.inputs, tuple)
        assert torch.equal(batch.inputs[1], torch.full((2, 3), n))
    assert len(log) == count


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is asked of CUDA, in order; tensors stay where they are."""
    asked: list[str] = []
    inside: list[str] = ["main"]

    class Stream:
        def __init__(self, name: object = "main") -> None:
            self.name = "main" if name == "main" else "side"

        def wait_event(self, event: "Event") -> None:
            asked.append(f"{self.name} waits for copy {event.number}")

    class Event:
        recorded = 0

        def record(self, stream: Stream) -> None:
            self.number = Event.recorded
            Event.recorded += 1

    @contextmanager
    def stream(of: Stream) -> Iterator[None]:
        inside.append(of.name)
        yield
        inside.pop()

    def to(self: Tensor, device: torch.device, non_blocking: bool = False) -> Tensor:
        assert device == CUDA
        assert non_blocking
        if self.shape == (2,) and self.dtype == torch.int64:
            asked.append(f"{inside[-1]} copies {int(self[0])}")
        return self

    def record_stream(self: Tensor, of: Stream) -> None:
        asked.append(f"{int(self.flatten()[0])} used on {of.name}")

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream())
    monkeypatch.setattr(Tensor, "to", to)
    monkeypatch.setattr(Tensor, "record_stream", record_stream)
    return asked


def test_on_cuda_each_copy_is_queued_on_the_side_before_the_batch_before_it_is_given_out(log):
    seen = []
    for batch in on_device_ahead(batches(3), CUDA):
        seen.append(number(batch))
        log.append(f"computing {number(batch)}")
    assert seen == [0, 1, 2]
    order = list(dict.fromkeys(log))  # each batch has several tensors
    assert order == [
        *("side copies 0", "side copies 1", "main waits for copy 0", "0 used on main", "computing 0"),
        *("side copies 2", "main waits for copy 1", "1 used on main", "computing 1"),
        *("main waits for copy 2", "2 used on main", "computing 2"),
    ]
    assert log.count("2 used on main") == 3  # all three tensors of the batch


def test_a_stream_that_is_given_is_the_one_that_copies(log):
    given = torch.cuda.Stream("given")
    given.name = "given"
    assert len(list(on_device_ahead(batches(2), CUDA, given))) == 2
    assert [entry for entry in dict.fromkeys(log) if "copies" in entry] == ["given copies 0", "given copies 1"]


@pytest.mark.parametrize("count", [0, 1])
def test_few_batches_on_cuda(log, count):
    assert [number(batch) for batch in on_device_ahead(batches(count), CUDA)] == list(range(count))
