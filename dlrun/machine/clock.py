"""How long something takes on a device."""

import math
import time
from collections.abc import Callable

import torch


def synchronise(device: torch.device) -> None:
    """Wait for all that the device has been given to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def seconds_each(function: Callable[[], object], device: torch.device, budget: float = 0.1, rounds: int = 3) -> float:
    """The time of one call: the shortest mean of several rounds, as what disturbs a measurement only adds to it.

    Args:
        budget: seconds for all rounds together; at least one call is made in each, after one to warm up.
    """
    once = _timed(function, 1, device)
    once = min(once, _timed(function, 1, device))
    if once > budget:
        return once
    calls = max(1, math.floor(budget / rounds / max(once, 1e-9)))
    return min(_timed(function, calls, device) for _ in range(rounds)) / calls


def _timed(function: Callable[[], object], calls: int, device: torch.device) -> float:
    synchronise(device)
    begin = time.perf_counter()
    for _ in range(calls):
        function()
    synchronise(device)
    return time.perf_counter() - begin
