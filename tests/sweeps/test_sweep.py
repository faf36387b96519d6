"""Sweeps as they are typed: jobs that fail in every way, stopping by force, going on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dlrun.cli import main

PARTS = '''
import os, signal, time
import torch
from torch import nn

class Troubled(nn.Sequential):
    """Does what `trouble` says in its tenth training step."""

    def __init__(self, trouble):
        super().__init__(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 2))
        self.trouble, self.steps = trouble, 0

    def forward(self, x):
        self.steps += self.training and len(x) > 2
        if self.steps == 10:
            self.meet()
        return super().forward(x) * (float("nan") if self.trouble == "diverge" and self.training else 1)

    def meet(self):
        if self.trouble == "raise":
            raise ValueError("as it was told")
        if self.trouble == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.trouble == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.trouble == "allocate":
            self.kept = [torch.ones(1 << 25) for _ in range(1000)]
        if self.trouble == "slow":
            self.steps = 9
            time.sleep(0.05)

def troubled(spec, *, trouble: str = "none") -> nn.Module:
    return Troubled(trouble)
'''
MODEL = "_target_: parts.troubled\ntrouble: none\n"
FAST = ["data=moons", "model=troubled", "scheduler=constant", "trainer.max_steps=20", "trainer.log_every=5"]


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "parts.py").write_text(PARTS)
    (tmp_path / "mine" / "model" / "troubled.yaml").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])  # which --config-dir adds to
    return tmp_path


def record() -> dict[str, Any]:
    (path,) = Path("outputs/sweeps").glob("*/sweep.json")
    return dict(json.loads(path.read_text()))


def runs() -> dict[str, Any]:
    return {path.parent.name: json.loads(path.read_text()) for path in Path("outputs/sweeps").glob("*/*/summary.json")}


def test_jobs_fail_alone_and_the_same_words_again_do_only_what_is_left(mine: Path, capfd: pytest.CaptureFixture[str]):
    words = ["train", "-m", "--config-dir", "mine", *FAST, "hydra.launcher.memory=2GB"]
    words += ["model.trouble=raise,kill,crash,allocate,diverge,none", "hydra.launcher.jobs=2"]
    assert main(words) == 1
    said = capfd.readouterr().out
    status = {job["label"].partition("=")[2]: (job["status"], job.get("error", "")) for job in record()["jobs"]}
    assert {trouble: end for trouble, (end, _) in status.items()} == {
        "raise": "failed",
        "kill": "failed",
        "crash": "failed",
        "allocate": "failed",
        "diverge": "diverged",
        "none": "completed",
    }
    for trouble, words_of_error in {
        "raise": "ValueError: as it was told",
        "kill": "SIGKILL",
        "crash": "SIGSEGV",
        "allocate": "more memory than 2.0 GB, the limit for a job",
    }.items():
        assert words_of_error in status[trouble][1]
        assert words_of_error in said
        (folder,) = Path("outputs/sweeps").glob(f"*/*={trouble}")
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["status"] == "failed"
        assert words_of_error in summary["error"]
    (crashed,) = Path("outputs/sweeps").glob("*/*=crash/output.log")
    assert "Segmentation fault" in crashed.read_text()
    assert "ValueError: as it was told" in next(Path("outputs/sweeps").glob("*/*=raise/traceback.txt")).read_text()

    before = runs()
    (mine / "mine" / "parts.py").write_text(PARTS.replace("self.steps == 10", "False"))
    assert main(["resume", str(next(Path("outputs/sweeps").iterdir()))]) == 1  # what diverged would again
    assert [job["status"] for job in record()["jobs"]] == ["completed"] * 4 + ["diverged", "completed"]
    kept = {name: summary for name, summary in runs().items() if name.endswith(("none", "diverge"))}
    assert kept == {name: before[name] for name in kept}
    assert "6 jobs, 2 of them done before" in capfd.readouterr().out


def test_a_sweep_killed_with_all_its_processes_ends_as_if_it_had_not_been(mine: Path):
    words = [*FAST, "trainer.max_steps=40", "trainer.eval_every=5", "model.trouble=slow", "seed=range(4)"]
    command = [sys.executable, "-m", "dlrun", "train", "-m", "--config-dir", "mine", *words, "hydra.launcher.jobs=2"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(Path("outputs").glob("sweeps/*/*/metrics.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    process.kill()
    process.wait()
    gone_by = time.monotonic() + 5
    while _trained() and time.monotonic() < gone_by:
        time.sleep(0.05)
    assert not _trained()  # no worker has outlived it

    assert main(command[3:]) == 0
    one = {name: _decisive(summary) for name, summary in runs().items()}
    commands = {json.loads(p.read_text())["command"] for p in Path("outputs/sweeps").glob("*/*/provenance.json")}
    assert any(command.startswith("dlrun train -m --config-dir mine data=moons") for command in commands)
    assert main([*command[3:], "hydra.sweep.dir=undisturbed"]) == 0
    other = {path.parent.name: json.loads(path.read_text()) for path in Path("undisturbed").glob("*/summary.json")}
    assert len(one) == 4
    assert one == {name: _decisive(summary) for name, summary in other.items()}


def _decisive(summary: dict[str, Any]) -> dict[str, Any]:
    return {key: summary[key] for key in ("status", "steps", "best", "metrics")}


def _trained() -> list[Path]:
    """Runs that a process holds the lock of."""
    import fcntl

    held = []
    for path in Path("outputs").glob("sweeps/*/*/.lock"):
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                held.append(path)
    return held


def test_an_interrupted_sweep_saves_its_jobs_and_fail_fast_stops_the_others(mine: Path, capfd: Any):
    words = ["train", "-m", "--config-dir", "mine", *FAST, "trainer.max_steps=4000", "hydra.launcher.jobs=2"]
    words += ["model.trouble=slow,raise,none", "hydra.launcher.fail_fast=true"]
    assert main(words) == 1
    ends = {job["label"].partition("=")[2]: job["status"] for job in record()["jobs"]}
    assert "fail_fast" in capfd.readouterr().out
    assert ends == {"slow": "interrupted", "raise": "failed", "none": "waiting"}
    command = [sys.executable, "-m", "dlrun", "train", "-m", "--config-dir", "mine", *FAST, "hydra.launcher.jobs=2"]
    command += ["trainer.max_steps=4000", "model.trouble=slow", "seed=0,1", "hydra.sweep.dir=stopped"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    while not list(Path("stopped").glob("*/metrics.jsonl")) and process.poll() is None:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    summaries = [json.loads(path.read_text()) for path in Path("stopped").glob("*/summary.json")]
    assert {summary["status"] for summary in summaries} == {"interrupted"}
    assert "dlrun resume stopped" in said


def test_two_sweeps_do_not_share_a_folder_and_equal_jobs_run_once(mine: Path, capfd: pytest.CaptureFixture[str]):
    words = ["train", "-m", "--config-dir", "mine", *FAST, "seed=1,1,2", "hydra.sweep.dir=mine/there"]
    from dlrun.sweeps.record import SweepRecord

    with SweepRecord(Path("mine/there")).locked():
        assert main(words) == 2
        assert "another sweep" in capfd.readouterr().err
    assert main(words) == 0
    said = capfd.readouterr().out
    assert "1 of the 3 jobs are equal to others and run once" in said
    assert sorted(path.name for path in Path("mine/there").glob("*_*")) == ["0_seed=1", "1_seed=2"]
    assert main([*words[:-2], "seed=2,3", words[-1]]) == 0  # more of them, into the same folder
    assert "1 of them done before" in capfd.readouterr().out
    assert sorted(path.name for path in Path("mine/there").glob("*_*")) == ["0_seed=1", "1_seed=2", "2_seed=3"]


def test_hydras_own_launcher_and_sweeper_still_work(mine: Path, capfd: pytest.CaptureFixture[str]):
    words = ["train", "-m", "--config-dir", "mine", *FAST, "seed=1,2"]
    for name, extra in {"a": "hydra/launcher=basic", "b": "hydra/sweeper=basic"}.items():
        assert main([*words, extra, f"hydra.sweep.dir={name}"]) == 0
    one, other = (
        {path.parent.name: _decisive(json.loads(path.read_text())) for path in Path(name).glob("*/summary.json")}
        for name in "ab"
    )
    assert len(one) == 2
    assert one == other


def test_jobs_of_a_stack_are_runs_as_they_would_be_alone(mine: Path, capfd: pytest.CaptureFixture[str]):
    words = ["train", "-m", "data=moons", "model.widths=[8]", "trainer.max_steps=30", "trainer.eval_every=10"]
    words += ["optimizer.lr=1e-3,1e-2", "seed=0,1"]
    assert main([*words, "hydra.launcher.jobs=1", "hydra.sweep.dir=stack"]) == 0  # where it is known to pay
    assert main([*words, "hydra.launcher.stack=false", "hydra.sweep.dir=alone"]) == 0
    stack, alone = (
        {path.parent.name: json.loads(path.read_text()) for path in Path(name).glob("*/summary.json")}
        for name in ("stack", "alone")
    )
    assert [_stacked(Path("stack", name)) for name in stack] == [4, 4, 4, 4]
    assert [_stacked(Path("alone", name)) for name in alone] == [None] * 4
    for name, run in stack.items():
        assert run["status"] == alone[name]["status"]
        assert run["metrics"] == pytest.approx(alone[name]["metrics"], rel=1e-4)
        assert run["best"]["metrics"] == pytest.approx(alone[name]["best"]["metrics"], rel=1e-4)
    words = ["train", "-m", *FAST[:1], "trainer.max_steps=2", "trainer.accumulate=2", "seed=0,1"]
    assert main([*words, "hydra/launcher=vectorised"]) == 0
    assert "trainer.accumulate=2 cannot be trained in a stack" in capfd.readouterr().out


def _stacked(folder: Path) -> int | None:
    known = json.loads((folder / "provenance.json").read_text()).get("stacked")
    return None if known is None else int(known)
