"""What a sweep says while it goes: on a terminal a table that changes in place, anywhere else a line for each job."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from dlrun.runs.console import clock, number
from dlrun.sweeps.jobs import GOOD, Apart, Ended, Event, Job, Progressed, Started, score
from dlrun.sweeps.running import Result

SHOWN = 5  # of the best jobs, at the end
COLOURS = {"failed": "red", "diverged": "red", "interrupted": "yellow"}
WORDS = {"early_stopped": "stopped early"}


class Lines:
    """A line for each job that ends."""

    def __init__(self) -> None:
        self._jobs: Sequence[Job] = ()
        self._todo = self._ended = 0
        self._began = time.monotonic()
        self._running: dict[int, Progressed | Started] = {}
        self._best: tuple[str, float, Job] | None = None
        self._failed = 0

    def begin(self, folder: Path, jobs: Sequence[Job], waiting: int, workers: int) -> None:
        self._jobs, self._todo, self._began = jobs, waiting, time.monotonic()
        self._ended = self._failed = 0
        done = len(jobs) - waiting
        before = f", {done} of them done before" if done else ""
        self.say(f"{len(jobs)} jobs{before}, {workers} at a time, recorded in {os.path.relpath(folder)}")
        for job in jobs:
            if job.status in GOOD:
                self._compare(job, job.run.read_json(job.run.summary))

    def event(self, event: Event) -> None:
        if isinstance(event, Started | Progressed):
            self._running[event.job.number] = event
        elif isinstance(event, Apart):
            for job in event.jobs:
                self._running.pop(job.number, None)
        elif isinstance(event, Ended):
            self._running.pop(event.job.number, None)
            self._ended += 1
            self._failed += event.status not in GOOD and event.status != "interrupted"
            if event.status in GOOD:
                self._compare(event.job, event.summary)
            self.say(self._line(event), "" if event.status in GOOD else COLOURS.get(event.status, ""))

    def say(self, text: str, style: str = "") -> None:
        with suppress(OSError):  # nobody reads it any more; the sweep goes on
            print(text, flush=True)

    def finish(self, result: Result) -> None:
        for line in summary_lines(result):
            if line.startswith(("failed: ", "diverged: ")):
                with suppress(OSError):
                    print(line, file=sys.stderr, flush=True)
            else:
                self.say(line)

    def close(self) -> None:
        pass

    @property
    def seconds_left(self) -> float | None:
        """At the pace so far, of jobs that have ended and of what is done of the others."""
        begun = [event for event in self._running.values() if isinstance(event, Progressed)]
        done = self._ended + sum(event.step / event.total_steps for event in begun)
        return (time.monotonic() - self._began) / done * (self._todo - done) if done else None

    def _compare(self, job: Job, summary: dict[str, Any]) -> None:
        name, value, higher = score(summary)
        if value is None or value != value:
            return
        if self._best is None or (value > self._best[1] if higher else value < self._best[1]):
            self._best = (name, value, job)

    def _line(self, event: Ended) -> str:
        width = len(str(len(self._jobs)))
        name, value, _ = score(event.summary)
        parts = [f"[{self._ended:>{width}}/{self._todo}] {WORDS.get(event.status, event.status):<13}"]
        parts += [f"{event.job.number:>{width}}  {event.job.label}"]
        parts += [f"{name} {number(value)}"] if value is not None else []
        parts += [clock(event.seconds)]
        left = self.seconds_left
        parts += [f"{clock(left)} left"] if left and self._todo > self._ended else []
        parts += [event.error] if event.error else []
        return "  ".join(parts)


class Silent(Lines):
    """Nothing at all, for notebooks."""

    def finish(self, result: Result) -> None:
        pass

    def say(self, text: str, style: str = "") -> None:
        pass


class Live(Lines):
    """The jobs under way as a table in place, below the lines of those that have ended."""

    def __init__(self) -> None:
        super().__init__()
        from rich.console import Console
        from rich.live import Live as RichLive

        self._console = Console(highlight=False)
        self._live = RichLive(console=self._console, get_renderable=self._render, refresh_per_second=4, transient=True)

    def begin(self, folder: Path, jobs: Sequence[Job], waiting: int, workers: int) -> None:
        super().begin(folder, jobs, waiting, workers)
        if waiting:
            self._live.start()

    def say(self, text: str, style: str = "") -> None:
        from rich.text import Text

        self._console.print(Text(text, style=style), soft_wrap=True)

    def finish(self, result: Result) -> None:
        self.close()
        super().finish(result)

    def close(self) -> None:
        self._live.stop()

    def _render(self) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        rows = Table.grid(padding=(0, 2))
        for key, event in sorted(self._running.items()):
            step, total = (event.step, event.total_steps) if isinstance(event, Progressed) else (0, 1)
            metrics = event.metrics if isinstance(event, Progressed) else {}
            shown = "  ".join(f"{name} {number(value)}" for name, value in metrics.items())
            rows.add_row(
                str(key), event.job.label, ProgressBar(total, step, width=20), f"{100 * step // total} %", shown
            )
        left = self.seconds_left
        running = f"{len(self._running)} running" if self._running or self._ended else "loading PyTorch"
        parts = [f"{self._ended}/{self._todo} done", running, f"{self._failed} failed"]
        if self._best is not None:
            name, value, job = self._best
            parts.append(f"best {name} {number(value)} ({job.number}: {job.label})")
        parts += [f"{clock(left)} left"] if left is not None else []
        return Group(rows, Text("  ".join(parts), style="bold"))


def view() -> Lines:
    """As standard output can show it."""
    return Live() if sys.stdout.isatty() and os.environ.get("TERM") != "dumb" else Lines()


def summary_lines(result: Result) -> list[str]:
    """How a sweep ended: how many jobs in which way, the best, what went wrong, and what to type next."""
    folder = os.path.relpath(result.folder)
    counts = ", ".join(f"{count} {WORDS.get(status, status)}" for status, count in result.counts.most_common())
    lines = ["", f"{len(result.jobs)} jobs: {counts}"]
    scored = [(score(result.ended[job.number][1]), job) for job in result.jobs if job.number in result.ended]
    ranked = [(value, name, higher, job) for (name, value, higher), job in scored if value is not None]
    if ranked:
        ranked.sort(key=lambda row: -row[0] if row[2] else row[0])
        lines.append(f"best {ranked[0][1]}:")
        width = max(len(str(row[3].number)) for row in ranked[:SHOWN])
        lines += [f"  {number(row[0])}  {row[3].number:>{width}}  {row[3].label}" for row in ranked[:SHOWN]]
    for job in result.jobs:
        status = result.ended.get(job.number, ("",))[0]
        if status in ("failed", "diverged"):
            lines.append(f"{status}: {job.composed.run_dir.name}: {result.errors.get(job.number) or _why(result, job)}")
    left = sum(job.number not in result.ended or result.ended[job.number][0] == "interrupted" for job in result.jobs)
    again = left or any(result.ended[job.number][0] == "failed" for job in result.jobs if job.number in result.ended)
    lines += [f"go on    {result.again}"] if again else []
    return [*lines, f"compare  dlrun compare {folder}"]


def _why(result: Result, job: Job) -> str:
    summary = result.ended[job.number][1]
    at = summary.get("divergence")
    if at:
        return f"the loss became {at['loss']} at step {at['step']} (lr {at['lr']:.3g})"
    return str(summary.get("error", "see its train.log"))
