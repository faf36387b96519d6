"""Where the time of a training step goes, measured on the run that the configuration describes; nothing is trained on.

Four passes over steps of the real loop: undisturbed, with a stopwatch around each part, under torch's profiler, and
undisturbed again in variations whose effect on speed can be had by trying. One more step counts its operations.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dlrun import assembly, build
from dlrun.assembly import Assembly
from dlrun.engine.capture import CapturedStep
from dlrun.engine.memory import DeviceMemoryError, LateMemoryError
from dlrun.engine.training import Training
from dlrun.errors import UsageError
from dlrun.machine.cores import usable_cores
from dlrun.machine.rates import peak_rate, precisions
from dlrun.machine.rates import threads as computing_with
from dlrun.planning import without_onednn
from dlrun.profiling.phases import Stopwatch, instrumented
from dlrun.profiling.steps import LEAST, PASSES, Timing, ready, timed_steps
from dlrun.profiling.trace import Operator, Trace, profiler, read_trace
from dlrun.recorded import load_teacher

WARM_STEPS, WARM_SECONDS = 5, 1.0
PASS_SECONDS = 1.5  # for each of the passes; one of `LEAST` steps may take longer
TRY_SECONDS = 0.3  # for each try of a variation
TRIES = 2  # of each variation, taking turns
LONG_STEP = 0.2  # seconds: a step that is busy enough, whatever the batch; the tries of others would take too long
LARGER = 4  # times as many examples in a step, to see whether that is faster


@dataclass
class Profile:
    """What was measured; times are seconds a step.

    Attributes:
        batch_size: examples in a step.
        phases: by name, in the order of a step; of a pass of its own, in which the stopwatch takes time too.
        flops: floating-point operations of a step in products of all kinds; None where they cannot be counted.
        peaks: operations per second in products of matrices, by number format; that of the run first.
        memory_bytes: most memory in use: of the GPU by tensors; else of the process.
        captured: whether `step_seconds` is that of a captured step, and phases and trace those of an eager one.
        by_threads: a step's time by number of CPU threads; empty on a GPU.
        larger: examples in a larger step, and how many times as many samples per second it does; None where it did not
            fit, or a step is long as it is.
        loader: resident or streaming.
        fused: whether the optimizer's update is one kernel; None where it has no such.
        settings: of the trainer and the data, that suggestions refer to.
    """

    name: str
    device: str
    precision: str
    threads: int
    batch_size: int
    steps: int
    step_seconds: float
    samples_per_second: float
    phases: dict[str, float]
    trace: Trace
    flops: int | None
    peaks: dict[str, float]
    memory_bytes: int
    memory_total: int
    loader: str
    fused: bool | None
    settings: Mapping[str, Any]
    captured: bool = False
    eager_seconds: float = 0.0
    by_threads: dict[int, float] = field(default_factory=dict)
    larger: tuple[int, float] | None = None
    trace_file: Path | None = None

    @property
    def on_gpu(self) -> bool:
        return self.device.startswith("cuda")

    @property
    def rate(self) -> float:
        """Floating-point operations per second."""
        return (self.flops or 0) / self.step_seconds

    @property
    def peak(self) -> float:
        """The rate of matrix products in the run's number format."""
        return self.peaks[self.precision]

    @property
    def idle(self) -> float:
        """The share of a step in which the GPU does nothing; kernels last as long under the profiler as without."""
        return max(0.0, 1 - self.trace.busy_seconds / self.step_seconds) if self.on_gpu else 0.0

    def share(self, phase: str) -> float:
        """The part of a step that all phases take whose name begins so."""
        total = sum(self.phases.values())
        return sum(value for name, value in self.phases.items() if name.startswith(phase)) / total if total else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        derived = {"flops_per_second": self.rate, "idle": self.idle}
        return asdict(self) | derived | {"trace_file": str(self.trace_file), "settings": dict(self.settings)}


def profile(config: dict[str, Any], steps: int, out: Path) -> Profile:
    """Measure about `steps` steps of a run, and write the profiler's trace to the folder `out`.

    Raises: DlrunError for all that would stop the run before its first step.
    """
    a = assembly.assemble(config)
    training = prepare(a, steps)
    if not a.parameters:
        raise UsageError("the model has no trainable parameters, so there is no step to profile; choose another model.")
    data = build.data_settings(a.config)
    timing = warmed(training, steps)
    captured = isinstance(training.advance, CapturedStep)
    eager = prepare(eager_settings(a), steps) if captured else training
    eager_seconds = warmed(eager, steps).step_seconds if captured else timing.step_seconds
    phases = phase_seconds(eager, steps)
    memory, total = memory_used(a.device)
    trace = traced(eager, steps, out / "trace.json")
    found = Profile(
        name=str(config.get("name", "")),
        device=str(a.device),
        precision=a.precision.name,
        threads=torch.get_num_threads(),
        batch_size=data.chosen_batch_size * a.settings.accumulate,
        steps=timing.steps,
        step_seconds=timing.step_seconds,
        samples_per_second=timing.samples_per_second,
        phases=phases,
        trace=trace,
        flops=count_flops(eager),
        peaks=measured_peaks(a),
        memory_bytes=memory,
        memory_total=total,
        loader="streaming" if type(training.loader).__name__.startswith("Streaming") else "resident",
        fused=fused(training.train_step.optimizer),
        settings={"data": asdict(data), "trainer": asdict(a.settings)},
        captured=captured,
        eager_seconds=eager_seconds,
        trace_file=out / "trace.json",
    )
    if a.device.type == "cpu":
        found.by_threads = try_threads(training, steps)
    if timing.step_seconds < LONG_STEP:
        found.larger = try_larger(a, training, steps)
    return found


