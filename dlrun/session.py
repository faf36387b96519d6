"""One sitting of a run: from its beginning or a checkpoint to its end, with all that is recorded meanwhile."""

from __future__ import annotations

import errno
import logging
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from dlrun import assembly, build
from dlrun.assembly import Assembly
from dlrun.contracts import Logger
from dlrun.engine import checkpoint
from dlrun.engine.callbacks import BestWeights, Callback
from dlrun.engine.loop import diverge, fit
from dlrun.engine.memory import INSTEAD, LateMemoryError, is_out_of_memory
from dlrun.engine.meter import DivergedError
from dlrun.engine.statistics import EvaluateAverage
from dlrun.engine.training import Training
from dlrun.errors import CheckpointError, DlrunError
from dlrun.recorded import evaluated_weights, load_teacher, read_checkpoint
from dlrun.report.painter import drawing
from dlrun.runs.console import Console
from dlrun.runs.directory import RunDirectory
from dlrun.runs.files import write_json, write_text
from dlrun.runs.metrics_log import MetricsLog

FINISHED = ("completed", "early_stopped")
Judge = Callable[[Training, dict[str, float]], None]


class GoOnError(Exception):
    """A run is to go on from its last checkpoint, with micro-batches of at most that size."""

    def __init__(self, run: RunDirectory, micro_batch_size: int) -> None:
        super().__init__(run, micro_batch_size)
        self.run, self.micro_batch_size = run, micro_batch_size


class RunFailedError(DlrunError):
    """A run ended with an exception; the run directory holds the traceback."""

    exit_code = 1


