"""Worker processes that do jobs, several at a time. A job that fails, hangs or takes its process with it ends alone."""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any

from dlrun.runs.files import write_json
from dlrun.sweeps.devices import Leases
from dlrun.sweeps.jobs import DONE, Apart, Ended, Evaluated, Event, Job, Progressed, Started
from dlrun.sweeps.nursery import nursery
from dlrun.sweeps.watch import available_bytes, resident_bytes, total_bytes

TICK_SECONDS = 0.1
GRACE_SECONDS = 15.0  # between asking a job to stop and killing it
LEAST_FREE = 0.06  # of the machine's memory: below it the largest job is stopped, before the machine stops something
SECONDS_TO_FREE = 2.0  # that it takes until the memory of a process that was stopped is back
GROWTH_BYTES = 1 << 30  # a worker that holds so much more than after its first job is replaced: something leaks


@dataclass(frozen=True)
class Limits:
    """What a job may take: seconds, and bytes of memory; None: as much as there is."""

    seconds: float | None = None
    bytes: int | None = None


@dataclass(frozen=True)
class _Task:
    """What one worker does at a time: a job, or several as one stack."""

    jobs: list[Job]
    forced: bool


@dataclass(eq=False)
class _Worker:
    """A process, as seen from here.

    Attributes:
        jobs: that it is doing, together; those that have ended are None.
        resident: bytes it held after its first jobs.
        told: when they were asked to end; `why`: what for, if that is a failure.
        late: whether that is because they took too long.
        gone: whether nothing more will come from it.
    """

    pid: int
    connection: Connection
    device: str | None
    jobs: list[Job | None] = field(default_factory=list)
    began: float = 0.0
    resident: int | None = None
    told: float | None = None
    why: str | None = None
    late: bool = False
    gone: bool = False

    @property
    def open(self) -> list[int]:
        """The places of its jobs that have not ended."""
        return [place for place, job in enumerate(self.jobs) if job is not None]


