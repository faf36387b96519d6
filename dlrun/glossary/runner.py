"""Measuring several entries, in as many processes as are wanted; one that fails does not keep the others from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from dlrun.errors import DlrunError
from dlrun.glossary.entry import Entry
from dlrun.glossary.record import Record

Outcome = tuple[Entry, Record | str]  # a record, or what went wrong in one sentence


def measure_all(entries: Sequence[Entry], outputs: Path, jobs: int) -> Iterator[Outcome]:
    """Measure every entry into a folder of its own; outcomes come as they are ready.

    Every measurement runs on one thread, so that `jobs` changes no number.
    """
    if jobs == 1 or len(entries) == 1:
        for entry in entries:
            yield entry, _measure(entry, outputs)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        # Those that train take longest, so they go first.
        ordered = sorted(entries, key=lambda entry: entry.runs is None)
        waiting: dict[Future[Record | str], Entry] = {pool.submit(_measure, e, outputs): e for e in ordered}
        try:
            for future in as_completed(waiting):
                yield waiting[future], future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _measure(entry: Entry, outputs: Path) -> Record | str:
    from dlrun.glossary.measure import measure  # torch is loaded where it is needed: in the processes that measure

    try:
        return measure(entry, outputs / entry.name)
    except DlrunError as error:
        return str(error)
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
