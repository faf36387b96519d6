"""Where a result came from: command, code, packages, machine, data."""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from dlrun.version import __version__

PACKAGES = ("torch", "torchvision", "numpy", "hydra-core", "omegaconf", "scikit-learn")


def provenance(*, run_id: str, command: list[str], fingerprint: str, device: Mapping[str, Any]) -> dict[str, Any]:
    """All that is needed to say how a run came about and to have it again.

    Args:
        run_id: hash of the resolved configuration.
        command: as typed.
        fingerprint: hash of the data.
        device: description of the hardware.
    """
    return {
        "run_id": run_id,
        "command": " ".join(command),
        "folder": str(Path.cwd()),
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "dlrun": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": versions(),
        "device": dict(device),
        "data_fingerprint": fingerprint,
        "git": git_state(Path.cwd()),
        "python_path": [path for path in sys.path if path and not path.startswith((sys.prefix, sys.base_prefix))],
    }


def versions() -> dict[str, str]:
    """Installed versions of what decides results."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_state(folder: Path) -> dict[str, str] | None:
    """Commit and uncommitted changes of the repository around `folder`, or None outside of one.

    Asked once a minute at most: a sweep of short jobs would else spend its time on it.
    """
    return _git_state(folder, int(time.monotonic() // 60))


@lru_cache(maxsize=1)
def _git_state(folder: Path, minute: int) -> dict[str, str] | None:

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
        return done.stdout

    try:
        return {"commit": git("rev-parse", "HEAD").strip(), "diff": git("diff", "HEAD")}
    except (OSError, subprocess.SubprocessError):
        return None
