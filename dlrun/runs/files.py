"""Writing files so that a reader, also after a power cut, sees the old content or the new, never half of it."""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO


def write_atomically(path: Path, write: Callable[[BinaryIO], None], *, durable: bool = True) -> None:
    """Write to a temporary file beside `path`, flush it to the disk, and rename it into place.

    Args:
        durable: wait until it is on the disk; without, a power cut within seconds may leave it empty.

    Raises: OSError (disk full, no permission); `path` is then as before and no temporary file is left.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    if durable:
        _sync_folder(path.parent)


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Write text atomically, as UTF-8."""
    write_atomically(path, lambda file: _discard(file.write(text.encode())), durable=durable)


def write_json(path: Path, content: Any) -> None:
    """Write JSON for people to read, atomically."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n")


def _sync_folder(folder: Path) -> None:
    """A rename is on the disk only when the folder is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _discard(_: int) -> None:
    return None
