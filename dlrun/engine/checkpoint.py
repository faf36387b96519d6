"""Checkpoints: written atomically, verified before they are believed, loadable with weights_only=True."""

from __future__ import annotations

import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from dlrun.errors import CheckpointError, ResumeError
from dlrun.runs.files import write_atomically

FORMAT = 1


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
        write_atomically(path, lambda file: torch.save({"format": FORMAT, **content}, file))
    except (OSError, RuntimeError) as error:
        # torch reports a full disk while writing as a RuntimeError of its file writer.
        reason = getattr(error, "strerror", None) or _first_line(error.__context__ or error)
        raise CheckpointError(
            f"cannot write {path}: {reason}. The checkpoint before it is intact; once there is room: "
            f"dlrun resume {path.parent.parent}"
        ) from error


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint, onto the CPU, after verifying it.

    Every record in the file carries a CRC-32, which torch.load does not compare; a flipped bit in a weight would pass.

    Raises: CheckpointError if the file is damaged or of another format; FileNotFoundError if there is none.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise CheckpointError(f"{path} is damaged: the checksum of its record {damaged} is wrong")
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