class Session:
    """One sitting of a run: from its beginning or a checkpoint to its end, an interruption or a failure."""

    def __init__(
        self, a: Assembly, run: RunDirectory, fingerprint: str, console: Console, judge: Judge | None = None
    ) -> None:
        self.a, self.run, self.console = a, run, console
        build.check_loggers(a.config)
        self.header = assembly.checkpoint_header(a, fingerprint)
        self.loggers: list[Logger] = []
        self.log: MetricsLog | None = None
        self.saved_best: int | None = None
        self.training: Training = assembly.prepare_training(
            a, self.record, [_Report(console, judge)], load_teacher(a), console.warn
        )
        self.training.save, self.training.save_weights = self.save, self.save_weights
        self.micro = self.training.train_step.micro
        self.micro.warn = a.warn = console.warn
        self.best = next(c for c in self.training.callbacks.callbacks if isinstance(c, BestWeights))

    def go(self, state: dict[str, Any] | None, micro_batch_size: int | None = None) -> None:
        """Train to the end and write the summary, whatever happens.

        Raises: GoOnError if memory has run out and training must begin again from the last checkpoint.
        """
        with self.opened(state):
            self.micro.size = min(self.micro.size, micro_batch_size or self.micro.size)
            try:
                self.begin()
                fit(self.training)
                try:
                    finish = self.end()
                except DivergedError as error:  # found as the last losses were read to be saved
                    diverge(self.training, error)
                    finish = self.end()
                finish()
            except LateMemoryError as error:
                self.console.warn(str(error))
                raise GoOnError(self.run, error.micro_batch_size) from None
            except (Exception, KeyboardInterrupt) as error:
                self.fail(error)

    @contextmanager
    def opened(self, state: dict[str, Any] | None) -> Iterator[logging.Handler]:
        """Hold the run directory and write to it meanwhile, from a checkpoint on. Yields: what writes train.log."""
        with ExitStack() as stack:
            handler = stack.enter_context(self.run.logged())
            stack.callback(self.console.close)
            stack.enter_context(self.run.locked())
            self.restore(state)
            stack.callback(self._close_loggers)
            yield handler

    def restore(self, state: dict[str, Any] | None) -> None:
        """Take up a checkpoint: training, best weights, and the records written until then."""
        for unfinished in self.run.checkpoints.glob(".*.tmp"):  # of a process killed while it was saving
            unfinished.unlink()
        self.log = MetricsLog(self.run.metrics, 0 if state is None else state["metrics_length"])
        if state is not None:
            self.training.load_state_dict(state["state"])
        if self.best.best is not None:
            content = read_checkpoint(self.run, "best")
            self.best.weights, self.saved_best = evaluated_weights(content), self.best.best["step"]
        self.loggers = build.build_loggers(self.a.config, str(self.run.path), self.training.step)

    def record(self, values: dict[str, Any]) -> None:
        """One record for metrics.jsonl and the loggers."""
        self.training.tick()
        head = {"step": values["step"], "epoch": round(values["epoch"], 6), "time": round(self.training.seconds, 3)}
        record = head | values | head
        assert self.log is not None
        self.log.append(record)
        for logger in self.loggers:
            logger.log(record)

    def save(self) -> None:
        """Write best.pt if it has changed, then last.pt, which may then rely on it."""
        assert self.log is not None
        best = self.best.best
        if best is not None and best["step"] != self.saved_best and self.best.weights is not None:
            content = {**self.header, **best, "model": self.best.weights}
            checkpoint.save(self.run.best, content)
            self.saved_best = best["step"]
        self._settle()
        state = self.training.state_dict()  # drains the losses first: a divergence is found before it is saved
        content = {**self.header, "metrics_length": self.log.sync(), "state": state}
        checkpoint.save(self.run.last, content, previous=self.run.previous)

    def save_weights(self, name: str) -> None:
        """Write the evaluated weights to checkpoints/NAME.pt, in the form of best.pt."""
        self._settle()
        t = self.training
        weights = t.evaluated_model.state_dict()
        content = {**self.header, "epoch": t.progress, "step": t.step, "model": weights}
        checkpoint.save(self.run.checkpoints / f"{name}.pt", content)

    def _settle(self) -> None:
        """Let an average of weights that is saved have the statistics that belong to it."""
        if isinstance(self.training.validate, EvaluateAverage):
            self.training.validate.settle()

    def begin(self) -> None:
        """Say what is about to be trained."""
        self.run.traceback.unlink(missing_ok=True)
        t, a = self.training, self.a
        sizes = ", ".join(f"{len(getattr(a.splits, name)):,} {name}" for name in ("train", "val", "test"))
        self.console.begin(
            str(a.config.get("name", "")),
            [
                f"data {a.spec.name}: {sizes} · {a.spec.kind.plural} {a.spec.shape} · {a.spec.task.value}",
                f"model {type(t.model).__name__}: {a.parameters:,} parameters · {a.device} · {a.precision.name}",
                f"run {self.run}",
                *a.notes,
            ],
            t.total_steps,
            t.loader.steps_per_epoch,
            t.step,
        )
        if a.precision.warning:
            self.console.warn(a.precision.warning)
        if t.total_steps == 0:
            self.console.warn("The model has no trainable parameters: it is evaluated and not trained.")

    def end(self) -> Callable[[], None]:
        """Save, and test a run that is finished. Returns: what is left to do once the curves are drawn."""
        t = self.training
        if t.status == "diverged":
            return partial(self._finish, {})
        if t.status not in FINISHED:
            self.save()
            return partial(self._finish, {})
        plot = self.run.plots / "curves.png"
        drawn = self._drawing(plot)
        self.save()
        metrics = self._test()

        def finish() -> None:
            drawn()
            self._finish(metrics, plot)

        return finish

    def _test(self) -> dict[str, float]:
        """Test once, on the best weights if early stopping restores them, else on the last; or not, if so asked."""
        if not self.a.settings.test:
            return {}
        t, stopping = self.training, self.a.settings.early_stopping
        if stopping is not None and stopping.restore_best and self.best.weights is not None:
            t.evaluated_model.load_state_dict(self.best.weights)
        metrics = {f"test/{name}": value for name, value in self.a.evaluator("test")(t.evaluated_model).items()}
        self.record({"step": t.step, "epoch": t.progress, **metrics})
        return metrics

    def _drawing(self, path: Path) -> Callable[[], None]:
        """Begin to draw the curves. Returns: a function that waits for them."""
        best = self.best.best
        return drawing(
            self.run.metrics,
            path,
            metric=self.training.monitor.removeprefix("val/"),
            best_step=best["step"] if best else None,
            title=str(self.a.config.get("name", "")),
        )

    def _summary(self, metrics: Mapping[str, float], error: str | None = None) -> dict[str, Any]:
        t, best = self.training, self.best.best
        training_seconds = max(t.seconds - t.validation_seconds, 1e-9)
        summary: dict[str, Any] = {
            "status": t.status if error is None else "failed",
            "epochs": round(t.progress, 6),
            "steps": t.step,
            "seconds": round(t.seconds, 3),
            "samples_per_second": round(t.samples / training_seconds, 1),
            "parameters": self.a.parameters,
            "monitor": t.monitor,
            "higher_is_better": t.higher_is_better,
            "best": best and {key: best[key] for key in ("epoch", "step", "metrics")},
            "metrics": dict(metrics),
        }
        if t.status == "interrupted":
            summary["signal"] = int(t.interrupt.requested)
        if self.micro.size < self.micro.configured:
            summary["micro_batch_size"] = self.micro.size  # memory would not hold what was configured
        if t.divergence:
            summary["divergence"] = t.divergence
        return summary | ({"error": error} if error else {})

    def _finish(self, metrics: Mapping[str, float], plot: Path | None = None) -> None:
        summary = self._summary(metrics)
        write_json(self.run.summary, summary)
        self.console.finish(summary, _advice(self.run, summary, plot))

    def fail(self, error: BaseException) -> None:
        """Keep what there is: traceback, summary, log. Raises: always, what the user is to read."""
        if isinstance(error, KeyboardInterrupt):
            raise error
        text = "".join(traceback.format_exception(error))
        with suppress(OSError):  # the disk may be full: that may be why we are here
            write_text(self.run.traceback, text)
        with suppress(OSError):
            write_json(self.run.summary, self._summary({}, f"{type(error).__name__}: {error}"))
        if isinstance(error, CheckpointError):
            raise error
        reason = error if isinstance(error, DlrunError) else f"{type(error).__name__}: {' '.join(str(error).split())}"
        if is_out_of_memory(error):
            reason = f"out of memory ({reason}): {INSTEAD}"
        where = f" (traceback in {self.run.traceback})" if self.run.traceback.exists() else ""
        is_full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        way_out = f"; once there is room: dlrun resume {self.run}" if is_full else ""
        raise RunFailedError(f"the run failed at step {self.training.step}: {reason}{where}{way_out}") from error

    def _close_loggers(self) -> None:
        for logger in self.loggers:
            logger.close()
        if self.log is not None:
            self.log.close()


