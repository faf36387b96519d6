"""Memory counted by hand, and by what PyTorch's own profiler sees its allocator do."""

import torch
from torch import Tensor, nn

from dlrun.contracts import Batch
from dlrun.engine.footprint import Allocations, KeptForBackward, peak_bytes

from .test_step import make

CPU = torch.device("cpu")
KB = 1024


def test_tensors_are_counted_from_when_they_are_made_until_they_go():
    there = torch.zeros(64 * KB // 4)

    def compute() -> None:
        one = there + 1  # 64 kB
        two = one.view(2, -1) * 2  # 64 kB more; a view takes nothing
        del one
        three = two + two  # the first one is gone: still 128 kB
        del two, three
        there.add_(1)  # in place
        there.view(4, -1).t()

    assert peak_bytes(compute, CPU) == 128 * KB


def test_the_backward_pass_is_counted_too():
    """x² of n numbers: the square, its gradient in the sum (expanded, takes 4 bytes), 2x, and their product."""
    n = 1024
    x = torch.ones(n, requires_grad=True)
    with Allocations() as made:
        (x * x).sum().backward()
    assert x.grad is not None
    assert 3 * 4 * n <= made.peak <= 4 * 4 * n + 64


def test_a_step_s_peak_is_what_the_allocator_says():
    """Linear layers alone: other kernels take memory for themselves, which only the allocator sees."""
    batch = Batch(torch.randn(64, 6, dtype=torch.float64), torch.randint(3, (64,)))
    step = make(nn.CrossEntropyLoss())
    step(batch)
    ours = peak_bytes(lambda: step(batch), CPU)
    with torch.autograd.profiler.profile(profile_memory=True) as seen:
        step(batch)
    events = sorted((e for e in seen.kineto_results.events() if e.name() == "[memory]"), key=lambda e: e.start_ns())
    now = peak = 0
    for event in events:
        now += event.nbytes()
        peak = max(peak, now)
    assert ours == peak


def squares(inputs: Tensor, count: int) -> Tensor:
    """Each factor keeps its argument, 4 kB for 1024 numbers."""
    for _ in range(count):
        inputs = inputs * inputs
    return inputs.sum()


def test_what_is_kept_is_counted_once_and_let_go():
    weight = torch.ones(1024, requires_grad=True)
    with KeptForBackward([weight]) as kept:
        for _ in range(3):  # as micro-batches do
            squares(weight, 4).backward()
    assert kept.peak == 3 * 4096  # the first factor is the weight itself
    with KeptForBackward() as kept:
        squares(weight, 4).backward()
    assert kept.peak == 4 * 4096


def test_gradients_are_those_without_the_hooks():
    step, other = make(nn.CrossEntropyLoss()), make(nn.CrossEntropyLoss())
    batch = Batch(torch.randn(8, 6, dtype=torch.float64), torch.randint(3, (8,)))
    step(batch)
    with KeptForBackward(), Allocations():
        other(batch)
    for a, b in zip(step.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(a, b)
