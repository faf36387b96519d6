"""A worker process: does one job after the other, each as `dlrun train` or `dlrun resume` would."""

from __future__ import annotations

import faulthandler
import gc
import os
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from dlrun.errors import DlrunError
from dlrun.runs.console import Console, Progress, Quiet
from dlrun.runs.files import write_json, write_text
from dlrun.startup import loading
from dlrun.sweeps.jobs import DONE, OUTPUT, Job
from dlrun.sweeps.watch import resident_bytes

with loading():
    import torch

    from dlrun.engine.training import Training
    from dlrun.experiment import resume, train
    from dlrun.report import curves  # matplotlib, once for all workers
    from dlrun.session import RunFailedError
    from dlrun.stacked.train import train_stack

    assert curves

SECONDS_BETWEEN_REPORTS = 0.3


def work(connection: Connection, threads: int) -> NoReturn:
    """Serve jobs until the other end closes."""
    torch.set_num_threads(threads)
    code = 0
    try:
        while True:
            jobs, forced = connection.recv()
            if len(jobs) == 1:
                connection.send(("ended", 0, *do(jobs[0], connection)))
            else:
                do_together(jobs, forced, connection)
            gc.collect()
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()
            connection.send(("idle", 0, _memory()))
    except (EOFError, ConnectionError):
        pass  # nobody waits for an answer
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)  # what the nursery has registered to be done at its end is not for its children to do


def do(job: Job, connection: Connection) -> tuple[dict[str, Any], str | None]:
    """Train or resume. Returns: the summary, and what went wrong."""
    run, reporter = job.run, _Reporter(connection, 0)
    judge = reporter.judge if job.ask else None
    if job.status in DONE:  # by a process that ended before it could say so
        return run.read_json(run.summary), None
    error = None
    try:
        with _output_to(run.path / OUTPUT):
            console = Console(view=reporter)
            if run.config.exists():
                resume(run, console, judge)
            else:
                train(job.composed, console, judge)
    except Exception as failure:
        error = _told(failure)
        if not isinstance(failure, RunFailedError):  # which has left its traces itself
            _record_failure(job, failure, error)
    return run.read_json(run.summary), error


def do_together(jobs: Sequence[Job], forced: bool, connection: Connection) -> None:
    """Train several as one stack, and say how each ended; or that those that have not are to be done alone."""
    consoles = [Console(view=_Reporter(connection, place)) for place, _ in enumerate(jobs)]
    error: str | None = None
    try:
        with _output_to(jobs[0].run.path / OUTPUT):
            train_stack([job.composed for job in jobs], consoles, forced=forced)
    except Exception as failure:
        error = _told(failure)
    for place, job in enumerate(jobs):
        summary = job.run.read_json(job.run.summary)
        if error is None or summary:
            connection.send(("ended", place, summary, summary.get("error", error)))
    if error is not None:  # what is wrong with which, shows alone
        connection.send(("apart", 0, error))


class _Reporter(Quiet):
    """Says how a run goes by the connection, and nothing on the terminal."""

    def __init__(self, connection: Connection, place: int) -> None:
        self._connection, self._place, self._told = connection, place, 0.0

    def draw(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self._told >= SECONDS_BETWEEN_REPORTS:
            self._told = now
            metrics = {progress.metric[0]: progress.metric[1]} if progress.metric else {}
            self._send("progressed", progress.step, progress.total_steps, metrics)

    def judge(self, training: Training, metrics: dict[str, float]) -> None:
        """Ask whether the run is to go on, and wait for the answer."""
        self._send("evaluated", training.step, training.progress, dict(metrics))
        if self._connection.recv() and training.status == "running":
            training.status = "pruned"

    def _send(self, kind: str, *values: Any) -> None:
        try:
            self._connection.send((kind, self._place, *values))
        except OSError:
            os._exit(1)  # nobody waits for this run any more; what it has saved is enough to go on from


def _memory() -> dict[str, int]:
    """What this process holds now, and held at most on a GPU, in bytes."""
    found = {"resident": resident_bytes(os.getpid()) or 0}
    if torch.cuda.is_initialized():
        found["gpu_peak"] = torch.cuda.max_memory_reserved()
        found["gpu_total"] = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
        found["gpu_held"] = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
    return found


def _record_failure(job: Job, failure: Exception, error: str) -> None:
    """Leave a traceback and a summary where the run itself has not come to it."""
    run = job.run
    with suppress(OSError):
        run.path.mkdir(parents=True, exist_ok=True)
        write_text(run.traceback, "".join(traceback.format_exception(failure)))
        write_json(run.summary, {"status": "failed", "error": error})


@contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Send all that is printed meanwhile, also by C code and by Python as it crashes, to a file; none stays empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        kept = [os.dup(1), os.dup(2)]
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
        faulthandler.enable(file)
        try:
            yield
        finally:
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError):
                    stream.flush()
            faulthandler.disable()
            for descriptor, old in zip((1, 2), kept, strict=True):
                os.dup2(old, descriptor)
                os.close(old)
    with suppress(OSError):
        if path.stat().st_size == 0:
            path.unlink()


def _told(failure: Exception) -> str:
    """What went wrong, on one line."""
    kind = "" if isinstance(failure, DlrunError) else f"{type(failure).__name__}: "
    return kind + " ".join(str(failure).split())