class _Report(Callback):
    """Tells the console how training goes, and lets whoever judges it speak."""

    def __init__(self, console: Console, judge: Judge | None) -> None:
        self.console, self.judge = console, judge
        self.loss: float | None = None

    def on_log(self, training: Training, record: dict[str, Any]) -> None:
        self.loss = record["train/step_loss"]
        seconds = max(training.seconds - training.validation_seconds, 1e-9)
        self.console.progress(training.step, self.loss, record["lr"], training.samples / seconds)

    def on_validate(self, training: Training, metrics: dict[str, float]) -> None:
        best = next(c for c in training.callbacks.callbacks if isinstance(c, BestWeights)).best
        is_best = best is not None and best["step"] == training.step
        seconds = max(training.seconds - training.validation_seconds, 1e-9)
        self.console.progress(training.step, self.loss, training.lr, training.samples / seconds)
        self.console.evaluated(
            round(training.progress), training.step, {**metrics, "lr": training.lr}, training.monitor, is_best
        )
        if self.judge is not None:
            self.judge(training, metrics)


def _advice(run: RunDirectory, summary: Mapping[str, Any], plot: Path | None) -> list[str]:
    """Where things are and what to type next."""
    lines = []
    if summary["status"] in ("interrupted", "pruned"):
        lines.append(f"resume   dlrun resume {run}")
    if summary["status"] == "diverged":
        at = summary["divergence"]
        norm = at["gradient_norm"]
        known = f", gradient norm {norm[1]:.3g} at step {norm[0]}" if norm else ""
        lines.append(f"the loss became {at['loss']} at step {at['step']} (lr {at['lr']:.3g}{known})")
        lines.append(
            "try      a smaller optimizer.lr, scheduler.warmup=10%, trainer.clip.norm=1, trainer.precision=fp32"
        )
    if plot is not None:
        lines.append(f"curves   {RunDirectory(plot)}")
    if summary["status"] in FINISHED:
        lines.append(f"evaluate dlrun evaluate {run}")
    lines.append(f"again    dlrun train --config-path {run} --config-name config")
    return lines
