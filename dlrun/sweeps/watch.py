"""How much memory processes hold and the machine has left, as Linux says."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

CONTAINER = Path("/sys/fs/cgroup")
PAGE = os.sysconf("SC_PAGE_SIZE")


def resident_bytes(pid: int) -> int | None:
    """What a process holds in memory; None if it is gone, or this is not Linux."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    return None


def available_bytes() -> int | None:
    """What new work could take before the machine, or the container we are in, is out of memory; None if unknown."""
    found = [value for value in (_of_the_machine(), _of_the_container()) if value is not None]
    return min(found, default=None)


def total_bytes() -> int:
    """The memory of the machine, or of the container we are in."""
    physical = os.sysconf("SC_PHYS_PAGES") * PAGE
    with suppress(OSError, ValueError):
        return min(physical, int((CONTAINER / "memory.max").read_text()))
    return physical


def _of_the_machine() -> int | None:
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def _of_the_container() -> int | None:
    """By version 2 of control groups."""
    with suppress(OSError, ValueError, StopIteration):
        most = (CONTAINER / "memory.max").read_text().strip()
        if most != "max":
            statistics = dict(line.split() for line in (CONTAINER / "memory.stat").read_text().splitlines())
            used = int((CONTAINER / "memory.current").read_text()) - int(statistics.get("inactive_file", 0))
            return int(most) - used
    return None
