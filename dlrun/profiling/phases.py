"""What each phase of a step takes, by a stopwatch put around the parts of a training from outside.

The parts themselves know nothing of it: their methods are replaced for as long as it runs, so that a step that is not
profiled pays nothing.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch.profiler import record_function

from dlrun.engine.loaders import StreamingLoader
from dlrun.engine.training import Training

OTHER = "other"
ORDER = (
    "data: gather",
    "data: wait for workers",
    "data: augment",
    "data: normalise",
    "forward",
    "loss",
    "backward",
    "gradient transforms",
    "optimizer",
    "schedule",
    "averages",
    "metrics",
    OTHER,
)


class Stopwatch:
    """Time by phase; an inner phase stops the clock of the one around it, so the times add up to the whole.

    On a GPU it is the time of the device's stream, its waiting included: the host only leaves marks there.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.on_gpu = device, device.type == "cuda"
        self._stack = [OTHER]
        self._marks: list[tuple[str, Any]] = []
        self._laps: list[int] = []  # the number of marks at the beginning of each step

    def lap(self) -> None:
        """A step begins."""
        self._laps.append(len(self._marks))
        self._mark()

    def _mark(self) -> None:
        now: Any = time.perf_counter()
        if self.on_gpu:
            now = torch.cuda.Event(enable_timing=True)
            now.record(torch.cuda.current_stream(self.device))
        self._marks.append((self._stack[-1], now))

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """The time of what is done meanwhile is `name`'s. It is a range of that name in a trace, too."""
        self._stack.append(name)
        self._mark()
        try:
            with record_function(name):
                yield
        finally:
            self._stack.pop()
            self._mark()

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function` as a phase."""

        def timed(*arguments: Any, **options: Any) -> Any:
            with self.phase(name):
                return function(*arguments, **options)

        return timed

    @contextmanager
    def running(self) -> Iterator[None]:
        """Forget what was measured, and measure what is done meanwhile."""
        self._stack = [OTHER]
        self._marks, self._laps = [], []
        self._mark()
        yield
        self._mark()
        self._laps.append(len(self._marks) - 1)

    def seconds(self) -> dict[str, float]:
        """Seconds a step by phase, in the order of a step: the mean of the faster half of the steps.

        What disturbs a measurement makes steps slower, never faster; and a phase that not every step has (a log
        record) keeps its share as well as half of the steps can tell.
        """
        if self.on_gpu:
            torch.cuda.synchronize(self.device)
        steps = [self._between(first, last) for first, last in pairwise(self._laps)]
        steps.sort(key=lambda step: sum(step.values()))
        kept = steps[: max(1, (len(steps) + 1) // 2)]
        names = sorted({name for step in kept for name in step}, key=ORDER.index)
        return {name: sum(step.get(name, 0.0) for step in kept) / len(kept) for name in names}

    def _between(self, first: int, last: int) -> dict[str, float]:
        found: dict[str, float] = defaultdict(float)
        for (name, begin), (_, end) in pairwise(self._marks[first : last + 1]):
            found[name] += begin.elapsed_time(end) / 1e3 if self.on_gpu else end - begin
        return dict(found)


class _Timed:
    """Something that is called, as a phase; all else of it as it is."""

    def __init__(self, watch: Stopwatch, name: str, inner: Any) -> None:
        self._call, self._inner = watch.around(name, inner), inner

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self._call(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """`owner.name` is `value` meanwhile."""
    own = name in vars(owner)
    before = vars(owner).get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if own:
            setattr(owner, name, before)
        else:
            delattr(owner, name)


@contextmanager
def instrumented(training: Training, watch: Stopwatch) -> Iterator[None]:
    """Every part of the training times itself by `watch` meanwhile."""
    step, loader = training.train_step, training.loader
    fetch = "data: wait for workers" if isinstance(loader, StreamingLoader) else "data: gather"
    with ExitStack() as stack:

        def time(owner: Any, name: str, phase: str) -> None:
            """Put the stopwatch around a method, where the owner has it."""
            if owner is not None and hasattr(owner, name):
                stack.enter_context(replaced(owner, name, watch.around(phase, getattr(owner, name))))

        def draws(*arguments: Any) -> Iterator[Any]:
            drawn = original_draws(*arguments)
            while True:
                watch.lap()
                with watch.phase(fetch):
                    draw = next(drawn, None)
                if draw is None:
                    return
                yield draw

        original_draws = loader.draws
        stack.enter_context(replaced(loader, "draws", draws))
        time(loader, "gather", "data: gather")
        changes = tuple(_Timed(watch, "data: augment", change) for change in loader.prepare.augment)
        stack.enter_context(replaced(loader.prepare, "augment", changes))
        time(loader.prepare, "normalise", "data: normalise")
        time(step, "forward", "forward")
        stack.enter_context(replaced(step, "objective", _Timed(watch, "loss", step.objective)))
        time(torch.autograd, "backward", "backward")
        time(step, "_transform_gradients", "gradient transforms")
        for owner, names, phase in (
            (step, ("_clear_gradients", "_update"), "optimizer"),
            (step.optimizer, ("step",) if step.needs_closure else (), "optimizer"),
            (step.schedule, ("step",), "schedule"),
            (step.lookahead, ("update",), "averages"),
            (step.average, ("update",), "averages"),
            (training.meter, ("add", "mean_since_log"), "metrics"),
            *((metric, ("update",), "metrics") for metric in training.metrics),
        ):
            for name in names:
                time(owner, name, phase)
        yield
