"""Memory that really runs out, on a CUDA device; run there with `pytest -m gpu`."""

import gc
import itertools
from collections.abc import Callable

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
from dlrun.engine.training import Training

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


WIDE = ["model=mlp", "model.widths=[65536]", "data.batch_size=512", "trainer.device=cuda", "trainer.precision=fp32"]


def allow(count: int) -> None:
    """Let this process have so many bytes more than tensors take now."""
    gc.collect()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, (torch.cuda.memory_reserved() + count) / total))


def wide(graph: str, count: int, warn: Callable[[str], None], before: Callable[[int], None]) -> tuple[list, Training]:
    """Losses of `count` steps of some 0.5 GB, every third with the norm of the gradient; `before` each something."""
    a = assembly.assemble(compose([*WIDE, f"trainer.graph={graph}"]).config)
    t = assembly.prepare_training(a, lambda record: None, (), warn=warn)
    t.train_step.micro.warn = warn
    losses = []
    with t.advance.context():
        for draw in itertools.islice((d for epoch in range(9) for d in t.loader.draws(epoch)), count):
            before(len(losses))
            t.train_step.measure_norm = len(losses) % 3 == 2
            losses.append(t.advance(draw).item())
    return losses, t


def test_graphs_give_way_to_eager_steps_that_need_their_memory():
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    at_first = torch.cuda.memory_reserved()
    eager, _ = wide("false", 16, pytest.fail, lambda step: None)
    most = torch.cuda.max_memory_reserved() - at_first
    try:
        allow(int(1.6 * most))
        captured, t = wide("true", 16, pytest.fail, lambda step: None)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert captured == eager
    assert t.train_step.micro.size == 512
    assert t.advance._made_room > 0


def test_a_graph_that_does_not_fit_beside_the_eager_step_is_said_to_be_that():
    eager, _ = wide("false", 4, pytest.fail, lambda step: None)
    said: list[str] = []

    def warn(sentence: str) -> None:
        torch.cuda.set_per_process_memory_fraction(1.0)
        said.append(sentence)

    try:
        tried, _ = wide("true", 4, warn, lambda step: allow(1 << 26) if step == 3 else None)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert tried == eager
    assert len(said) == 1
    assert "a graph beside the eager step does not fit into memory" in said[0]
