"""What the pool does with processes, here ones that know nothing of training."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from dlrun.config.compose import Composed
from dlrun.sweeps import pool as pool_module
from dlrun.sweeps.devices import Leases
from dlrun.sweeps.jobs import Ended, Job, Started
from dlrun.sweeps.nursery import Nursery
from dlrun.sweeps.pool import Limits, Pool

SLEEP = "import time; time.sleep(30)"
GROW = "kept = bytearray(b'x') * (200 << 20); import time; time.sleep(30)"
TOUGH = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(30)"


class FakeNursery:
    """Starts a program for each worker."""

    program = SLEEP

    def __init__(self) -> None:
        self.children: list[subprocess.Popen[bytes]] = []
        self.pipes: list[Any] = []

    def fileno(self) -> int:
        return self.pipes[-1][1].fileno()

    def fork(self, environment: Mapping[str, str], threads: int, given_up: object) -> tuple[int, Connection]:
        self.children.append(subprocess.Popen([sys.executable, "-c", self.program]))
        self.pipes.append(Pipe())
        return self.children[-1].pid, self.pipes[-1][0]

    def ended(self) -> list[tuple[int, int]]:
        gone = [child for child in self.children if child.poll() is not None]
        self.children = [child for child in self.children if child not in gone]
        return [(child.pid, child.returncode) for child in gone]

    def close(self) -> None:
        for child in self.children:
            child.kill()
            child.wait()


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeNursery]]:
    fake = FakeNursery()
    monkeypatch.setattr(pool_module, "nursery", lambda: fake)
    monkeypatch.setattr(pool_module, "GRACE_SECONDS", 0.2)
    monkeypatch.setattr(FakeNursery, "program", SLEEP)
    yield FakeNursery
    fake.close()


def job(number: int, folder: Path) -> Job:
    return Job(number, Composed({"seed": number}, {}, folder / str(number)), f"seed={number}")


def ends(folder: Path, limits: Limits, count: int = 1, stop: bool = False) -> list[Ended]:
    jobs = [job(i, folder) for i in range(count)]
    found = []
    with Pool(Leases([], 1, names=[]), limits) as pool:
        for one in jobs:
            pool.submit(one)
        for event in pool.events():
            if isinstance(event, Started) and stop:
                pool.stop()
            if isinstance(event, Ended):
                found.append(event)
    return found


@pytest.mark.parametrize("program", [SLEEP, TOUGH], ids=["asked", "killed"])
def test_a_job_that_takes_too_long_is_stopped_and_the_next_begins(program: str, workers: Any, tmp_path: Path):
    workers.program = program
    found = ends(tmp_path, Limits(seconds=0.3), count=2)
    assert [(end.status, end.error) for end in found] == [("failed", "stopped after 0.3 s, the limit for a job")] * 2
    assert json.loads((tmp_path / "1" / "summary.json").read_text())["status"] == "failed"


def test_a_job_that_takes_too_much_memory_is_stopped(workers: Any, tmp_path: Path):
    workers.program = GROW
    (end,) = ends(tmp_path, Limits(bytes=100 << 20))
    assert (end.status, end.error) == ("failed", "stopped as it took more memory than 0.1 GB, the limit for a job")


def test_the_largest_job_is_stopped_before_the_machine_is_out_of_memory(
    workers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pool_module, "available_bytes", lambda: 1 << 10)
    monkeypatch.setattr(pool_module, "total_bytes", lambda: 50 << 20)
    (end,) = ends(tmp_path, Limits())
    assert end.status == "failed"
    assert "the largest job, as the machine had only 0.0 GB of memory left" in str(end.error)


def test_what_is_stopped_on_request_is_interrupted_and_nothing_else_begins(workers: Any, tmp_path: Path):
    (end,) = ends(tmp_path, Limits(), count=3, stop=True)
    assert (end.job.number, end.status, end.error) == (0, "interrupted", None)
    assert not list(tmp_path.iterdir())  # so it is as if it had not begun


def test_a_job_that_somebody_else_has_asked_to_end_has_failed(workers: Any, tmp_path: Path):
    with Pool(Leases([], 1, names=[])) as pool:
        pool.submit(job(0, tmp_path))
        for event in pool.events():
            if isinstance(event, Started):
                pipe = pool._nursery.pipes[-1][1]  # type: ignore[attr-defined]
                pipe.send(("ended", 0, {"status": "interrupted"}, None))
                pipe.send(("idle", 0, {"resident": 1}))
            if isinstance(event, Ended):
                end = event
    assert (end.status, end.error) == ("failed", "its process was asked to end by somebody")


def test_after_a_larger_job_fewer_workers_go_on(workers: Any, tmp_path: Path):
    leases = Leases([], 3, names=[])
    began: list[int] = []
    with Pool(leases) as pool:
        for number in range(6):
            pool.submit(job(number, tmp_path))
        for event in pool.events():
            if not isinstance(event, Started):
                continue
            began.append(event.job.number)
            if len(began) == 3:
                leases._jobs = 1
            if len(began) >= 3:
                theirs = dict(pool._nursery.pipes)  # type: ignore[attr-defined]
                for worker in pool._workers:
                    if worker.jobs:
                        theirs[worker.connection].send(("ended", 0, {"status": "completed"}, None))
                        theirs[worker.connection].send(("idle", 0, {"resident": 1}))
        assert len(pool._workers) == 1
    assert began == list(range(6))


def test_nobody_waits_for_a_nursery_that_loads_once_it_is_to_stop():
    nursery = Nursery()
    try:
        assert nursery.fork({}, 1, given_up=lambda: True) is None
        born = nursery.fork({}, 1)
        assert born is not None
        pid, connection = born
        connection.close()  # it ends then, as does the one that nobody waited for
        ended: list[int] = []
        deadline = time.monotonic() + 20
        while len(ended) < 2 and time.monotonic() < deadline:
            ended += [each for each, _ in nursery.ended()]
            time.sleep(0.05)
        assert pid in ended
        assert len(ended) == 2
    finally:
        nursery.close()