class Pool:
    """Does jobs in worker processes; a context manager, which ends them all.

    Args:
        leases: how many at a time, on which devices.
        limits: of each job.
    """

    def __init__(self, leases: Leases, limits: Limits = Limits()) -> None:
        self.leases, self.limits = leases, limits
        self._waiting: deque[_Task] = deque()
        self._workers: list[_Worker] = []
        self._nursery = nursery()
        self._asked = 0  # to stop, by `stop` or `kill`, which signal handlers call: the loop does it
        self._stopping = False
        self._freed = -SECONDS_TO_FREE  # when a job was last stopped for the machine's memory

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            if worker.jobs:
                _kill(worker)
            worker.connection.close()  # which an idle one takes for the end

    @property
    def size(self) -> int:
        """Jobs at a time."""
        return self.leases.size

    @property
    def busy(self) -> list[Job]:
        """The jobs under way."""
        return [job for worker in self._workers for job in worker.jobs if job is not None]

    def submit(self, *jobs: Job, forced: bool = False) -> None:
        """Let a job be done when a worker is free; several: together, as one stack.

        Args:
            forced: also where a stack is not known to be faster.
        """
        self._waiting.append(_Task(list(jobs), forced))

    def answer(self, job: Job, stop: bool) -> None:
        """Tell a job with `ask` whether it is to end now ("pruned")."""
        for worker in self._workers:
            if any(own is job for own in worker.jobs):
                with suppress(OSError):
                    worker.connection.send(stop)

    def stop(self) -> None:
        """Begin no more jobs, and have those under way save where they are and end as "interrupted"."""
        self._asked = max(self._asked, 1)

    def kill(self) -> None:
        """End what is under way at once; it can be gone on with from its last checkpoint."""
        self._asked = 2

    @property
    def stopping(self) -> bool:
        """Whether no more jobs are begun."""
        return bool(self._asked)

    def events(self) -> Iterator[Event]:
        """What happens, until no job is waiting or under way. Jobs may be submitted meanwhile."""
        while True:
            self._obey()
            yield from self._fill()
            if not any(worker.jobs for worker in self._workers):
                return
            sources: list[Any] = [worker.connection for worker in self._workers if not worker.gone]
            ready = wait([*sources, self._nursery.fileno()], timeout=TICK_SECONDS)
            for worker in [worker for worker in self._workers if worker.connection in ready]:
                yield from self._read(worker)
            for pid, status in self._nursery.ended():
                yield from self._buried(pid, status)
            self._watch()

    def _fill(self) -> Iterator[Event]:
        while self._waiting and not self._asked:
            idle = next((worker for worker in self._workers if not worker.jobs and not worker.gone), None)
            if idle is None:
                if len([worker for worker in self._workers if not worker.gone]) >= self.size:
                    return
                hired = self._hire()
                if hired is None:
                    return
                idle = hired
            task = self._waiting.popleft()
            jobs = task.jobs
            try:
                idle.connection.send((jobs, task.forced))
            except OSError:  # it died between two jobs
                self._waiting.appendleft(task)
                self._dismiss(idle)
                continue
            idle.jobs, idle.began, idle.told, idle.why, idle.late = list(jobs), time.monotonic(), None, None, False
            yield from map(Started, jobs)

    def _obey(self) -> None:
        if self._asked and not self._stopping:
            self._stopping = True
            self._waiting.clear()
            for worker in self._workers:
                if worker.jobs:
                    self._tell_to_stop(worker, None)
        if self._asked == 2:
            for worker in self._workers:
                _kill(worker)

    def _hire(self) -> _Worker | None:
        """One more worker; None if it was asked to stop meanwhile, as it may be while PyTorch loads."""
        device = self.leases.take()
        environment = {} if device is None else {"CUDA_VISIBLE_DEVICES": device}
        born = self._nursery.fork(environment, self.leases.threads, given_up=lambda: self.stopping)
        if born is None:
            self.leases.give_back(device)
            return None
        pid, connection = born
        worker = _Worker(pid, connection, device)
        self._workers.append(worker)
        return worker

    def _read(self, worker: _Worker) -> Iterator[Event]:
        try:
            kind, place, *values = worker.connection.recv()
        except (EOFError, OSError):  # how it ended, the nursery will say
            worker.gone, worker.told = True, worker.told or time.monotonic()
            return
        if kind == "idle":
            worker.jobs = []
            self.leases.learn(values[0])
            too_many = sum(not each.gone for each in self._workers) > self.size  # a larger job has come
            if too_many or self._leaks(worker, values[0]):
                self._dismiss(worker)
            return
        if kind == "apart":
            jobs = [job for job in worker.jobs if job is not None]
            worker.jobs = [None]
            if not self._stopping:
                self._waiting.extendleft(_Task([job], False) for job in reversed(jobs))
            yield Apart(jobs, values[0])
            return
        job = worker.jobs[place]
        assert job is not None
        if kind == "progressed":
            yield Progressed(job, *values)
        elif kind == "evaluated":
            yield Evaluated(job, *values)
        elif kind == "ended":
            summary, error = values
            status = str(summary.get("status", "failed"))
            yield self._ended(worker, place, "failed" if error and status not in DONE else status, summary, error)

    def _buried(self, pid: int, status: int) -> Iterator[Event]:
        """A worker's process has ended; what it has still said is read first."""
        worker = next((worker for worker in self._workers if worker.pid == pid), None)
        if worker is None:
            return
        with suppress(EOFError, OSError):
            while worker.jobs and worker.connection.poll():
                yield from self._read(worker)
                if worker.gone:
                    break
        if len(worker.jobs) > 1 and not worker.late and not self._stopping:  # which of them it was, shows alone
            jobs = [job for place in worker.open if (job := worker.jobs[place]) is not None]
            self._waiting.extendleft(_Task([job], False) for job in reversed(jobs) if job.status not in DONE)
            yield Apart(jobs, worker.why or f"their process {_how(status)}")
            for place in worker.open:
                if (job := worker.jobs[place]) is not None and job.status in DONE:
                    yield self._died(worker, place, status)
        else:
            for place in worker.open:
                yield self._died(worker, place, status)
        worker.jobs = []
        self._dismiss(worker)

    def _died(self, worker: _Worker, place: int, status: int) -> Ended:
        """The end of a job whose process has ended before it; its folder is told."""
        job = worker.jobs[place]
        assert job is not None
        summary = job.run.read_json(job.run.summary)
        if summary.get("status") in DONE:  # it had ended; the process had not come to say so
            return self._ended(worker, place, str(summary["status"]), summary, None)
        if self._stopping and worker.why is None:
            return self._ended(worker, place, "interrupted", summary, None)
        error = worker.why or f"its process {_how(status)}"
        summary = {**summary, "status": "failed", "error": error}
        with suppress(OSError):
            job.run.path.mkdir(parents=True, exist_ok=True)
            write_json(job.run.summary, summary)
        return self._ended(worker, place, "failed", summary, error)

    def _ended(self, worker: _Worker, place: int, status: str, summary: dict[str, Any], error: str | None) -> Ended:
        job, worker.jobs[place] = worker.jobs[place], None
        assert job is not None
        # It did as it was told: by us, which is no success, or by somebody else.
        why = worker.why if worker.why is not None or self._stopping else "its process was asked to end by somebody"
        if why is not None and status == "interrupted":
            status, error = "failed", why
            summary = {**summary, "status": status, "error": error}
            with suppress(OSError):
                write_json(job.run.summary, summary)
        return Ended(job, status, summary, error, time.monotonic() - worker.began)

    def _leaks(self, worker: _Worker, memory: dict[str, int]) -> bool:
        first = worker.resident
        worker.resident = memory["resident"] if first is None else first
        return memory["resident"] - worker.resident > GROWTH_BYTES or memory.get("gpu_held", 0) > GROWTH_BYTES

    def _dismiss(self, worker: _Worker) -> None:
        if worker in self._workers:
            self._workers.remove(worker)
            worker.connection.close()  # it ends when it sees that
            self.leases.give_back(worker.device)

    def _watch(self) -> None:
        """Stop what takes too long or too much."""
        now = time.monotonic()
        busy = [worker for worker in self._workers if worker.open and not worker.gone]
        sizes = {worker.pid: resident_bytes(worker.pid) or 0 for worker in busy}
        for worker in self._workers:
            if worker.told is not None and now - worker.told > GRACE_SECONDS:
                _kill(worker)
        for worker in busy:
            share = len(worker.jobs)  # of a stack, each has its own
            if self.limits.seconds and worker.told is None and now - worker.began > share * self.limits.seconds:
                worker.late = True
                self._tell_to_stop(worker, f"stopped after {self.limits.seconds:g} s, the limit for a job")
            if self.limits.bytes and sizes[worker.pid] > share * self.limits.bytes:
                worker.why = f"stopped as it took more memory than {_size(self.limits.bytes)}, the limit for a job"
                _kill(worker)
        available = available_bytes()
        if available is not None and available < LEAST_FREE * total_bytes() and busy:
            largest = max(busy, key=lambda worker: sizes[worker.pid])
            freed = now - self._freed > SECONDS_TO_FREE
            if largest.why is None and freed and sizes[largest.pid] > LEAST_FREE * total_bytes():
                self._freed = now
                largest.why = (
                    f"stopped at {_size(sizes[largest.pid])}, the largest job, as the machine had only "
                    f"{_size(available)} of memory left"
                )
                _kill(largest)

    def _tell_to_stop(self, worker: _Worker, why: str | None) -> None:
        worker.told, worker.why = time.monotonic(), why
        with suppress(OSError):
            os.kill(worker.pid, signal.SIGTERM)  # training saves and ends; whatever else is done is not worth saving


def _kill(worker: _Worker) -> None:
    with suppress(OSError):
        os.kill(worker.pid, signal.SIGKILL)


def _how(status: int) -> str:
    if status >= 0:
        return f"ended with exit code {status}"
    name = signal.Signals(-status).name
    hint = {"SIGKILL": " (by somebody, or by a system out of memory)", "SIGSEGV": " (a crash in compiled code)"}
    return f"was killed by {name}{hint.get(name, '')}"


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GB"
