"""Which device to train on, and what can be said of it."""

import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from dlrun.errors import ConfigError


def choose_device(word: str) -> torch.device:
    """The device for `trainer.device`: auto takes CUDA, then Apple's MPS, then the CPU.

    Raises: ConfigError if the device is not there.
    """
    if word == "auto":
        word = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    device = torch.device(word)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            seen = f"{count} CUDA device{'s' if count != 1 else ''}" if count else "no CUDA device"
            raise ConfigError(f"trainer.device={word}: PyTorch sees {seen} here; use trainer.device=auto or cpu.")
        return torch.device("cuda", device.index or 0)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("trainer.device=mps: PyTorch sees no MPS device here; use trainer.device=auto or cpu.")
    return device


_instead: tuple[int, int] | None = None  # torch's own number of threads, and the one that `use_threads` has set


def use_threads(count: int | None) -> None:
    """Compute with `count` CPU threads from now on; None: with as many as torch would, whatever a run before has set.

    Sums are taken in another order by another number of threads, so it is part of what decides the last bits. Call it
    before anything is computed: not every build of torch changes the number afterwards.
    """
    global _instead
    now = torch.get_num_threads()
    # What somebody else has set since is torch's own from then on.
    own = _instead[0] if _instead is not None and _instead[1] == now else now
    _instead = None if count is None else (own, count)
    wanted = own if count is None else count
    if wanted != now:
        torch.set_num_threads(wanted)


def describe_device(device: torch.device) -> dict[str, Any]:
    """What decides speed and, to the last bit, results."""
    description: dict[str, Any] = {
        "device": str(device),
        "threads": torch.get_num_threads(),
        "cpu_count": os.cpu_count(),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        description |= {"name": properties.name, "memory_bytes": properties.total_memory, "cuda": torch.version.cuda}
    else:
        description["name"] = platform.processor() or platform.machine()
    return description


def total_memory(device: torch.device) -> int:
    """Bytes the device has; a small machine's where it cannot be asked."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return 8 << 30


def free_memory(device: torch.device) -> int:
    """Bytes that could be used on the device now; 4 GB where it cannot be asked."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    with suppress(OSError, ValueError, StopIteration):  # Linux: with what its cache of files would give back
        lines = Path("/proc/meminfo").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]) * 1024
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return 4 << 30
