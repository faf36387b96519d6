"""What a run says while it trains: a live display on a terminal, plain lines anywhere else.

Every line also goes to the logger "dlrun", from where it reaches train.log, so the log of a run does not depend on
who watched it. There is no background thread: one that redraws would take the interpreter from training, so the
display is drawn when training reports, at most ten times a second.
"""

import logging
import math
import os
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

logger = logging.getLogger("dlrun")
logger.addHandler(logging.NullHandler())  # or Python prints warnings a second time when no train.log is attached

SECONDS_BETWEEN_LINES = 10.0
SECONDS_BETWEEN_DRAWINGS = 0.1
ENDS = {
    "completed": "Completed",
    "early_stopped": "Stopped early, no longer improving",
    "interrupted": "Interrupted",
    "pruned": "Pruned, others do better",
    "diverged": "Diverged",
    "failed": "Failed",
}


@dataclass
class Progress:
    """How far a run has come; what both displays are drawn from.

    Attributes:
        columns: of the table: "epoch", "step", metric names, "lr", "time".
        rows: one per validation: a text for each column, and whether it was the best so far.
        metric: name and value of the monitored metric at the last validation and at its best.
    """

    total_steps: int
    steps_per_epoch: int
    step: int
    loss: float | None = None
    lr: float | None = None
    samples_per_second: float | None = None
    columns: list[str] = field(default_factory=list)
    rows: list[tuple[dict[str, str], bool]] = field(default_factory=list)
    metric: tuple[str, float, float] | None = None
    began: float = field(default_factory=lambda: time.monotonic())
    recent: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=200))

    @property
    def epochs(self) -> int:
        return math.ceil(self.total_steps / self.steps_per_epoch)

    @property
    def epoch(self) -> int:
        """The epoch under way, from 1."""
        return min(self.step // self.steps_per_epoch + 1, self.epochs)

    @property
    def step_in_epoch(self) -> int:
        return self.step - (self.epoch - 1) * self.steps_per_epoch

    @property
    def steps_in_epoch(self) -> int:
        """Steps of this epoch; fewer in a last one that max_steps cuts short."""
        return min(self.steps_per_epoch, self.total_steps - (self.epoch - 1) * self.steps_per_epoch)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    @property
    def seconds_left(self) -> float | None:
        """At the recent pace, validations included; None before there is one."""
        if len(self.recent) < 2 or self.recent[-1][1] <= self.recent[0][1]:
            return None
        (time_a, step_a), (time_b, step_b) = self.recent[0], self.recent[-1]
        return (self.total_steps - self.step) * (time_b - time_a) / (step_b - step_a)

    def status(self) -> str:
        """Loss, metric, learning rate and speed, as far as known."""
        parts = [f"loss {number(self.loss)}"] if self.loss is not None else []
        if self.metric:
            name, last, best = self.metric
            parts.append(f"{name} {number(last)} (best {number(best)})")
        parts += [f"lr {self.lr:.3g}"] if self.lr is not None else []
        parts += [f"{self.samples_per_second:,.0f} samples/s"] if self.samples_per_second else []
        return "  ".join(parts)


class View(Protocol):
    """A way to show a run."""

    def say(self, text: str, style: str = "") -> None:
        """Show a line that stays."""

    def draw(self, progress: Progress) -> None:
        """Show how far the run has come."""

    def progressed(self, line: str) -> None:
        """Ten seconds have passed without a line; `line` says how it goes."""

    def evaluated(self, line: str) -> None:
        """A row was added to the table; `line` is it as text."""

    def finish(self, title: str, rows: Sequence[tuple[str, str]], lines: Sequence[str], status: str) -> None:
        """Show how the run ended."""

    def close(self) -> None:
        """Leave the terminal as it was."""


class Plain:
    """Lines on standard output."""

    def say(self, text: str, style: str = "") -> None:
        print(text, flush=True)

    def draw(self, progress: Progress) -> None:
        pass

    def progressed(self, line: str) -> None:
        self.say(line)

    def evaluated(self, line: str) -> None:
        self.say(line)

    def finish(self, title: str, rows: Sequence[tuple[str, str]], lines: Sequence[str], status: str) -> None:
        for line in ["", title, *(f"  {label:<8}{text}" for label, text in rows), *lines]:
            self.say(line)

    def close(self) -> None:
        pass


class Quiet(Plain):
    """Nothing at all: for notebooks, or when the terminal or the reader of the pipe has gone."""

    def say(self, text: str, style: str = "") -> None:
        pass


class Console:
    """Tells a person and the log how a run goes. Call `begin` first; `close` in every case, it may be called twice.

    Args:
        interactive: a live display, or plain lines; None decides by whether standard output is a terminal.
        view: another way to show the run; it replaces both.
    """

    def __init__(self, interactive: bool | None = None, *, view: View | None = None) -> None:
        if interactive is None:
            interactive = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self._view = view or (_live() if interactive else Plain())
        self._progress = Progress(1, 1, 0)
        self._drawn = self._lined = -math.inf

    def begin(
        self, title: str, lines: Sequence[str], total_steps: int, steps_per_epoch: int, start_step: int = 0
    ) -> None:
        """Announce a run.

        Args:
            title: what is trained; `lines`: more about it.
            total_steps: of the whole run; `start_step`: those already done, by a run that is resumed.
        """
        self._progress = Progress(total_steps, steps_per_epoch, start_step)
        self._progress.recent.append((self._progress.began, start_step))
        self._lined = self._progress.began
        self._say(title, style="bold")
        for line in lines:
            self._say(line)

    def progress(self, step: int, loss: float | None, lr: float, samples_per_second: float) -> None:
        """Steps were taken. Cheap: microseconds, unless it is time to draw."""
        now = time.monotonic()
        state = self._progress
        state.step, state.lr, state.samples_per_second = step, lr, samples_per_second
        state.loss = loss if loss is not None else state.loss
        state.recent.append((now, step))
        if now - self._lined >= SECONDS_BETWEEN_LINES:
            self._lined = now
            left = f"  {clock(state.seconds_left)} left" if state.seconds_left is not None else ""
            line = f"epoch {state.epoch}/{state.epochs}  step {step}/{state.total_steps}  {state.status()}{left}"
            logger.info(line)
            self._show("progressed", line)
        self._draw(now)

    def evaluated(self, epoch: int, step: int, metrics: Mapping[str, float], monitor: str, is_best: bool) -> None:
        """A validation is done.

        Args:
            epoch: completed when the validation was made, or under way.
            metrics: "train/loss", "val/loss", "val/accuracy", …; also "lr" if known better than from `progress`.
            monitor: the metric that decides which is best.
        """
        state = self._progress
        state.step = step
        state.lr = metrics.get("lr", state.lr)
        if monitor in metrics:
            best = metrics[monitor] if is_best or not state.metric else state.metric[2]
            state.metric = (monitor, metrics[monitor], best)
        state.columns = state.columns or _columns(metrics, monitor)
        whole = step % state.steps_per_epoch == 0
        cells = {"epoch": str(epoch) if whole else f"{step / state.steps_per_epoch:.2f}", "step": str(step)}
        cells |= {name: number(metrics[name]) if name in metrics else "" for name in state.columns[2:-2]}
        cells |= {"lr": f"{state.lr:.3g}" if state.lr is not None else "", "time": clock(state.seconds)}
        state.rows.append((cells, is_best))
        line = _line(cells, state, is_best)
        logger.info(line)
        self._lined = time.monotonic()
        self._show("evaluated", line)
        self._draw(self._lined)

    def note(self, text: str) -> None:
        """Say something worth knowing."""
        self._say(text)

    def warn(self, text: str) -> None:
        """Say something that should not be overlooked."""
        logger.warning(text)
        self._show("say", f"warning: {text}", "yellow")

    def finish(self, summary: Mapping[str, Any], lines: Sequence[str]) -> None:
        """Show how the run ended.

        Args:
            summary: as in summary.json.
            lines: where the run is, how to see and repeat it.
        """
        status = str(summary.get("status", "completed"))
        title, rows = ENDS.get(status, status), summary_rows(summary)
        for line in [title, *(f"{label}: {text}" for label, text in rows), *lines]:
            logger.info(line)
        self._show("finish", title, rows, list(lines), status)

    def close(self) -> None:
        """Give the terminal back. May be called at any time, and again."""
        self._show("close")

    def _say(self, text: str, style: str = "") -> None:
        logger.info(text)
        self._show("say", text, style)

    def _draw(self, now: float) -> None:
        """Draw, unless that was done a moment ago: short epochs would else draw hundreds of times a second."""
        if now - self._drawn >= SECONDS_BETWEEN_DRAWINGS:
            self._drawn = now
            self._show("draw", self._progress)

    def _show(self, what: str, *arguments: Any) -> None:
        """Show something; a terminal that is gone does not stop the training."""
        try:
            getattr(self._view, what)(*arguments)
        except OSError:
            self._view = Quiet()
            logger.warning("nobody reads standard output any more; training goes on")


def number(value: float) -> str:
    """Four decimals where that says enough, else four digits with an exponent."""
    return f"{value:.4f}" if value == 0 or 1e-2 <= abs(value) < 1e4 or not math.isfinite(value) else f"{value:.3e}"


def clock(seconds: float) -> str:
    """3.1 s, 2:05 or 1:02:05."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def summary_rows(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The lines of a summary: what went wrong, the best epoch, the metrics of each split, time."""
    rows = [("error", " ".join(str(summary["error"]).split()))] if summary.get("error") else []
    best = summary.get("best") or {}
    if best:
        monitor = summary.get("monitor")
        measured = [item for item in _numbers(best.get("metrics")).items() if item[0].startswith("val/")]
        measured.sort(key=lambda item: item[0] != monitor)  # what decided comes first
        values = "  ".join(f"{name} {number(value)}" for name, value in measured)
        when = f"epoch {best['epoch']:g}  " if best.get("epoch") is not None else ""
        rows.append(("best", when + values))
    splits: dict[str, list[str]] = {}
    for name, value in _numbers(summary.get("metrics")).items():
        split, _, metric = name.rpartition("/")
        splits.setdefault(split or "metrics", []).append(f"{metric} {number(value)}")
    rows += [(split, "  ".join(values)) for split, values in splits.items()]
    facts = [clock(float(summary["seconds"]))] if summary.get("seconds") is not None else []
    facts += [f"{summary['epochs']:g} epochs"] if summary.get("epochs") is not None else []
    facts += [f"{summary['steps']} steps"] if summary.get("steps") is not None else []
    facts += [f"{summary['samples_per_second']:,.0f} samples/s"] if summary.get("samples_per_second") else []
    return [*rows, ("time", ", ".join(facts))] if facts else rows


def _numbers(values: Any) -> dict[str, float]:
    pairs = values.items() if isinstance(values, Mapping) else ()
    return {str(name): float(value) for name, value in pairs if isinstance(value, int | float)}


def _columns(metrics: Mapping[str, float], monitor: str) -> list[str]:
    """What the table shows: both losses and the metric that matters."""
    chosen = [name for name in ("train/loss", "val/loss") if name in metrics]
    others = [
        name for name in (monitor, *metrics) if name.startswith("val/") and name in metrics and name not in chosen
    ]
    return ["epoch", "step", *chosen, *others[:1], "lr", "time"]


def _line(cells: Mapping[str, str], state: Progress, is_best: bool) -> str:
    """A row of the table as one line that can be read alone."""
    epochs, steps = len(str(state.epochs)), len(str(state.total_steps))
    parts = [f"epoch {cells['epoch']:>{epochs}}/{state.epochs}", f"step {cells['step']:>{steps}}"]
    parts += [f"{name} {cells[name]:<9}" for name in state.columns[2:-2]]
    return "  ".join([*parts, f"lr {cells['lr']:<8}", f"{cells['time']:>7}", "*" if is_best else ""]).rstrip()


def _live() -> View:
    from dlrun.runs.live import Live  # rich takes 0.1 s to load, and only a terminal needs it

    return Live()
