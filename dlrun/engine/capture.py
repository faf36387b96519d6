"""From a draw to the optimizer step done with it: eagerly, or by replaying a CUDA graph of all its work.

A GPU finishes the kernels of a small model faster than Python can launch them. A CUDA graph is the whole of a step,
recorded once and launched as one: gather, augment, normalise, forward, loss, backward, clip, update. It repeats the
same kernels on the same addresses, so its results are those of the eager step to the bit. What changes from step to
step lies in tensors (indices, learning rates) or in the seeds of registered generators.

Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from dlrun.engine.graphs import GraphPool, why_not
from dlrun.engine.host import HostState, waits
from dlrun.engine.loaders import Draw, Loader
from dlrun.engine.memory import release
from dlrun.engine.step import TrainStep

EAGER_STEPS = 2  # of each kind before it is recorded: what is made on first use must be there
MOST_GRAPHS = 32  # kinds of steps that are recorded; each keeps some memory for itself
MOST_ROOM = 16  # times that graphs are let go for the memory they hold; more often, they cost more than they gain


class Advance(Protocol):
    """Makes the batch of a draw and trains on it."""

    def __call__(self, draw: Draw) -> Tensor:
        """Returns: the objective, a scalar on the device, valid until the next call."""

    def context(self) -> AbstractContextManager[object]:
        """Within which training takes place."""


class EagerStep:
    """Operation by operation, as Python reaches them."""

    def __init__(self, step: TrainStep, loader: Loader) -> None:
        self.step, self.loader = step, loader

    def __call__(self, draw: Draw) -> Tensor:
        self.loader.prepare.seed_for(draw.step)
        return self.step(self.loader.make(draw))

    def context(self) -> AbstractContextManager[object]:
        return nullcontext()


@dataclass
class _Recorded:
    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    loss: Tensor
    gradient_norm: Tensor | None


class CapturedStep:
    """By CUDA graphs, one for each kind of step: the shapes of its draw, and what else decides the kernels.

    The first steps of each kind are done eagerly. The last of them, when what is made on first use is there, is
    watched: a step that changes anything but numbers on the device (an attribute of a module, the state of a generator
    of the host), or in which the host waits for the device, is not recorded. Then, and if recording fails, all steps
    are done eagerly and `warn` is told why.

    Graphs keep the memory of a step for themselves. Where an eager step of another kind needs it, they are let go, to
    be recorded again at their next use.

    Args:
        warn: receives one sentence.
    """

    def __init__(self, step: TrainStep, loader: Loader, device: torch.device, warn: Callable[[str], None]) -> None:
        self.step, self.loader, self.device, self.warn = step, loader, device, warn
        self.stream: torch.cuda.Stream | None = None
        self.pool = GraphPool(device)
        self._micro_batch_size = step.micro.size
        self._seen: dict[object, int] = {}
        self._recorded: dict[object, _Recorded] = {}
        self._made_room = 0
        self._obstacle = ""

    @contextmanager
    def context(self) -> Iterator[None]:
        # All of it on one stream of its own: what eager steps leave behind may then be touched while recording.
        self.stream = self.stream or torch.cuda.Stream(self.device)
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            yield
        torch.cuda.current_stream(self.device).wait_stream(self.stream)

    def __call__(self, draw: Draw) -> Tensor:
        self.loader.prepare.seed_for(draw.step)
        self.step.begin()
        loss = self._compute(draw)
        self.step.end()
        return loss

    def _compute(self, draw: Draw) -> Tensor:
        if self._obstacle:
            return self._eagerly(draw)
        if self.step.micro.size != self._micro_batch_size:  # no step will be of a kind that has been recorded
            self._micro_batch_size = self.step.micro.size
            self._let_go()
        kind = (*((x.shape, x.dtype) for x in draw.tensors), draw.longest, self.step.variant)
        recorded = self._recorded.get(kind)
        if recorded is None:
            if len(self._recorded) >= MOST_GRAPHS:
                return self._beside_graphs(draw)
            seen = self._seen[kind] = self._seen.get(kind, 0) + 1
            if seen < EAGER_STEPS:
                return self._beside_graphs(draw)
            if seen == EAGER_STEPS:
                return self._watched(draw)
            recorded = self._record(draw)
            if recorded is None:
                return self._eagerly(draw)
            self._recorded[kind] = recorded
        for ours, theirs in zip(recorded.inputs, draw.tensors, strict=True):
            ours.copy_(theirs)
        recorded.graph.replay()
        self.step.gradient_norm = recorded.gradient_norm
        return recorded.loss

    def _eagerly(self, draw: Draw) -> Tensor:
        return self.step.compute(self.loader.make(draw))

    def _beside_graphs(self, draw: Draw) -> Tensor:
        """Eagerly, in memory that graphs have left, or else leave now."""
        if self.pool.crowds():
            self._make_room()
        self.step.micro.make_room = self._make_room if self._recorded else None
        try:
            return self._eagerly(draw)
        finally:
            self.step.micro.make_room = None

    def _watched(self, draw: Draw) -> Tensor:
        changes = self.loader.prepare.augment
        before = HostState(self.step, changes)
        with waits(self.device) as waited:
            loss = self._beside_graphs(draw)
        reason = before.change(HostState(self.step, changes))
        if not reason and waited:
            reason = "a step waits for the device on the host"
        if reason:
            self._give_up(reason)
        return loss

    def _record(self, draw: Draw) -> _Recorded | None:
        """The graph of a step of this kind; nothing is computed yet. None if it cannot be had."""
        prepare = self.loader.prepare
        generators = [*([prepare.generator] if prepare.augment else []), *self.step.generators]
        try:
            inputs = tuple(x.clone() for x in draw.tensors)
            graph, loss = self.pool.record(
                lambda: self._eagerly(replace(draw, tensors=inputs)), generators, self.stream
            )
            return _Recorded(graph, inputs, loss, self.step.gradient_norm)
        except Exception as error:
            reason = why_not(error)
        self.step.abandon()
        self._give_up(reason)
        return None

    def _make_room(self) -> None:
        """Let an eager step have the memory that graphs hold."""
        self.step.micro.free()  # gradients lie there, too
        self._let_go()
        self._made_room += 1
        if self._made_room == MOST_ROOM:
            self._give_up("graphs do not fit into memory beside the steps of other kinds")

    def _let_go(self) -> None:
        self._recorded.clear()
        self.pool.forget()
        release()

    def _give_up(self, reason: str) -> None:
        if self._obstacle:
            return
        self._obstacle = reason
        self._let_go()
        self.warn(f"Steps are not captured in a CUDA graph, which makes small models slower: {reason}.")


def obstacle(step: TrainStep) -> str:
    """Why steps cannot be captured, as far as can be said beforehand; empty if nothing speaks against it."""
    name = type(step.optimizer).__name__
    if step.needs_closure:
        return f"{name} evaluates the loss several times in a step"
    if not all(isinstance(group["lr"], Tensor) for group in step.optimizer.param_groups):
        return f"{name} reads its learning rate on the host"
    if step.scaler is not None and not getattr(step.optimizer, "_step_supports_amp_scaling", False):
        return f"{name} leaves it to the host to skip the steps whose gradients overflow in fp16"
    if step.schedule.cycles_momentum:
        return "the schedule changes the momentum, which the optimizer reads on the host"
    return ""
