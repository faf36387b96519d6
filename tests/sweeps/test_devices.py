"""Which GPU each worker gets."""

import os
from collections import Counter
from pathlib import Path

import pytest

from dlrun.machine import cores
from dlrun.machine.cores import usable_cores
from dlrun.sweeps import devices
from dlrun.sweeps.devices import Leases, gpus

AUTO = {"trainer": {"device": "auto"}}


def test_gpus_are_those_that_cuda_would_see():
    assert gpus({"CUDA_VISIBLE_DEVICES": "2,GPU-5"}) == ["2", "GPU-5"]
    assert gpus({"CUDA_VISIBLE_DEVICES": ""}) == gpus({"CUDA_VISIBLE_DEVICES": "-1"}) == []


def test_gpus_are_found_where_the_driver_has_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(devices, "DRIVER", tmp_path / "none")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    command = tmp_path / "nvidia-smi"
    command.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H200 (UUID: GPU-1)'\necho 'GPU 1: NVIDIA H200 (UUID: GPU-2)'\n")
    command.chmod(0o755)
    assert gpus() == ["0", "1"]
    command.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    assert gpus() == []


def test_workers_are_spread_over_the_gpus_evenly_and_a_free_one_is_lent_again():
    leases = Leases([AUTO], None, per_device=2, names=["0", "1", "2"])
    assert leases.size == 6
    assert Counter(leases.take() for _ in range(6)) == {"0": 2, "1": 2, "2": 2}
    leases.give_back("1")
    assert leases.take() == "1"


def test_jobs_on_the_cpu_share_its_threads_and_need_no_gpu():
    leases = Leases([{"trainer": {"device": "cpu"}}], None, names=["0"])
    assert (leases.take(), leases.size, leases.threads) == (None, usable_cores(), 1)
    assert Leases([AUTO], 1, names=[]).threads == usable_cores()


def test_a_job_that_names_its_gpu_gets_that_one():
    assert Leases([AUTO, {"trainer": {"device": "cuda:1"}}], None, names=["0", "1"]).take() is None


def test_a_gpu_takes_as_many_jobs_as_its_memory_holds_of_the_largest_so_far():
    leases = Leases([AUTO], None, per_device="auto", names=["0"])
    assert leases.size == 1
    leases.learn({"gpu_peak": 10 << 30, "gpu_total": 80 << 30})
    assert leases.size == 6  # .9 x 80 / 10.6
    leases.learn({"gpu_peak": 30 << 30, "gpu_total": 80 << 30})
    assert leases.size == 2
    leases.learn({"gpu_peak": 1 << 30, "gpu_total": 80 << 30})  # a small one after it changes nothing
    assert leases.size == 2
    fixed = Leases([AUTO], None, per_device=3, names=["0"])
    fixed.learn({"gpu_peak": 30 << 30, "gpu_total": 80 << 30})
    assert fixed.size == 3


@pytest.mark.parametrize(
    ("words", "size"), [(["cuda:1"], 1), (["cuda:0", "cuda:1", "cpu"], 2), (["mps"], 1), (["cpu"], usable_cores())]
)
def test_devices_that_are_not_lent_get_a_job_each(words: list[str], size: int):
    assert Leases([{"trainer": {"device": word}} for word in words], None, names=["0", "1"]).size == size


def test_a_container_has_time_for_fewer_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    monkeypatch.setattr(cores, "QUOTA", tmp_path / "cpu.max")
    assert usable_cores() == 1
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert usable_cores() >= 1
