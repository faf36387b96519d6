"""metrics.jsonl: one JSON object per record, appended as training goes, cut back when a run resumes."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any


class MetricsLog:
    """Appends records to metrics.jsonl.

    A resumed run continues from its checkpoint, so records written after that checkpoint are cut off and written
    again: the file ends as if the run had never stopped.

    Args:
        path: the file.
        length: bytes to keep; None keeps all.
    """

    def __init__(self, path: Path, length: int | None = None) -> None:
        self._file = path.open("ab")
        if length is not None and self._file.tell() > length:
            self._file.truncate(length)
            self._file.seek(0, os.SEEK_END)

    def append(self, record: dict[str, Any]) -> None:
        """Write one record. Raises: OSError (disk full)."""
        self._file.write(json.dumps(record).encode() + b"\n")
        self._file.flush()

    def sync(self) -> int:
        """Bring all records to the disk and return the length of the file in bytes."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        with suppress(OSError):  # what could not be written, `append` has reported
            self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All records; a last line cut short by a crash is left out."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records
