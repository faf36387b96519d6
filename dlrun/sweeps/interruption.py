"""Ctrl-C while jobs are under way."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from dlrun.sweeps.pool import Pool


class Interrupted:
    """While entered, the first SIGINT or SIGTERM lets a pool's jobs save and end, and the second ends them at once.

    Attributes:
        count: of the signals received.
    """

    def __init__(self, pool: Pool) -> None:
        self.pool, self.count = pool, 0
        self._previous: dict[int, Any] = {}

    def _receive(self, number: int, _: FrameType | None) -> None:
        self.count += 1
        if self.count == 1:
            self.pool.stop()
        else:
            self.pool.kill()

    def __enter__(self) -> Interrupted:
        if threading.current_thread() is not threading.main_thread():
            return self  # where Python delivers no signals
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
