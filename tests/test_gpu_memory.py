"""Memory that really runs out, on a CUDA device; run there with `pytest -m gpu`."""

import gc

import pytest
import torch
from torch import nn

from dlrun import assembly
from dlrun.config.compose import compose
from dlrun.contracts import Batch
from dlrun.engine.footprint import peak_bytes
from dlrun.engine.objective import Objective
from dlrun.engine.precision import choose_precision
from dlrun.engine.step import TrainStep

from .engine.test_step import NoSchedule

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
WIDTH = 1 << 16


def make(micro: int, count: int) -> TrainStep:
    device = torch.device("cuda")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(256, WIDTH), nn.Tanh(), nn.Dropout(0.5), nn.Linear(WIDTH, 4)).to(device)
    return TrainStep(
        model, Objective(nn.CrossEntropyLoss()), torch.optim.SGD(model.parameters(), 0.1), NoSchedule(),
        choose_precision("fp32", device), micro_batch_size=micro, accumulate=count,
    )  # fmt: skip


def test_a_step_that_runs_out_of_memory_is_repeated_with_smaller_micro_batches():
    """1024 examples keep 0.6 GB for the backward pass, which needs more yet; 512 keep half of that."""
    generator = torch.Generator().manual_seed(1)
    host = Batch(torch.randn(1024, 256, generator=generator), torch.randint(4, (1024,), generator=generator))
    batch = host.map(lambda tensor: tensor.cuda())
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 850 * 2**20) / total)
    try:
        short = make(1024, 1)
        short.micro.warn = lambda text: None
        torch.manual_seed(5)
        losses = [short(batch), short(batch)]
        weights = [p.detach().cpu() for p in short.model.parameters()]
        size = short.micro.size
        del short
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert size < 1024
    straight = make(size, 1024 // size)
    torch.manual_seed(5)
    assert torch.equal(torch.stack(losses), torch.stack([straight(batch), straight(batch)]))
    for one, other in zip(weights, straight.model.parameters(), strict=True):
        assert torch.equal(one, other.cpu())


def test_the_peak_is_that_of_the_allocator():
    device = torch.device("cuda")

    def compute() -> None:
        torch.zeros(1 << 20, device=device)

    assert peak_bytes(compute, device) == 4 << 20


def test_auto_finds_a_batch_size_and_leaves_no_memory_behind():
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    words = ["model=cnn", "trainer.device=cuda"]
    a = assembly.assemble(compose([*words, "data.batch_size=auto"]).config)
    held = torch.cuda.memory_allocated() - before
    assert a.config["data"]["batch_size"] == 64  # all fit, and 64 · 20 is an epoch
    assert "the largest that fits" in a.notes[0]
    given = assembly.assemble(compose([*words, "data.batch_size=64"]).config)
    assert 2 * held <= 1.2 * (torch.cuda.memory_allocated() - before)  # two assemblies take twice what one takes
    for one, other in zip(a.model.parameters(), given.model.parameters(), strict=True):
        assert torch.equal(one, other)
