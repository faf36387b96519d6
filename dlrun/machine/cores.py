"""How many cores there are to compute on. Does not import torch."""

import os
from contextlib import suppress
from pathlib import Path

QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container: microseconds of computing, in so many of the clock


def usable_cores() -> int:
    """The cores this process may run on, as many as its container has time for."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # "max" of the clock's time is no number
        quota, period = map(int, QUOTA.read_text().split())
        return max(1, min(cores, round(quota / period)))
    return cores
