"""What torch's profiler saw: operators, kernels, what the host waited for, how long the device computed."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from dlrun.profiling.phases import ORDER

LAUNCH = re.compile(r"cu(da)?Launch(Cooperative)?Kernel|cu(da)?GraphLaunch")
WAIT = re.compile(r"cuda(Stream|Device|Event)Synchronize|cudaMemcpy$|cu(Stream|Ctx|Event)Synchronize")


RANGES = ("ProfilerStep", "Activity Buffer", "Optimizer.", "Torch-Compiled Region", "## Call CompiledFxGraph")


@dataclass
class Operator:
    """An operator or a kernel: its own time and its calls, in a step."""

    name: str
    seconds: float
    calls: float


@dataclass
class Trace:
    """One pass under the profiler, in a step.

    Attributes:
        operators: by their own time on the device, the longest first.
        kernels: of the GPU likewise; empty on a CPU.
        launches: what the host had the GPU do.
        waits: how often the host waited for the GPU.
        busy_seconds: of the GPU, kernels that overlap counted once.
    """

    operators: list[Operator]
    kernels: list[Operator]
    launches: float = 0.0
    waits: float = 0.0
    busy_seconds: float = 0.0


def profiler(device: torch.device) -> profile:
    """The profiler of what a device does."""
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    # there is one cycle only, of which all is kept; without acc_events torch 2.11 warns that those of others are lost
    return profile(activities=activities, acc_events=True)


def read_trace(prof: Any, device: torch.device, steps: int) -> Trace:
    """Sum up what the profiler recorded in `steps` steps."""
    on_gpu = device.type == "cuda"
    averages = [row for row in prof.key_averages() if not _is_range(row)]
    ours = [row for row in averages if row.device_type == DeviceType.CPU]
    own_time = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    operators = [Operator(_plain(row.key), getattr(row, own_time) / 1e6 / steps, row.count) for row in ours]
    kernels = [
        Operator(_short(row.key), row.self_device_time_total / 1e6 / steps, row.count)
        for row in averages
        if row.device_type == DeviceType.CUDA
    ]
    for row in (*operators, *kernels):
        row.calls /= steps
    spans = [
        (event.time_range.start, event.time_range.end)
        for event in (prof.events() if on_gpu else ())
        if event.device_type == DeviceType.CUDA and not _is_range(event)
    ]
    return Trace(
        operators=_longest(operators),
        kernels=_longest(kernels),
        launches=sum(row.count for row in ours if LAUNCH.match(row.key)) / steps,
        waits=sum(row.count for row in ours if WAIT.match(row.key)) / steps,
        busy_seconds=covered(spans) / 1e6 / steps,
    )


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """The length of the union of some intervals."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def _is_range(row: Any) -> bool:
    """Whether it is a phase's name, or one that torch puts around others; a range holds the time of what is in it."""
    name = getattr(row, "key", None) or row.name
    return name in ORDER or name.startswith(RANGES) or bool(getattr(row, "is_user_annotation", False))


def _plain(operator: str) -> str:
    return operator.replace("autograd::engine::evaluate_function:", "autograd:")


def _longest(rows: list[Operator]) -> list[Operator]:
    together: dict[str, Operator] = defaultdict(lambda: Operator("", 0.0, 0.0))
    for row in rows:
        one = together[row.name]
        one.name, one.seconds, one.calls = row.name, one.seconds + row.seconds, one.calls + row.calls
    return sorted((row for row in together.values() if row.seconds > 0), key=lambda row: -row.seconds)


def _short(kernel: str) -> str:
    """A C++ kernel's name without its types: templates and arguments are longer than a line."""
    plain = re.sub(r"^void ", "", kernel)
    inner = re.search(r"(\w+Functor\w*|\w+_kernel\w*)", plain[plain.find("<") :]) if "elementwise" in plain else None
    head = re.split(r"[<(]", plain)[0].strip().split("::")[-1]
    return f"{head} ({inner[1]})" if inner and inner[1] != head else head
