"""data.batch_size=auto: a batch size found by trying, before a run begins."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from dlrun.engine.capture import CapturedStep
from dlrun.engine.device import free_memory
from dlrun.engine.footprint import peak_bytes
from dlrun.engine.memory import DeviceMemoryError, release
from dlrun.engine.training import Training

STEPS_PER_EPOCH = 20  # at least; fewer would be another kind of training
SMALLEST = 8  # tried, where there are examples for more
SHARE = 0.8  # of the memory that could be had
NEAR = 0.9  # of the best throughput is good enough: small batches learn more from an example
SECONDS = 0.15  # that a batch size is timed for, and at least three steps
PATIENCE = 2  # larger sizes in a row that are no faster end the search
SLOW = 2.0  # seconds for a step are too long to go on searching

Trial = Callable[[int], Training]  # the training of the run with that batch size, on a copy of the model


@dataclass(frozen=True)
class Tried:
    """What a few steps with a batch size took: bytes at most, and examples a second."""

    size: int
    memory: int
    rate: float


def choose(trial: Trial, examples: int, accumulate: int, device: torch.device) -> tuple[int, str]:
    """A batch size for the device, and a sentence that says why this one.

    On a GPU the largest that fits with a margin. On a CPU, where memory is rarely what limits, the smallest that is
    nearly as fast as any. Both are at most what leaves 20 steps in an epoch, where no batch has one example then.

    Raises: DeviceMemoryError if the smallest does not fit.
    """
    sizes = candidates(examples, accumulate)
    limited = f"no more than {sizes[-1]}, as an epoch is to have {STEPS_PER_EPOCH} steps"
    if examples < STEPS_PER_EPOCH * accumulate * sizes[-1]:
        limited = f"{sizes[-1]} is the fewest with which no batch of the {examples} examples has but one"
    budget = int(SHARE * _available(device))
    if device.type == "cuda":
        between = without_remainder_of_one(examples)
        tried = largest(sizes, budget, lambda size: measure(trial, between(size), device, timed=False))
        why = f"{_bytes(tried.memory)} of the {_bytes(budget)} that may be used; {limited}"
        return tried.size, f"the largest that fits, with {why}"
    found, best = quickest(sizes, budget, lambda size: measure(trial, size, device, timed=True))
    if found == best:
        return found.size, f"the fastest here, {found.rate:,.0f} examples a second; {limited}"
    return found.size, (
        f"{found.rate:,.0f} examples a second, nearly as many as the fastest here ({best.size}: {best.rate:,.0f}); "
        f"{limited}"
    )


def candidates(examples: int, accumulate: int = 1) -> list[int]:
    """About the powers of two, ascending, from 8 on where there are examples enough."""
    most = max(1, examples // (STEPS_PER_EPOCH * accumulate))
    powers = [2**k for k in range(most.bit_length())]
    return list(map(without_remainder_of_one(examples), [size for size in powers if size >= SMALLEST] or powers[-1:]))


def without_remainder_of_one(examples: int) -> Callable[[int], int]:
    """From a size to the next smaller one with which no batch has one example, of which batch norm has no variance.

    Of few examples that may be none, as 1 is for 2 in 61; then the next larger, and an epoch has fewer steps.
    """

    def nearest(size: int) -> int:
        others = (*range(size, 1, -1), *range(max(size, 1) + 1, examples + 1))
        return next((other for other in others if examples % other != 1), 1)

    return nearest


def largest(sizes: Sequence[int], budget: int, measured: Callable[[int], Tried | None]) -> Tried:
    """The largest size that needs no more memory than `budget`, or one and a half times it.

    Memory grows with the size along a line, which the last two tried foretell: what would not fit is not tried.
    """
    fitting: list[Tried] = []

    def fits(size: int) -> bool:
        if len(fitting) > 1:
            (a, b), slope = fitting[-2:], 0.0
            slope = (b.memory - a.memory) / (b.size - a.size)
            if b.memory + slope * (size - b.size) > budget:
                return False
        found = measured(size)
        if found is None or found.memory > budget:
            return False
        fitting.append(found)
        return True

    reached_all = True
    for size in sizes:
        if not fits(size):
            reached_all = False
            break
    if not fitting:
        raise _nothing_fits(sizes[0])
    if not reached_all or fitting[-1].size * 3 // 2 <= sizes[-1]:
        fits(fitting[-1].size * 3 // 2)
    return fitting[-1]


def quickest(sizes: Sequence[int], budget: int, measured: Callable[[int], Tried | None]) -> tuple[Tried, Tried]:
    """The smallest size with nearly the best throughput, and the size that has the best."""
    tried: list[Tried] = []
    for size in sizes:
        if tried and tried[-1].memory / tried[-1].size * size > budget:
            break
        found = measured(size)
        if found is None:
            break
        tried.append(found)
        best = max(tried, key=lambda one: one.rate)
        if len(tried) - 1 - tried.index(best) >= PATIENCE or size / found.rate > SLOW:
            break
    if not tried:
        raise _nothing_fits(sizes[0])
    best = max(tried, key=lambda one: one.rate)
    return next(one for one in tried if one.rate >= NEAR * best.rate), best


def measure(trial: Trial, size: int, device: torch.device, *, timed: bool) -> Tried | None:
    """Take a few steps with a batch size; None if they do not fit.

    Steps that are captured count twice: a graph keeps the memory of one, and the first of another kind, such as the
    last and smaller batch of an epoch, are taken beside it (dlrun/engine/capture.py).
    """
    training = trial(size)
    step = training.train_step
    step.micro.warn = lambda text: None
    batch = next(iter(training.loader.epoch(0)))
    try:
        step(batch)  # makes the optimizer's state
        memory = peak_bytes(lambda: step(batch), device) * (2 if isinstance(training.advance, CapturedStep) else 1)
    except DeviceMemoryError:
        return None
    if step.micro.size < step.micro.configured:
        return None
    if device.type == "cuda":  # what stays between steps; the copy of the model that is tried is not there in training
        weights = [*step.model.parameters(), *step.model.buffers()]
        memory += torch.cuda.memory_allocated(device) - sum(tensor.nbytes for tensor in weights)
    return Tried(size, memory, size / _seconds(lambda: step(batch)) if timed else 0.0)


def _seconds(take_step: Callable[[], object]) -> float:
    """The shortest time that a step takes: others come from what else the machine does."""
    times: list[float] = []
    while (len(times) < 3 or sum(times) < SECONDS) and sum(times) < 2 * SLOW:
        began = time.perf_counter()
        take_step()
        times.append(time.perf_counter() - began)
    return min(times)


def _available(device: torch.device) -> int:
    """Bytes this process could use: what is free, and what it holds without using it."""
    release()
    unused = 0
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device)
    return free_memory(device) + unused


def _nothing_fits(size: int) -> DeviceMemoryError:
    return DeviceMemoryError(
        f"data.batch_size=auto: a training step of {size} examples cannot be taken on this device; give a number, "
        "or choose a smaller model, trainer.checkpoint_activations=true or trainer.precision=bf16"
    )


def _bytes(count: int) -> str:
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"
