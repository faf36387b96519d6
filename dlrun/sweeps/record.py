"""sweep.json: what a sweep was asked for and where it stands. The truth about a job is in its own folder."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlrun.errors import UsageError
from dlrun.runs.directory import SWEEPS
from dlrun.runs.files import write_json
from dlrun.runs.selection import find_folder

if TYPE_CHECKING:
    from dlrun.sweeps.jobs import Job

NAME = "sweep.json"
SECONDS_BETWEEN_WRITES = 1.0


class SweepRecord:
    """A sweep's folder.

    Attributes:
        content: as in sweep.json.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.path = self.folder / NAME
        self.content = self._read()
        self._written = 0.0

    def known(self) -> dict[str, tuple[int, str]]:
        """Number and folder, below this one, of every job that was ever asked for here, by its id."""
        return {job["id"]: (job["number"], job["folder"]) for job in self.content.get("jobs", [])}

    def begin(self, asked: Mapping[str, Any], jobs: Sequence[Job]) -> None:
        """Note what is asked for; jobs of an earlier time that are not asked for again stay listed."""
        now = _now()
        entries = {job["id"]: job for job in self.content.get("jobs", [])}
        for job in jobs:
            entries[job.id] = {
                "number": job.number,
                "id": job.id,
                "folder": os.path.relpath(job.composed.run_dir, self.folder),
                "label": job.label,
                "overrides": job.composed.overrides,
                "status": job.status,
            }
        self.content = {
            "id": sweep_id(list(entries)),
            "status": "running",
            "started": self.content.get("started", now),
            "updated": now,
            **asked,
            "jobs": sorted(entries.values(), key=lambda entry: entry["number"]),
        }
        self._entries = {entry["id"]: entry for entry in self.content["jobs"]}
        self._write()

    def note(self, job: Job, status: str, **more: Any) -> None:
        """A job has come to a status; written soon, or with the next."""
        entry = self._entries[job.id]
        entry.pop("error", None)
        entry |= {"status": status} | {key: value for key, value in more.items() if value is not None}
        if time.monotonic() - self._written > SECONDS_BETWEEN_WRITES:
            self._write()

    def end(self, status: str) -> None:
        self.content["status"] = status
        self._write()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep another sweep out of this folder. Raises: UsageError if one is in it, or it cannot be written."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / ".lock").open("w")
        except OSError as error:
            raise UsageError(f"cannot write the sweep's folder {error.filename}: {error.strerror}.") from None
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UsageError(
                    f"{self.folder} is being worked on by another sweep; wait for it, or stop it."
                ) from None
            self.content = self._read()
            yield

    def _read(self) -> dict[str, Any]:
        if not self.path.exists():
            return {}
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            assert isinstance(content["jobs"], list)
        except (OSError, ValueError, KeyError, TypeError, AssertionError):
            raise UsageError(f"{self.path} cannot be read; move it away, and its jobs begin anew.") from None
        return dict(content)

    def _write(self) -> None:
        self._written = time.monotonic()
        self.content["updated"] = _now()
        with suppress(OSError):  # a full disk: the jobs' own folders say how they stand
            write_json(self.path, self.content)


def sweep_id(jobs: Sequence[str]) -> str:
    """Eight hexadecimal digits, the same for the same jobs in whatever order."""
    return hashlib.sha256(",".join(sorted(jobs)).encode()).hexdigest()[:8]


def folder_for(identity: str, fresh: bool) -> Path:
    """Where the sweep of these jobs is recorded: the folder it already has below outputs/sweeps, else a new one."""
    earlier = sorted(path.parent for path in SWEEPS.glob(f"*_{identity}/{NAME}"))
    if earlier and not fresh:
        return earlier[-1]
    return SWEEPS / f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{identity}"


def find_sweep(word: str) -> Path | None:
    """The folder of the sweep that `word` names, by its path, name or id; None if it names none, or several."""
    return find_folder(word, SWEEPS, NAME)


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
