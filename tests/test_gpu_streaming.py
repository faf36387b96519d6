"""Batches copied to a CUDA device ahead of their use; run there with `pytest -m gpu`."""

from collections.abc import Iterator

import pytest
import torch

from dlrun.contracts import Arrays, Batch, DataSpec, Kind, Task
from dlrun.engine.loaders import Preparation, StreamingLoader
from dlrun.engine.order import shuffled
from dlrun.engine.prefetch import on_device_ahead

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
ROWS, FEATURES = 512, 4096  # 8 MB: a copy takes long enough to be overtaken, were it not waited for


def hosts(count: int) -> Iterator[Batch]:
    for n in range(count):
        inputs = torch.full((ROWS, FEATURES), float(n)).pin_memory()
        yield Batch((inputs, inputs[:, 0].clone().pin_memory()), torch.full((ROWS,), n).pin_memory())


def test_batches_arrive_whole_and_in_order():
    device = torch.device("cuda")
    sums = []
    for batch in on_device_ahead(hosts(20), device):
        assert batch.targets.device.type == "cuda"
        tensors = [*batch.arguments, batch.targets]
        sums.append(torch.stack([tensor.sum(dtype=torch.float64) for tensor in tensors]))
    found = torch.stack(sums).cpu()
    assert len(found) == 20
    for n, row in enumerate(found.tolist()):
        assert row == [n * ROWS * FEATURES, n * ROWS, n * ROWS]


def test_memory_is_not_used_again_while_it_is_computed_with():
    """A long computation is queued with each batch, which is let go at once: the next copies must not overwrite it."""
    device = torch.device("cuda")
    weight = torch.eye(FEATURES, device=device)
    results = []
    for batch in on_device_ahead(hosts(24), device):
        inputs = batch.arguments[0]
        del batch
        for _ in range(20):
            inputs = inputs @ weight
        results.append(inputs.amax() + 0.0 * inputs.amin())
        del inputs
    assert torch.stack(results).tolist() == [float(n) for n in range(24)]


def test_nothing_waits_for_the_device():
    device = torch.device("cuda")
    made = list(hosts(6))
    for batch in on_device_ahead(iter(made[:1]), device):
        batch.targets.sum()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        total = sum(batch.arguments[0].sum() for batch in on_device_ahead(iter(made), device))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert float(total) == sum(range(6)) * ROWS * FEATURES


def test_the_stream_that_takes_a_batch_may_be_another():
    device, other = torch.device("cuda"), torch.cuda.Stream()
    with torch.cuda.stream(other):
        sums = [batch.targets.sum() for batch in on_device_ahead(hosts(5), device)]
    other.synchronize()
    assert [int(value) for value in sums] == [n * ROWS for n in range(5)]


def test_a_streaming_loader_keeps_what_memory_it_has_from_epoch_to_epoch():
    device = torch.device("cuda")
    spec = DataSpec("toy", Task.CLASSIFICATION, Kind.VECTOR, (FEATURES,), 2)
    examples = Arrays(torch.ones(4 * ROWS, FEATURES), torch.arange(4 * ROWS))
    prepare = Preparation(spec, (), 0, device)
    loader = StreamingLoader(examples, ROWS, shuffled(4 * ROWS, 0), prepare, device, False)
    reserved = []
    for epoch in range(6):
        seen = [draw.tensors[1].clone() for draw in loader.draws(epoch)]
        assert torch.cat(seen).cpu().sort().values.equal(examples.targets)
        reserved.append(torch.cuda.memory_reserved(device))
    assert reserved[1:] == [reserved[1]] * 5
