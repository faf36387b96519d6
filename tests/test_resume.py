"""A resumed run ends with the bits of the run that was never stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from dlrun import assembly
from dlrun.cli import main
from dlrun.config.compose import compose
from dlrun.engine.device import use_threads
from dlrun.engine.training import Training
from dlrun.experiment import resume, train
from dlrun.runs.console import Console
from dlrun.runs.directory import RunDirectory
from dlrun.session import FINISHED

RUN = [
    "data=digits",
    "data.limit=300",
    "model=cnn",
    "model.channels=[4,8]",
    "model.dropout=0.3",
    "augment=[translate,mixup]",
    "trainer.ema=0.95",
    "trainer.clip.norm=1",
    "trainer.accumulate=2",
    "data.batch_size=16",
    "trainer.epochs=3",
    "trainer.log_every=4",
    "trainer.eval_every=7",
    "trainer.checkpoint_every=5",
    "trainer.early_stopping.patience=20",
    "seed=3",
]


class Killed(BaseException):
    """Stands for SIGKILL: nothing after it gets to run, neither summary nor checkpoint."""


def content(folder: Path) -> dict[str, Any]:
    """All that must be equal: weights, optimizer, records without the clock, summary without the clock."""
    last = torch.load(folder / "checkpoints/last.pt", weights_only=True)
    best = torch.load(folder / "checkpoints/best.pt", weights_only=True)
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    summary = json.loads((folder / "summary.json").read_text())
    return {
        "train": last["state"]["train"],
        "random": last["state"]["random"],
        "best": best["model"],
        "records": [{key: value for key, value in record.items() if key != "time"} for record in records],
        "summary": {key: summary[key] for key in ("status", "steps", "best", "metrics")},
    }


def assert_equal(a: Any, b: Any, where: str = "") -> None:
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_equal(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{where}/{i}")
    else:
        assert a == b, where


def run_to(folder: Path, overrides: list[str], kill_at: list[int], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Train, dying without a word at each of the steps given, and resuming after it."""
    original = Training.tick
    deadline = list(kill_at)

    def tick(self: Training) -> float:
        if deadline and self.step >= deadline[0]:
            del deadline[0]
            raise Killed
        return original(self)

    monkeypatch.setattr(Training, "tick", tick)
    begin = [*overrides, f"hydra.run.dir={folder}"]
    try:
        train(compose(begin), Console())
    except Killed:
        while True:
            try:
                resume(RunDirectory(folder), Console())
                break
            except Killed:
                continue
    assert not deadline
    found = content(folder)
    # A run that diverged, or that a signal to this process has stopped, has another last step for a reason of its own.
    assert found["summary"]["status"] in FINISHED, (folder / "summary.json").read_text()
    return found


CASES = {
    "fp32": [],
    "bf16": ["trainer.precision=bf16"],
    "fp16": ["trainer.precision=fp16"],
    "streaming": ["data.loader=streaming", "data.workers=0"],
    "sgd-plateau": ["optimizer=momentum", "optimizer.lr=0.05", "scheduler=plateau", "scheduler.warmup=6"],
    "muon-onecycle": ["optimizer=muon", "scheduler=onecycle"],
    "restarts": ["scheduler=cosine_restarts", "optimizer=nadam", "callbacks=snapshots"],
    "early stop": ["trainer.early_stopping.patience=1", "trainer.eval_every=3", "optimizer.lr=0.3"],
    "max steps": ["trainer.max_steps=13", "trainer.early_stopping=null"],
    "deterministic": ["trainer.deterministic=true"],
    "sam": ["trainer.sam.adaptive=true", "trainer.lookahead.steps=3", "optimizer=momentum", "optimizer.lr=0.05"],
    "swa": ["trainer.ema=null", "trainer.swa={start: 20%, every: 4, lr: 1e-3}", "scheduler.interval=epoch"],
    "noise": ["trainer.gradient_noise={}", "trainer.clip={percentile: 20, history: 7, per_parameter: 1, agc: 0.1}"],
    "thawing": ["trainer.freeze={*: 40%, output: 0}", "trainer.penalty={l1: 1e-4, l2: 1e-3}"],
}