def prepare(a: Assembly, steps: int) -> Training:
    """The training of an assembly with a schedule that is long enough for every pass."""
    teacher = load_teacher(a)
    training = assembly.prepare_training(a, lambda record: None, (), teacher)
    needed = PASSES * (steps + WARM_STEPS)
    if 0 < training.total_steps < needed:
        longer = replace(a, settings=replace(a.settings, max_steps=needed))
        training = assembly.prepare_training(longer, lambda record: None, (), teacher)
    return ready(training)


def eager_settings(a: Assembly) -> Assembly:
    """The same run with a step whose operations are launched one by one, which is what can be taken apart."""
    return replace(a, settings=replace(a.settings, graph=False))


def warmed(training: Training, steps: int) -> Timing:
    """The time of undisturbed steps, after some that compile, allocate and fill caches."""
    timed_steps(training, WARM_STEPS, WARM_SECONDS)
    if training.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(training.device)
    return timed_steps(training, steps, PASS_SECONDS)


def phase_seconds(training: Training, steps: int) -> dict[str, float]:
    """Seconds a step by phase."""
    watch = Stopwatch(training.device)
    with instrumented(training, watch), watch.running():
        timed_steps(training, steps, PASS_SECONDS)
    return watch.seconds()


def traced(training: Training, steps: int, file: Path) -> Trace:
    """Steps under torch's profiler, with the phases as ranges; the trace is left in `file`."""
    with instrumented(training, Stopwatch(training.device)), profiler(training.device) as prof:
        done = timed_steps(training, steps, PASS_SECONDS).steps
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        prof.export_chrome_trace(str(file))
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror}; give another folder: out=FOLDER.") from None
    return read_trace(prof, training.device, done)


def count_flops(training: Training) -> int | None:
    """Floating-point operations of one step in products of all kinds, or None where torch cannot count them."""
    step = training.train_step
    with suppress(RuntimeError, NotImplementedError), ExitStack() as stack:
        # Operations that these fuse are counted only when they are taken apart.
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(without_onednn())
        stack.enter_context(without_cudnn())
        stack.enter_context(plain_forward(training))
        counter = stack.enter_context(FlopCounterMode(display=False))
        step(next(iter(training.loader.epoch(0))))
        return int(counter.get_total_flops())
    return None


@contextmanager
def plain_forward(training: Training) -> Iterator[None]:
    """The model itself instead of what has been compiled of it, in whose kernels nothing can be counted."""
    step = training.train_step
    compiled, step.forward = step.forward, step.model
    try:
        yield
    finally:
        step.forward = compiled


@contextmanager
def without_cudnn() -> Iterator[None]:
    """PyTorch's own kernels on the GPU; `torch.backends.cudnn.flags` would set TF32 too."""
    before = torch.backends.cudnn.enabled
    torch.backends.cudnn.enabled = False
    try:
        yield
    finally:
        torch.backends.cudnn.enabled = before


def measured_peaks(a: Assembly) -> dict[str, float]:
    """The rate of matrix products in the run's number format, and in others the device has."""
    ours = a.precision.name
    return {name: peak_rate(a.device, name) for name in (ours, *(n for n in precisions(a.device) if n != ours))}


def memory_used(device: torch.device) -> tuple[int, int]:
    """Most bytes in use since warming up, and how many there are."""
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        return torch.cuda.max_memory_allocated(device), int(total)
    with suppress(ImportError):  # not on Windows
        import os
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        return most, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 0, 0


def fused(optimizer: Any) -> bool | None:
    """Whether the update of all weights is one kernel; None where the optimizer has none such."""
    defaults = getattr(optimizer, "defaults", {})
    return bool(defaults["fused"]) if "fused" in defaults else None


def try_threads(training: Training, steps: int) -> dict[int, float]:
    """A step's time with one thread, with one for each core, and with those of the run; the best of some tries."""
    counts = sorted({1, torch.get_num_threads(), usable_cores()})
    if len(counts) == 1:
        return {}
    found = dict.fromkeys(counts, float("inf"))
    for _ in range(TRIES):
        for count in counts:
            with computing_with(count):
                timed_steps(training, 1, 0.0)
                found[count] = min(found[count], timed_steps(training, steps, TRY_SECONDS, least=1).step_seconds)
    return found


def try_larger(a: Assembly, training: Training, steps: int) -> tuple[int, float] | None:
    """How much a larger batch speeds training up; None where it does not fit, into memory whole or the data."""
    data = a.config["data"]
    batch_size = build.data_settings(a.config).chosen_batch_size * LARGER
    if batch_size * a.settings.accumulate > len(a.splits.train):
        return None
    best = {"as it is": 0.0, "larger": 0.0}
    try:
        larger = prepare(replace(a, config={**a.config, "data": {**data, "batch_size": batch_size}}), steps)
        timed_steps(larger, LEAST, 0.0)
        for _ in range(TRIES):
            for name, tried in (("as it is", training), ("larger", larger)):
                rate = timed_steps(tried, steps, TRY_SECONDS).samples_per_second
                best[name] = max(best[name], rate)
    except (torch.OutOfMemoryError, DeviceMemoryError, LateMemoryError):
        return None
    micro = larger.train_step.micro
    if micro.size < micro.configured:  # it went in parts
        return None
    return batch_size * a.settings.accumulate, best["larger"] / best["as it is"]


__all__ = ["Operator", "Profile", "Trace", "profile"]
