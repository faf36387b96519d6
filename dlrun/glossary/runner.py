"""Measuring several entries, in as many processes as are wanted; one that fails does not keep the others from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

from dlrun.errors import DlrunError
from dlrun.glossary.entry import Entry
from dlrun.glossary.record import Record

Outcome = tuple[Entry, Record | str]  # a record, or what went wrong in one sentence


def _measure(entry: Entry, outputs: Path) -> Record | str:
    from dlrun.glossary.measure import measure  # torch is loaded where it is needed: in the processes that measure

    try:
        return measure(entry, outputs / entry.name)
    except DlrunError as error:
        return str(error)
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())}"


def measure_all(
    entries: Sequence[Entry], outputs: Path, jobs: int, measure: Callable[[Entry, Path], Record | str] = _measure
) -> Iterator[Outcome]:
    """Measure every entry into a folder of its own; outcomes come as they are ready.

    Every measurement runs on one thread, so that `jobs` changes no number.

    Args:
        measure: does one; it must be a function of a module, to be found in other processes.
    """
    if jobs == 1 or len(entries) == 1:
        for entry in entries:
            yield entry, measure(entry, outputs)
        return
    # Those that train take longest, so they go first.
    ordered = sorted(entries, key=lambda entry: entry.runs is None)
    died = []  # with their process, or another's: whose it was shows when each has one of its own
    for entry, outcome in _in_processes(ordered, outputs, jobs, measure):
        if outcome is None:
            died.append(entry)
        else:
            yield entry, outcome
    for entry in died:
        for _, outcome in _in_processes([entry], outputs, 1, measure):
            yield entry, outcome or "its process was killed, perhaps for want of memory"


def _in_processes(
    entries: Sequence[Entry], outputs: Path, jobs: int, measure: Callable[[Entry, Path], Record | str]
) -> Iterator[tuple[Entry, Record | str | None]]:
    """Measure in a pool of processes; None of an entry that was not measured as one of the processes has died."""
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        waiting: dict[Future[Record | str], Entry] = {pool.submit(measure, e, outputs): e for e in entries}
        try:
            for future in as_completed(waiting):
                try:
                    yield waiting[future], future.result()
                except BrokenProcessPool:
                    yield waiting[future], None
        finally:
            pool.shutdown(cancel_futures=True)