@pytest.mark.parametrize("case", CASES)
def test_killed_and_resumed_runs_equal_the_undisturbed_one_to_the_bit(case, tmp_path, monkeypatch):
    overrides = [*RUN, *CASES[case]]
    undisturbed = run_to(tmp_path / "whole", overrides, [], monkeypatch)
    steps = undisturbed["summary"]["steps"]
    # Before the first checkpoint, in mid-epoch between two checkpoints, and after the last step, before the test.
    disturbed = run_to(tmp_path / "killed", overrides, [2, steps // 2, steps - 2, steps], monkeypatch)
    assert_equal(undisturbed, disturbed)
    torch.use_deterministic_algorithms(False)


def test_the_speed_recipe_resumes_too(tmp_path, monkeypatch):
    """Weights that start from the data, images mirrored in turns, parameters that stop learning in mid-run."""
    overrides = [
        "experiment=cifar10_94", "data=digits", "data.limit=300", "data.batch_size=32", "model.widths=[8,8]",
        "trainer.max_steps=null", "trainer.epochs=4", "trainer.compile=false", "trainer.eval_every=10",
        "trainer.checkpoint_every=7", "optimizer.param_groups.until={whitening.bias: 2ep}", "seed=2",
    ]  # fmt: skip
    undisturbed = run_to(tmp_path / "whole", overrides, [], monkeypatch)
    steps = undisturbed["summary"]["steps"]
    assert_equal(undisturbed, run_to(tmp_path / "killed", overrides, [2, steps // 2, steps - 2, steps], monkeypatch))


def test_the_same_configuration_gives_the_same_bits_and_another_seed_does_not(tmp_path, monkeypatch):
    a = run_to(tmp_path / "a", RUN, [], monkeypatch)
    b = run_to(tmp_path / "b", RUN, [], monkeypatch)
    c = run_to(tmp_path / "c", [*RUN, "seed=4"], [], monkeypatch)
    assert_equal(a, b)
    assert a["records"] != c["records"]


# Wide enough for torch to divide its products and sums among threads, which changes their last bits.
WIDE = ["data=digits", "data.limit=300", "model=mlp", "model.widths=[512]", "data.batch_size=200", "trainer.epochs=3"]


def test_a_run_is_resumed_with_the_threads_it_began_with(tmp_path, monkeypatch, capsys):
    own = torch.get_num_threads()
    assemble, seen = assembly.assemble, []

    def in_another_shell(*arguments: Any, **options: Any) -> assembly.Assembly:
        if len(seen) == 2:
            torch.set_num_threads(5)  # what the resumed run finds, where OMP_NUM_THREADS is another
        made = assemble(*arguments, **options)
        seen.append(torch.get_num_threads())
        return made

    monkeypatch.setattr(assembly, "assemble", in_another_shell)
    try:
        torch.set_num_threads(3)
        undisturbed = run_to(tmp_path / "whole", WIDE, [], monkeypatch)
        disturbed = run_to(tmp_path / "killed", WIDE, [2], monkeypatch)
        assert seen == [3, 3, 3]
        assert_equal(undisturbed, disturbed)
        assert json.loads((tmp_path / "killed/provenance.json").read_text())["device"]["threads"] == 3
    finally:
        torch.set_num_threads(own)
        use_threads(None)
        torch.set_num_threads(own)
    assert "threads" not in capsys.readouterr().err


def test_a_run_uses_the_threads_asked_for_and_leaves_the_next_one_its_own(tmp_path):
    own = torch.get_num_threads()
    words = ["data=digits", "data.limit=100", "trainer.max_steps=1"]
    for threads, folder in (("2", "a"), ("3", "b"), ("null", "c")):
        train(compose([*words, f"trainer.threads={threads}", f"hydra.run.dir={tmp_path / folder}"]), Console())
    known = [json.loads((tmp_path / folder / "provenance.json").read_text())["device"]["threads"] for folder in "abc"]
    assert known == [2, 3, own]
    assert torch.get_num_threads() == own


def test_threads_that_somebody_sets_after_a_run_are_those_of_the_next():
    own = torch.get_num_threads()
    try:
        use_threads(own)  # as a run that is resumed does
        torch.set_num_threads(own + 2)
        use_threads(None)
        assert torch.get_num_threads() == own + 2
        use_threads(own + 1)
        use_threads(own + 3)
        use_threads(None)
        assert torch.get_num_threads() == own + 2
    finally:
        torch.set_num_threads(own)
        use_threads(None)


def dlrun(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "dlrun", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


LONG = [*RUN, "trainer.epochs=25", "trainer.early_stopping=null"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The content of a run that nobody stopped."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    process = dlrun("train", *LONG, f"hydra.run.dir={folder}")
    _, error = process.communicate()
    assert process.returncode == 0, error
    return content(folder)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_real_signals(number, tmp_path, undisturbed):
    """SIGKILL leaves what the last checkpoint holds; SIGINT and SIGTERM finish the step, save, and say how to go on."""
    process = dlrun("train", *LONG, f"hydra.run.dir={tmp_path / 'cut'}")
    wait_for(tmp_path / "cut/checkpoints/previous.pt", process)
    process.send_signal(number)
    out, error = process.communicate()
    if number != signal.SIGKILL:
        assert process.returncode == 128 + number, (out, error)
        assert f"dlrun resume {tmp_path / 'cut'}" in out
        assert json.loads((tmp_path / "cut/summary.json").read_text())["status"] == "interrupted"
    else:
        assert process.returncode == -9
    (tmp_path / "cut/checkpoints/.last.pt.1.tmp").write_bytes(b"half of a checkpoint")
    assert main(["resume", str(tmp_path / "cut")]) == 0
    assert not list((tmp_path / "cut/checkpoints").glob(".*"))
    assert_equal(undisturbed, content(tmp_path / "cut"))


def test_two_processes_do_not_train_the_same_run(tmp_path, capsys):
    folder = tmp_path / "run"
    train(compose([*RUN, "trainer.epochs=1", f"hydra.run.dir={folder}"]), Console())
    (folder / "summary.json").unlink()
    with RunDirectory(folder).locked():
        assert main(["resume", str(folder)]) == 2
    assert "being trained by another process" in capsys.readouterr().err
