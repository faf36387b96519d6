"""Checkpoints: written atomically, verified before they are believed, loadable with weights_only=True.

A checkpoint is what torch.save writes, a zip archive, with the SHA-256 of all of it in the archive's comment, where
torch.load and every zip tool pass over it. The CRC-32 that zip keeps of each record is not enough: torch does not
compare it, and a bit flipped in a record's header makes torch read the weights from the wrong place.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import torch

from dlrun.errors import CheckpointError, ResumeError
from dlrun.runs.files import write_atomically

FORMAT = 1
LABEL = b"sha256:"
COMMENT = len(LABEL) + 64  # bytes
CHUNK = 1 << 20


def save(path: Path, content: dict[str, Any], *, previous: Path | None = None) -> None:
    """Write a checkpoint: to a temporary file, flushed to the disk, renamed into place.

    Args:
        content: tensors and plain values only.
        previous: where the checkpoint that is replaced is kept.

    Raises: CheckpointError if it cannot be written; what was there stays as it was.
    """
    try:
        if previous is not None and path.exists():
            # A second name for the old file: at no moment is there no checkpoint.
            _link(path, previous)
        write_atomically(path, lambda file: _write(file, {"format": FORMAT, **content}))
    except (OSError, RuntimeError) as error:
        # torch reports a full disk while writing as a RuntimeError of its file writer.
        source = error if isinstance(error, OSError) else error.__context__ or error
        reason = getattr(source, "strerror", None) or _first_line(source)
        raise CheckpointError(
            f"cannot write {path}: {reason}; what was saved before it is intact, so once there is room: "
            f"dlrun resume {path.parent.parent}"
        ) from error


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint, onto the CPU, after verifying it.

    Raises: CheckpointError if the file is damaged or of another format; FileNotFoundError if there is none.
    """
    try:
        if not _is_intact(path):
            raise CheckpointError(f"{path} is damaged: its content does not have the checksum it was written with")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(f"{path} is damaged: {_first_line(error)}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(f"{path} has format {found}; this version of dlrun reads format {FORMAT}")
    return content


def load_last(last: Path, previous: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """The newest checkpoint that is intact, and what must be said of those that are not.

    Returns: None instead of a checkpoint if none has been written yet.
    Raises: ResumeError if there are checkpoints and all are damaged.
    """
    warnings: list[str] = []
    for path in (last, previous):
        try:
            content = load(path)
        except FileNotFoundError:
            continue
        except CheckpointError as error:
            warnings.append(f"{error}.")
            continue
        if warnings:
            warnings.append(f"Using {path.name}, the checkpoint before it, from step {content['state']['step']}.")
        return content, warnings
    if warnings:
        raise ResumeError(" ".join([*warnings, "No other checkpoint is left; begin the run again."]))
    return None, warnings


class _Hashing:
    """A file that hashes what is written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.hash = file, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.hash.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def _write(file: BinaryIO, content: dict[str, Any]) -> None:
    """Save, then put the hash of it into the comment, whose length is the last field of a zip archive without one."""
    hashing = _Hashing(file)
    torch.save(content, hashing)  # type: ignore[arg-type]
    file.seek(-2, 2)
    file.write(COMMENT.to_bytes(2, "little") + LABEL + hashing.hash.hexdigest().encode())


def _is_intact(path: Path) -> bool:
    """Whether the file has the hash in its comment, the comment itself left out."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        left = file.seek(0, 2) - COMMENT - 2
        if left < 0:
            return False
        file.seek(0)
        while left:
            chunk = file.read(min(CHUNK, left))
            digest.update(chunk)
            left -= len(chunk)
        digest.update(b"\0\0")  # the length of the comment before it was put there
        return file.read() == COMMENT.to_bytes(2, "little") + LABEL + digest.hexdigest().encode()


def _link(path: Path, name: Path) -> None:
    """Give the file at `path` the second name `name`, replacing what bore it."""
    temporary = name.with_name(f".{name.name}.tmp")
    with suppress(FileNotFoundError):
        temporary.unlink()
    temporary.hardlink_to(path)
    temporary.replace(name)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
