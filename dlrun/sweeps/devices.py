"""Which device each worker gets: GPUs are lent to one at a time, or to as many as their memory holds."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from dlrun.machine.cores import usable_cores

MOST = 8  # jobs on one GPU: beyond that they only wait for each other
ROOM = 0.9  # of a GPU's memory
DRIVER = Path("/proc/driver/nvidia/gpus")  # has a folder for each GPU


def gpus(environment: Mapping[str, str] = os.environ) -> list[str]:
    """The names of the GPUs that CUDA would see, found without loading it."""
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() and name.strip() != "-1"]
    if DRIVER.is_dir():
        return [str(index) for index, _ in enumerate(sorted(DRIVER.iterdir()))]
    if not shutil.which("nvidia-smi"):
        return []
    # Windows' subsystem for Linux has no such folder.
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout
    return [str(index) for index, _ in enumerate(re.findall(r"^GPU \d+:", listed, re.MULTILINE))]


class Leases:
    """Who has which device.

    Args:
        configs: of the jobs. One that trains on the CPU needs no GPU; if one names a GPU by its number, none are lent.
        jobs: at a time; None: one a GPU, or one a processor. Of GPUs that are named, one each; of a Mac's, one.
        per_device: jobs on one GPU; "auto": one, until the first has told what memory it takes.
        names: of the GPUs; None finds them.
    """

    def __init__(
        self,
        configs: Sequence[Mapping[str, Any]],
        jobs: int | None,
        per_device: int | Literal["auto"] = 1,
        names: Sequence[str] | None = None,
    ) -> None:
        words = {str((config.get("trainer") or {}).get("device", "auto")) for config in configs}
        lent = bool(words & {"auto", "cuda"}) and not any(":" in word for word in words)
        self.names = list(gpus() if names is None else names) if lent else []
        self._jobs, self._auto = jobs, per_device == "auto"
        self._per_device = 1 if per_device == "auto" else per_device
        self._used: Counter[str] = Counter()
        self._largest = 0  # bytes that a job has held
        named = {word for word in words if ":" in word}
        shared = "mps" in words or ("auto" in words and sys.platform == "darwin")
        self._without = len(named) or (1 if shared else usable_cores())  # workers where none are lent

    @property
    def size(self) -> int:
        """Workers at a time."""
        most = len(self.names) * self._per_device if self.names else self._without
        return self._jobs or most

    @property
    def threads(self) -> int:
        """CPU threads of each."""
        return max(1, usable_cores() // self.size)

    def take(self) -> str | None:
        """The GPU for one more worker, that with the fewest; None where there are none to lend."""
        if not self.names:
            return None
        name = min(self.names, key=lambda each: self._used[each])
        self._used[name] += 1
        return name

    def give_back(self, name: str | None) -> None:
        """A worker has ended."""
        if name is not None:
            self._used[name] -= 1

    def learn(self, memory: Mapping[str, int]) -> None:
        """Take note of what a job has held on its GPU at most."""
        peak, total = memory.get("gpu_peak"), memory.get("gpu_total")
        if self._auto and peak and total:
            context = 600 << 20  # CUDA's own, in every process
            self._largest = max(self._largest, peak)
            self._per_device = max(1, min(MOST, int(ROOM * total / (self._largest + context))))
            self._auto = self._per_device > 1  # a larger job may come: then fewer from then on
