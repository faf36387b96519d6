"""A disk that fills up while a run is saved: said in a sentence, nothing half-written, and the run can go on."""

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import dlrun

from .conftest import Answer, call

ROOT = Path(dlrun.__file__).parent.parent
TRAIN = ("train", "data=iris", "model.widths=[256]", "trainer.epochs=3", "trainer.device=cpu", "hydra.run.dir=run")

# Runs in a mount namespace of its own, where anybody may mount a small file system.
DRIVER = """
import contextlib, io, json, os, shutil, subprocess, sys
from pathlib import Path
from dlrun.cli import main
words, kilobytes, folder, keep = json.load(sys.stdin)

def run(words):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    return [code, out.getvalue(), err.getvalue(), sorted(str(path) for path in Path("run").rglob("*"))]

answers = []
for size in kilobytes:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "none", folder], check=True)
    os.chdir(folder)
    full = run(words)
    subprocess.run(["mount", "-o", "remount,size=20m", folder], check=True)
    answers.append([full, run(["resume", "run"] if full[3] else words)])
    shutil.copytree("run", f"{keep}/{size}")
    os.chdir("/")
    subprocess.run(["umount", folder], check=True)
json.dump(answers, sys.stdout)
"""


def weights(run: Path) -> dict[str, torch.Tensor]:
    """The last weights of a run."""
    state = torch.load(run / "checkpoints" / "last.pt", weights_only=True)["state"]
    return dict(state["train"]["model"])


def must_equal(run: Path, other: Path) -> None:
    """The same weights to the bit, and the same records but for the time."""
    assert all(torch.equal(a, b) for a, b in zip(weights(run).values(), weights(other).values(), strict=True))

    def records(path: Path) -> list[dict[str, float]]:
        lines = (path / "metrics.jsonl").read_text().splitlines()
        return [{**json.loads(line), "time": 0} for line in lines]

    assert records(run) == records(other)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run as it is with room enough."""
    folder = tmp_path_factory.mktemp("room")
    assert call(TRAIN, folder).code == 0
    return folder / "run"


def may_mount(folder: Path) -> bool:
    """Whether `unshare` may make a namespace in which a file system can be mounted."""
    if shutil.which("unshare") is None:
        return False
    mount = ["mount", "-t", "tmpfs", "none", str(folder)]
    return subprocess.run(["unshare", "-rm", *mount], capture_output=True, check=False).returncode == 0


def unshared(driver: str, given: Any) -> Any:
    """What a script answers that may mount file systems of its own; both in JSON."""
    done = subprocess.run(
        ["unshare", "-rm", sys.executable, "-c", driver],
        input=json.dumps(given),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_a_small_file_system_that_fills_up(tmp_path: Path, undisturbed: Path):
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    if not may_mount(disk):
        pytest.skip(
            "a small file system cannot be mounted here (unshare -rm); the limit on file sizes is tried instead"
        )
    sizes = (8, 20, 48, 112)  # kB: no run directory; no log; no last.pt; no plot
    told = unshared(DRIVER, [TRAIN, sizes, str(disk), str(kept)])
    answers = {size: (Answer(TRAIN, *full), resumed) for size, (full, resumed) in zip(sizes, told, strict=True)}
    answers[8][0].must_refuse("hydra.run.dir=", "disk/run cannot be written", "No space left")
    for size in sizes[1:]:
        full = answers[size][0]
        assert full.code == 1, full
        assert full.err.count("\n") == 1, full.err
        assert full.err.startswith("dlrun: "), full.err
        assert "No space left" in full.err
        assert "once there is room: dlrun resume " in full.err
        assert not [name for name in full.changes if "tmp" in name]
    assert "last.pt" in answers[48][0].err
    for size in sizes:
        assert answers[size][1][0] == 0, answers[size][1]
        must_equal(kept / str(size), undisturbed)


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes: what exceeds it is refused as by a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_checkpoint_that_cannot_be_written(tmp_path: Path, undisturbed: Path):
    with files_up_to(40_000):
        answer = call(TRAIN, tmp_path)
    assert answer.code == 1
    assert answer.err.startswith("dlrun: cannot write ")
    assert answer.err.count("\n") == 1
    assert "last.pt: File too large" in answer.err
    assert "dlrun resume " in answer.err
    assert not [path for path in tmp_path.rglob("*") if "tmp" in path.name]
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "failed"
    assert call(["resume", "run"], tmp_path).code == 0
    must_equal(tmp_path / "run", undisturbed)


# A sweep on a disk that is full after its first jobs, then has room; and beside it the same sweep, undisturbed.
SWEEP_DRIVER = """
import contextlib, io, json, os, subprocess, sys
from pathlib import Path
from dlrun.cli import main
words, folder = json.load(sys.stdin)

def run(*more):
    err = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
        code = main([*words, *more])
    return [code, err.getvalue()]

def table(name):
    paths = sorted(Path(name).glob("*/summary.json"))
    return {path.parent.name: json.loads(path.read_text()) for path in paths}

subprocess.run(["mount", "-t", "tmpfs", "-o", "size=500k", "none", folder], check=True)
os.chdir(folder)
full, then = run("hydra.sweep.dir=one"), table("one")
subprocess.run(["mount", "-o", "remount,size=40m", folder], check=True)
answers = [full, then, run("hydra.sweep.dir=one"), table("one"), run("hydra.sweep.dir=other"), table("other")]
json.dump(answers, sys.stdout)
"""


def test_a_sweep_whose_disk_fills_up_loses_nothing_and_repeats_nothing(tmp_path: Path):
    if not may_mount(tmp_path):
        pytest.skip("a small file system cannot be mounted here (unshare -rm)")
    words = ["train", "-m", *TRAIN[1:-1], "seed=range(4)", "hydra.launcher.jobs=1", "hydra.launcher.stack=false"]
    told = unshared(SWEEP_DRIVER, [words, str(tmp_path)])
    (code, said), then, (again, _), after, (other, _), undisturbed = told
    assert (code, again, other) == (1, 0, 0)
    assert "No space left on device" in said
    assert all(line.startswith(("dlrun: ", "failed: ")) for line in said.splitlines())
    finished = {name: summary for name, summary in then.items() if summary["status"] == "completed"}
    assert 0 < len(finished) < 4
    assert all(after[name] == summary for name, summary in finished.items())  # to the second: not done again

    def decisive(table: dict[str, dict[str, object]]) -> dict[str, list[object]]:
        return {name: [one[key] for key in ("status", "steps", "best", "metrics")] for name, one in table.items()}

    assert decisive(after) == decisive(undisturbed)
