"""CUDA graphs that share a pool of memory, on the versions of torch from 2.11 on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import torch

from dlrun.engine.device import free_memory
from dlrun.engine.memory import DeviceMemoryError, LateMemoryError, is_out_of_memory

T = TypeVar("T")

# As of this version a graph finds the generators that it draws from by itself, and what one that could not be recorded
# leaves behind ends with it (pytorch#176752, pytorch#176753).
CLEAN = (2, 14)
_broken: list[object] = []  # graphs that the allocator of pinned memory goes on asking whether they are being recorded


class GraphPool:
    """Records graphs, one after the other, all in the same memory: they may be replayed in turn, but not at once.

    Attributes:
        held: bytes that nothing but these graphs can use.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.held = device, 0
        self._handle: Any = None

    def record(
        self, compute: Callable[[], T], generators: Sequence[torch.Generator], stream: torch.cuda.Stream | None
    ) -> tuple[torch.cuda.CUDAGraph, T]:
        """A graph of `compute()`, and what it returned; nothing is computed yet. Whatever it raises is raised.

        Args:
            generators: that `compute` draws from, beside the device's default one.
        """
        graph = torch.cuda.CUDAGraph()
        _register(graph, generators)
        self._handle = self._handle or torch.cuda.graph_pool_handle()
        torch.cuda.empty_cache()  # as recording begins with: what is reserved afterwards is the graph's
        before = torch.cuda.memory_reserved(self.device)
        try:
            # "thread_local": the thread that pins a streaming loader's memory may go on meanwhile.
            with torch.cuda.graph(graph, pool=self._handle, stream=stream, capture_error_mode="thread_local"):
                result = compute()
        except BaseException:
            if _version() < CLEAN:
                _mend(graph, self._handle, generators, stream, self.device)
            raise
        self.held += torch.cuda.memory_reserved(self.device) - before
        return graph, result

    def forget(self) -> None:
        """Begin anew: all graphs have been let go, and a pool that nothing uses may not be used again."""
        self._handle, self.held = None, 0

    def crowds(self) -> bool:
        """Whether less memory is left than the graphs hold, which is about what a step takes that is not a graph."""
        if not self.held:
            return False
        idle = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device) - self.held
        return free_memory(self.device) + max(0, idle) < self.held


def why_not(error: BaseException) -> str:
    """Why a graph could not be recorded, as half a sentence."""
    cause: BaseException | None = error
    while cause is not None:  # ending a recording that is broken raises an error of its own
        if isinstance(cause, LateMemoryError | DeviceMemoryError) or is_out_of_memory(cause):
            return "a graph beside the eager step does not fit into memory"
        cause = cause.__context__
    text = " ".join(str(error).split()).partition(" CUDA kernel errors")[0]
    return f"{type(error).__name__}: {text[:200]}"


def _version() -> tuple[int, ...]:
    return tuple(int(part) for part in torch.__version__.split(".")[:2])


def _register(graph: torch.cuda.CUDAGraph, generators: Sequence[torch.Generator]) -> None:
    """Let the graph draw from the generators what they would give at each replay; the default one is by itself."""
    if _version() < CLEAN:
        for generator in generators:
            graph.register_generator_state(generator)


def _mend(
    graph: torch.cuda.CUDAGraph,
    pool: Any,
    generators: Sequence[torch.Generator],
    stream: torch.cuda.Stream | None,
    device: torch.device,
) -> None:
    """Bring back to order what a graph that could not be recorded leaves behind; without a word if that fails too.

    Where the host has waited for the device, CUDA refuses to end the recording, and torch 2.11 goes no further: its
    allocator takes the recording to be under way, which makes `torch.cuda.empty_cache` fail and keeps the memory
    (pytorch#180395), and so do the generators, each of which refuses to draw outside a graph until one of its graphs
    is recorded to the end. So one is.
    """
    with suppress(RuntimeError, AttributeError):
        torch._C._cuda_endAllocateToPool(device.index or 0, pool)  # refuses if the recording has been ended in order
        _broken.append(graph)
        if torch.version.hip is None:
            torch._C._cuda_releasePool(device.index or 0, pool)
    with suppress(RuntimeError, AttributeError):
        whole = torch.cuda.CUDAGraph()
        _register(whole, generators)
        number = torch.zeros(1, device=device)
        with torch.cuda.graph(whole, stream=stream, capture_error_mode="thread_local"):
            number.add_(1)
