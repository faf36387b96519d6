"""What the benchmarks share: arms that take turns, medians with their spread, and the file the numbers go to."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def alternate(
    arms: Mapping[str, Callable[[], float]],
    rounds: int,
    warm_up: bool = True,
    after: Callable[[dict[str, list[float]]], object] = lambda times: None,
) -> dict[str, list[float]]:
    """Seconds of each arm, round by round; every other round backwards, so that none always follows the same one.

    Args:
        arms: each returns the seconds it wants to be counted.
        warm_up: run each once before, uncounted.
        after: called with all times so far at the end of each round, so that they can be kept.
    """
    if warm_up:
        for arm in arms.values():
            arm()
    times: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(rounds):
        for name in list(arms)[:: -1 if turn % 2 else 1]:
            times[name].append(arms[name]())
        after(times)
    return times


def compared(times: Mapping[str, list[float]], to: str = "dlrun") -> dict[str, Any]:
    """Per arm all seconds, median, least and most, and `ratio`: the median of the rounds' quotients by the arm `to`.

    The quotient is taken within a round, so what slows all arms of a round down cancels.
    """
    return {
        name: {
            "seconds": [round(value, 4) for value in values],
            "median": round(statistics.median(values), 4),
            "min": round(min(values), 4),
            "max": round(max(values), 4),
            "ratio": round(statistics.median(a / b for a, b in zip(values, times[to], strict=True)), 3),
        }
        for name, values in times.items()
    }


def show(title: str, arms: Mapping[str, Mapping[str, Any]], to: str = "dlrun") -> None:
    """Print `compared`'s result as a table."""
    print(f"\n{title:<44} median s     min     max  x {to}")
    for name, arm in arms.items():
        print(f"  {name:<42} {arm['median']:8.3f} {arm['min']:7.3f} {arm['max']:7.3f} {arm['ratio']:6.2f}", flush=True)


def machine() -> dict[str, Any]:
    """What a reader must know of where and when the numbers were taken."""
    return {
        "date": date.today().isoformat(),
        "command": "python benchmarks/" + " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "machine": f"{platform.machine()} {_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def write(path: Path, entries: Mapping[str, Any], said: bool = True) -> None:
    """Replace these entries of a JSON file and leave the others, so that parts can be measured again on their own.

    Called after each round too (`said` False: without a word), so that a run that is ended leaves its numbers.
    """
    known = json.loads(path.read_text()) if path.exists() else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.tmp")
    unfinished.write_text(json.dumps(known | dict(entries), indent=1) + "\n")
    unfinished.replace(path)
    if said:
        print(f"written: {path}")
