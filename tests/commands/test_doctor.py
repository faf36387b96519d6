"""`dlrun doctor`: each finding from what causes it, and the report as a whole."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dlrun.commands import doctor
from dlrun.commands.doctor import data, machine, torchvision_fits, writable
from dlrun.commands.doctor_devices import compiler, cpu_precisions, devices, gpu_precisions
from dlrun.commands.finding import ERROR, NOTE, OK, WARNING, Finding, installed
from dlrun.errors import ConfigError, UsageError
from dlrun.machine.cores import usable_cores

NOWHERE = Path("/nonexistent")


def levels(findings) -> list[tuple[str, str]]:
    return [(finding.what, finding.level) for finding in findings]


def test_the_report_names_versions_devices_and_data(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("DLRUN_DATA", str(tmp_path))
    code = doctor.run([])
    out = capsys.readouterr().out
    assert torch.__version__.split("+")[0] in out
    assert f"{torch.get_num_threads()} threads" in out
    assert str(tmp_path) in out
    assert [title for title in ("Software", "Devices", "Machine", "Data and outputs") if f"{title}\n" not in out] == []
    assert (code, "✗" in out, "Ready to train" in out) in {(0, False, True), (1, True, False)}


def test_an_error_makes_the_exit_code_1_and_a_warning_does_not(monkeypatch, capsys):
    for name in ("software", "devices"):
        monkeypatch.setattr(doctor, name, lambda: iter(()))
    monkeypatch.setattr(doctor, "data", lambda root: iter([Finding(WARNING, "w", "d", "mend it")]))
    monkeypatch.setattr(doctor, "machine", lambda *paths: iter([Finding(OK, "o")]))
    monkeypatch.setattr(doctor, "writable", lambda folder: iter(()))
    assert doctor.run([]) == 0
    out = capsys.readouterr().out
    assert "  ! w                d\n                     -> mend it\n" in out
    assert out.endswith("Ready to train, 1 warning.\n")
    monkeypatch.setattr(doctor, "writable", lambda folder: iter([Finding(ERROR, "e"), Finding(ERROR, "f")]))
    assert doctor.run([]) == 1
    assert capsys.readouterr().out.endswith("Training is impossible here: 2 errors, 1 warning.\n")


def test_arguments_are_refused():
    with pytest.raises(UsageError, match="takes no arguments, got 'now'"):
        doctor.run(["now"])


def test_it_works_where_torch_is_missing(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('libtorch_cpu.so: cannot open shared object file')\n")
    root = str(Path(doctor.__file__).parent.parent.parent)
    done = subprocess.run(
        [sys.executable, "-m", "dlrun", "doctor"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{root}"},
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == ""
    assert "cannot be imported: libtorch_cpu.so" in done.stdout
    assert "Training is impossible here" in done.stdout


@pytest.mark.parametrize(
    ("requires", "torch_version", "level"),
    [
        (["numpy", "torch==2.14.1"], "2.14.1", OK),
        (["torch==2.14.1"], "2.14.1+cpu", OK),
        (["torch==2.14.1 ; platform_system != 'x'"], "2.14.1", OK),
        (["torch==2.14.1"], "2.13.0", WARNING),
        (["torch"], "2.13.0", OK),
    ],
)
def test_torchvision_must_belong_to_torch(requires, torch_version, level, monkeypatch):
    monkeypatch.setattr(doctor.importlib, "import_module", lambda name: None)
    finding = torchvision_fits("0.29.1", requires, torch_version)
    assert finding.level == level
    assert ("torch==2.14.1 torchvision==0.29.1" in finding.way_out) == (level == WARNING)


def test_a_torchvision_that_does_not_load_is_a_warning(monkeypatch):
    def fail(name: str) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(doctor.importlib, "import_module", fail)
    finding = torchvision_fits("0.29.1", ["torch==2.14.1"], "2.14.1")
    assert (finding.level, finding.way_out != "") == (WARNING, True)
    assert "nms does not exist" in finding.detail


def test_a_config_that_does_not_compose_is_an_error(monkeypatch):
    def fail(overrides: list[str]) -> None:
        raise ConfigError("optimizer.lr must be a number > 0, got 'x'.")

    monkeypatch.setattr("dlrun.config.compose.compose", fail)
    finding = doctor._default_config()
    assert (finding.level, finding.detail) == (ERROR, "optimizer.lr must be a number > 0, got 'x'.")


def test_devices_are_those_torch_sees():
    found = [finding.what for finding in devices()]
    assert found[0] == "cpu"
    assert [what for what in found if what.startswith("cuda:")] == [
        f"cuda:{i}" for i in range(torch.cuda.device_count())
    ]


@pytest.mark.parametrize(
    ("flags", "native"), [({"avx2"}, False), ({"avx512_bf16"}, True), ({"amx_bf16"}, True), ({"bf16", "sve"}, True)]
)
def test_bf16_on_a_cpu_is_native_or_emulated(flags, native):
    assert ("bf16 native" in cpu_precisions(flags)) == native
    assert ("emulated" in cpu_precisions(flags)) != native


@pytest.mark.parametrize(
    ("capability", "text"),
    [
        ((6, 1), "fp32, fp16 (slow); no tf32, no bf16"),
        ((7, 5), "fp32, fp16 native; no tf32, no bf16"),
        ((8, 0), "fp32, tf32, bf16, fp16 native"),
        ((9, 0), "fp32, tf32, bf16, fp16 native"),
    ],
)
def test_number_formats_of_gpus(capability, text):
    assert gpu_precisions(capability) == text


def test_torch_compile_needs_a_compiler(tmp_path, monkeypatch):
    assert compiler({"PATH": str(tmp_path)}, has_gpu=False).level == WARNING
    fake = tmp_path / "my-c++"
    fake.write_text("#!/bin/sh\n")
    fake.chmod(0o755)
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"include": str(tmp_path)})
    found = compiler({"PATH": str(tmp_path), "CXX": "my-c++"}, has_gpu=False)
    assert (found.level, found.detail) == (OK, str(fake))
    (tmp_path / "Python.h").unlink()
    found = compiler({"PATH": str(tmp_path), "CXX": "my-c++"}, has_gpu=False)
    assert (found.level, found.detail) == (WARNING, "no Python.h")


def test_a_sound_machine_has_no_findings(tmp_path):
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert list(machine({}, tmp_path / "cpu.max", NOWHERE)) == []
    assert list(machine({}, NOWHERE, NOWHERE)) == []


@pytest.mark.skipif(usable_cores() < 2, reason="one core cannot be left idle")
def test_one_thread_on_many_cores_bites():
    (finding,) = machine({"OMP_NUM_THREADS": "1"}, NOWHERE, NOWHERE)
    assert (finding.level, finding.way_out) == (WARNING, "unset OMP_NUM_THREADS")
    assert f"leaves {usable_cores() - 1} cores idle" in finding.detail
    assert list(machine({"OMP_NUM_THREADS": "2"}, NOWHERE, NOWHERE)) == []


def test_a_container_with_less_cpu_than_cores_bites(tmp_path):
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    (finding,) = machine({}, tmp_path / "cpu.max", NOWHERE)
    assert finding.way_out == "export OMP_NUM_THREADS=1"
    assert f"0.5 of {usable_cores()} cores" in finding.detail


def test_blocking_launches_bite():
    assert levels(machine({"CUDA_LAUNCH_BLOCKING": "1"}, NOWHERE, NOWHERE)) == [("CUDA", WARNING)]


@pytest.mark.parametrize(("mebibytes", "found"), [(64, [("shared memory", WARNING)]), (2048, [])])
def test_little_shared_memory_bites(mebibytes, found, tmp_path, monkeypatch):
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(mebibytes << 20, 0, mebibytes << 20)
    )
    assert levels(machine({}, NOWHERE, tmp_path)) == found


def test_outputs_are_tried_out(tmp_path, monkeypatch):
    (finding,) = writable(tmp_path / "outputs")
    assert finding.level == OK
    assert str(tmp_path / "outputs") in finding.detail
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1 << 40, 1 << 40, 5 << 20))
    (finding,) = writable(tmp_path / "outputs")
    assert finding.level == WARNING
    assert "0.0 GiB free" in finding.detail


def test_outputs_that_cannot_be_written_are_an_error():
    (finding,) = writable(Path("/proc/outputs"))
    assert (finding.level, finding.what) == (ERROR, "outputs")
    assert "hydra.run.dir=" in finding.way_out


def test_data_sets_are_found_by_their_files(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    parts = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    for part in parts:
        (raw / f"{part}-ubyte.gz").touch()
    (tmp_path / "cifar-10-python.tar.gz").touch()
    (tmp_path / "train_32x32.mat").touch()
    found = {finding.what: finding for finding in data(str(tmp_path))}
    assert (found["mnist"].level, found["mnist"].detail) == (OK, "found")
    assert found["cifar10"].level == OK
    assert found["cifar100"].level == NOTE
    assert found["svhn"].level == WARNING
    assert "test_32x32.mat" in found["svhn"].detail
    (raw / "t10k-labels-idx1-ubyte.gz").unlink()
    found = {finding.what: finding for finding in data(str(tmp_path))}
    assert "t10k-labels-idx1-ubyte.gz" in found["mnist"].detail
    assert str(raw) in found["mnist"].way_out


def test_an_absent_data_folder_is_no_error(tmp_path):
    (finding,) = data(str(tmp_path / "nowhere"))
    assert finding.level == NOTE
    assert "embedded and generated data need none" in finding.detail


def test_versions_are_read_without_importing():
    assert installed("torch") == torch.__version__.split("+")[0] or installed("torch") == torch.__version__
    assert installed("no-such-package-at-all") is None
