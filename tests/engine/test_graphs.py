"""Recording graphs, against a stand-in that keeps its books as torch's allocator and generators do."""

from collections import Counter
from contextlib import contextmanager

import pytest
import torch

from dlrun.engine import graphs
from dlrun.engine.graphs import GraphPool, why_not
from dlrun.engine.memory import LateMemoryError

CPU = torch.device("cpu")
RECORDING_BROKEN = "CUDA error: operation failed due to a previous error during capture"


class Cuda:
    """What recording changes in torch before 2.14: read from CUDAGraph.cpp, CUDAGeneratorImpl.cpp and the allocator."""

    def __init__(self, monkeypatch, version):
        self.handles, self.graphs, self.log = 0, 0, []
        self.underway, self.uses = set(), Counter()
        self.capturing = {}  # by generator: whether it refuses to draw outside a graph
        self.reserved, self.allocated, self.free, self.broken = 0, 0, 0, False
        cuda = self

        class Graph:
            def __init__(self):
                cuda.graphs += 1
                self.generators, self.pool, self.ended = ["default"], None, False

            def register_generator_state(self, generator):
                cuda.log.append("registered")
                self.generators.append(generator)

            def __del__(self):
                if self.ended:
                    cuda.uses[self.pool] -= 1

        monkeypatch.setattr(torch, "__version__", version)
        for name, value in {
            "CUDAGraph": Graph, "graph": self.recording, "graph_pool_handle": self.handle,
            "empty_cache": self.empty_cache, "memory_reserved": lambda device: self.reserved,
            "memory_allocated": lambda device: self.allocated, "mem_get_info": lambda device: (self.free, 0),
        }.items():  # fmt: skip
            monkeypatch.setattr(torch.cuda, name, value)
        monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", self.end, raising=False)
        monkeypatch.setattr(torch._C, "_cuda_releasePool", self.release, raising=False)
        monkeypatch.setattr(graphs, "_broken", [])

    def handle(self):
        self.handles += 1
        return (0, self.handles)

    def empty_cache(self):
        if self.underway:
            raise RuntimeError("captures_underway.empty() INTERNAL ASSERT FAILED")

    def end(self, device, pool):
        if pool not in self.underway:
            raise RuntimeError("endAllocatePool: not currently recording to mempool_id")
        self.underway.remove(pool)

    def release(self, device, pool):
        self.uses[pool] -= 1
        assert self.uses[pool] >= 0

    @contextmanager
    def recording(self, graph, pool=None, stream=None, capture_error_mode="global"):
        self.empty_cache()
        graph.pool = pool or self.handle()
        assert pool is None or self.uses[pool] > 0 or pool not in self.uses  # one that nothing uses is gone
        self.capturing |= dict.fromkeys(graph.generators, True)
        self.uses[graph.pool] += 1
        self.underway.add(graph.pool)
        try:
            yield
        finally:
            broken, self.broken = self.broken, False
            if broken:
                raise RuntimeError(RECORDING_BROKEN)
            self.end(0, graph.pool)
            self.capturing |= dict.fromkeys(graph.generators, False)
            graph.ended = True

    def wait(self):
        """In a step: the host waits for the device, which CUDA forbids and does not forgive."""
        self.broken = True
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing")

    def take(self, count):
        self.reserved += count
        return count


def test_a_recording_that_fails_on_torch_2_11_leaves_nothing_behind(monkeypatch):
    cuda = Cuda(monkeypatch, "2.11.0+cu130")
    pool = GraphPool(CPU)
    with pytest.raises(RuntimeError, match="previous error during capture"):
        pool.record(cuda.wait, ["augmentation"], None)
    assert cuda.capturing == {"default": False, "augmentation": False}  # they draw again
    cuda.empty_cache()
    assert not +cuda.uses
    assert len(graphs._broken) == 1  # whom the allocator of pinned memory may still ask


def test_one_that_is_ended_in_order_gives_its_memory_back_once(monkeypatch):
    """As when memory runs out while recording: the graph itself releases its pool when it goes."""
    cuda = Cuda(monkeypatch, "2.11.0+cu130")

    def run_out():
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        GraphPool(CPU).record(run_out, [], None)
    assert not graphs._broken
    assert not any(cuda.capturing.values())
    assert set(cuda.uses.values()) == {0}


def test_what_cannot_be_mended_raises_nothing_of_its_own(monkeypatch):
    cuda = Cuda(monkeypatch, "2.11.0+cu130")
    monkeypatch.delattr(torch._C, "_cuda_endAllocateToPool")
    with pytest.raises(RuntimeError, match="previous error during capture"):
        GraphPool(CPU).record(cuda.wait, [], None)


def test_generators_are_registered_below_2_14_alone(monkeypatch):
    """From there on it does nothing but write to stderr."""
    for version, registered in (("2.11.0+cu130", 1), ("2.13.1", 1), ("2.14.1+cu130", 0), ("2.15.0a0+git12ab", 0)):
        cuda = Cuda(monkeypatch, version)
        graph, result = GraphPool(CPU).record(lambda: 3, ["augmentation"], None)
        assert (result, cuda.log.count("registered"), len(graph.generators)) == (3, registered, 1 + registered)


def test_from_2_14_on_there_is_nothing_to_mend(monkeypatch):
    cuda = Cuda(monkeypatch, "2.14.1+cu130")
    with pytest.raises(RuntimeError, match="previous error during capture"):
        GraphPool(CPU).record(cuda.wait, ["augmentation"], None)
    assert cuda.graphs == 1
    assert not graphs._broken


def test_graphs_share_a_pool_until_all_are_let_go(monkeypatch):
    cuda = Cuda(monkeypatch, "2.11.0+cu130")
    pool = GraphPool(CPU)
    kept = [pool.record(lambda: None, [], None)[0] for _ in range(2)]
    assert cuda.uses == {(0, 1): 2}
    kept.clear()
    pool.forget()
    kept.append(pool.record(lambda: None, [], None)[0])
    assert +cuda.uses == {(0, 2): 1}


def test_graphs_crowd_a_step_that_does_not_fit_beside_them(monkeypatch):
    cuda = Cuda(monkeypatch, "2.11.0+cu130")
    pool = GraphPool(torch.device("cuda", 0))
    cuda.reserved = cuda.allocated = 100  # weights
    cuda.free = 300
    assert not pool.crowds()
    kept = [pool.record(lambda: cuda.take(200), [], None)]
    assert pool.held == 200
    kept.append(pool.record(lambda: cuda.take(10), [], None))  # most of it in the same memory
    assert pool.held == 210
    cuda.free = 90
    assert pool.crowds()
    cuda.reserved += 120  # of a step before, which the allocator has kept
    assert not pool.crowds()
    kept.clear()
    pool.forget()
    assert not pool.crowds()


def test_why_a_graph_cannot_be_had_is_what_came_first():
    def run_out_and_end_it():
        try:
            raise LateMemoryError("the run goes back to its last checkpoint", 8)
        finally:
            raise RuntimeError(RECORDING_BROKEN)

    with pytest.raises(RuntimeError) as caught:
        run_out_and_end_it()
    assert why_not(caught.value) == "a graph beside the eager step does not fit into memory"
    assert why_not(torch.OutOfMemoryError("CUDA out of memory")).startswith("a graph beside")
    assert why_not(ValueError("no\n such  thing")) == "ValueError: no such thing"
