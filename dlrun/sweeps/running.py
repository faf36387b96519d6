"""One sweep from beginning to end: what is finished stays, what was interrupted goes on, what failed is tried again."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from dlrun.config.schema import Launcher
from dlrun.errors import UsageError
from dlrun.stacked.plan import obstacle, parts, stacks
from dlrun.sweeps.devices import Leases
from dlrun.sweeps.interruption import Interrupted
from dlrun.sweeps.jobs import DONE, GOOD, OUTPUT, Apart, Ended, Event, Job, Started
from dlrun.sweeps.pool import Limits, Pool
from dlrun.sweeps.record import SweepRecord
from dlrun.sweeps.units import byte_count, seconds_of
from dlrun.sweeps.watch import resident_bytes


class View(Protocol):
    """A way to show a sweep."""

    def begin(self, folder: Path, jobs: Sequence[Job], waiting: int, workers: int) -> None:
        """So many of the jobs are to be done now, so many at a time."""

    def event(self, event: Event) -> None:
        """Something has happened to a job."""

    def say(self, text: str) -> None:
        """Show a line."""

    def finish(self, result: Result) -> None:
        """All is done that will be."""

    def close(self) -> None:
        """Leave the terminal as it was."""


@dataclass
class Result:
    """How a sweep ended.

    Attributes:
        status: "completed" when no job is left to do, else "failed" or "interrupted".
        ended: status and summary of every job that has ended, now or before, by number.
        errors: what went wrong with a job, by number.
        again: what to type to go on.
    """

    folder: Path
    jobs: list[Job]
    again: str = "the same command again"
    status: str = "completed"
    ended: dict[int, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    errors: dict[int, str] = field(default_factory=dict)

    @property
    def counts(self) -> Counter[str]:
        """Jobs by status."""
        return Counter(self.ended[job.number][0] if job.number in self.ended else "waiting" for job in self.jobs)

    @property
    def exit_code(self) -> int:
        """0 if every job has ended well, 130 for an interruption, else 1."""
        if self.status == "interrupted":
            return 128 + signal.SIGINT
        return 0 if all(self.ended.get(job.number, ("",))[0] in GOOD for job in self.jobs) else 1


def run_sweep(
    wanted: Sequence[Job],
    folder: Path,
    settings: Launcher,
    asked: Mapping[str, Any],
    view: View,
    name: Callable[[Job], str],
) -> Result:
    """Do the jobs that are not done yet, and record where the sweep stands.

    Args:
        wanted: without folders, in order; of equal ones the first counts.
        asked: noted in sweep.json, so that the sweep can be gone on with.
        name: the name of a job's folder, for those that have none yet.

    Raises: UsageError if the folder cannot be had.
    """
    limits = Limits(
        seconds_of(settings.timeout, "hydra.launcher.timeout"), byte_count(settings.memory, "hydra.launcher.memory")
    )
    if limits.bytes and resident_bytes(os.getpid()) is None:
        raise UsageError("hydra.launcher.memory needs Linux, which tells what a process holds; leave it at null.")
    record = SweepRecord(folder)
    with record.locked():
        jobs = placed(wanted, record, name)
        record.begin(asked, jobs)
        result = Result(record.folder, jobs)
        if "words" in asked:
            result.again = f"dlrun resume {os.path.relpath(record.folder)}"
        todo = unfinished(jobs, result)
        if len(jobs) < len(wanted):
            view.say(f"{len(wanted) - len(jobs)} of the {len(wanted)} jobs are equal to others and run once.")
        leases = Leases([job.composed.config for job in todo], settings.jobs, settings.per_device)
        view.begin(record.folder, jobs, len(todo), min(leases.size, max(1, len(todo))))
        if todo:
            try:
                with Pool(leases, limits) as pool:
                    _do(pool, todo, settings, record, result, view)
            except BaseException:
                view.close()
                record.end("interrupted")
                raise
        record.end(result.status)
    view.finish(result)
    return result


def placed(wanted: Sequence[Job], record: SweepRecord, name: Callable[[Job], str]) -> list[Job]:
    """The jobs with their folders: those they had before, else new ones whose numbers are free."""
    known, jobs, seen = record.known(), [], set[str]()
    taken = {number for number, _ in known.values()}
    free = iter(number for number in range(len(wanted) + len(taken) + 1) if number not in taken)
    for job in wanted:
        identity = job.id
        if identity in seen:
            continue
        seen.add(identity)
        number = known[identity][0] if identity in known else next(free)
        job = replace(job, number=number)
        job.composed = replace(
            job.composed, run_dir=record.folder / (known[identity][1] if identity in known else name(job))
        )
        if identity not in known:
            _refuse_taken(job, record)
        jobs.append(job)
    folders = Counter(job.composed.run_dir for job in jobs)
    twice = next((folder for folder, count in folders.items() if count > 1), None)
    if twice is not None:
        raise UsageError(
            f"hydra.sweep.subdir gives several jobs the folder {twice.name}; let it name what differs, or put "
            "${hydra.job.num} into it."
        )
    return jobs


def _refuse_taken(job: Job, record: SweepRecord) -> None:
    """Raises: UsageError if a job's folder is not below the sweep's, or holds a run that is not this job."""
    folder = job.composed.run_dir.resolve()
    if folder == record.folder.resolve() or not folder.is_relative_to(record.folder.resolve()):
        raise UsageError(f"hydra.sweep.subdir must be a folder in the sweep's, got {folder}.")
    holder = job.run.read_json(job.run.provenance).get("run_id")
    if job.run.config.exists() and holder != job.id:
        raise UsageError(f"{job.run} holds another run; choose another hydra.sweep.dir.")


def unfinished(jobs: Sequence[Job], result: Result) -> list[Job]:
    """The jobs that are to be done; of the others, what they came to is put into `result`.

    What one left that failed before it became a run is removed, for it is done from the beginning.
    """
    todo = []
    for job in jobs:
        if job.status in DONE:
            result.ended[job.number] = job.status, job.run.read_json(job.run.summary)
            continue
        todo.append(job)
        if not job.run.config.exists():
            for path in (job.run.summary, job.run.traceback, job.run.path / OUTPUT):
                path.unlink(missing_ok=True)
    return todo


def _do(pool: Pool, todo: Sequence[Job], settings: Launcher, record: SweepRecord, result: Result, view: View) -> None:
    tries: Counter[int] = Counter()
    if settings.stack is True:
        for reason in dict.fromkeys(filter(None, (obstacle(job.composed.config) for job in todo))):
            view.say(reason)
    for jobs in together(todo, settings, pool.size):
        pool.submit(*jobs, forced=settings.stack is True)
    with Interrupted(pool) as interrupted:
        for event in pool.events():
            if isinstance(event, Ended):
                number = event.job.number
                tries[number] += 1
                if event.status == "failed" and tries[number] <= settings.retries and not interrupted.count:
                    view.say(f"job {number} failed and is tried again: {event.error}")
                    record.note(event.job, "waiting")
                    pool.submit(event.job)
                    continue
            view.event(event)
            if isinstance(event, Started):
                record.note(event.job, "running")
            if isinstance(event, Apart):
                for job in event.jobs:
                    record.note(job, "waiting")
                if settings.stack is True:
                    view.say(f"{len(event.jobs)} jobs are trained one by one: {event.why}")
            if not isinstance(event, Ended):
                continue
            number = event.job.number
            result.ended[number] = event.status, event.summary
            if event.error:
                result.errors[number] = event.error
            record.note(event.job, event.status, error=event.error, seconds=round(event.seconds, 2))
            if event.status == "failed" and settings.fail_fast and not interrupted.count:
                view.say("hydra.launcher.fail_fast: the others are stopped where they are.")
                result.status = "failed"
                pool.stop()
    if interrupted.count:
        result.status = "interrupted"
    elif any(status == "failed" for status, _ in result.ended.values()):
        result.status = "failed"


def together(todo: Sequence[Job], settings: Launcher, workers: int) -> list[list[Job]]:
    """The jobs in the groups in which they are done: alone, or several that are trained as one stack.

    Those that have begun go on alone. Whether a stack is worth it, the worker can tell.
    """
    if settings.stack is False:
        return [[job] for job in todo]
    fresh = [job for job in todo if not job.run.config.exists() and not job.ask]
    dealt = [part for stack in stacks([job.composed.config for job in fresh]) for part in parts(stack, workers)]
    groups = [[fresh[place] for place in part] for part in dealt if len(part) > 1]
    stacked = {id(job) for group in groups for job in group}
    return groups + [[job] for job in todo if id(job) not in stacked]
