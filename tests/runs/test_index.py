"""The index beside the runs: what it spares, and that nothing old is told."""

import builtins
import fcntl
import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dlrun.runs.index import NAME, Entry, RunIndex
from tests.recorded_runs import SGD, make_run

COUNT = 25


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    return [
        make_run(tmp_path / f"run_{i:02}", {"seed": i, **(SGD if i % 2 else {})}, val=i / COUNT, test=0.5)
        for i in range(COUNT)
    ]


def read(runs: list[Path]) -> list[Entry]:
    index = RunIndex()
    entries = index.read(runs)
    index.save()
    return entries


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """The names of the files opened since the last call."""
    names: list[str] = []
    real = io.open

    def counting(file, *rest, **more):
        names.append(os.path.basename(file) if isinstance(file, (str, os.PathLike)) else "")
        return real(file, *rest, **more)

    monkeypatch.setattr(io, "open", counting)
    monkeypatch.setattr(builtins, "open", counting)

    def since() -> list[str]:
        found = list(names)
        names.clear()
        return found

    return since


def test_the_second_time_one_file_is_opened_and_says_the_same(runs: list[Path], opened: Callable[[], list[str]]):
    first = read(runs)
    assert len(opened()) > 3 * COUNT
    assert read(runs) == first
    assert opened() == [NAME]
    assert first[7].config["optimizer._target_"] == "torch.optim.SGD"
    assert "optimizer.betas" not in first[7].config
    assert first[8].config["optimizer.betas"] == (0.9, 0.999)
    assert first[8].metrics["val/accuracy"] == 8 / COUNT


def test_only_what_has_changed_is_read_again(runs: list[Path], opened: Callable[[], list[str]]):
    read(runs)
    summary = json.loads((runs[3] / "summary.json").read_text())
    summary["best"]["metrics"]["val/accuracy"] = 0.123
    (runs[3] / "summary.json").write_text(json.dumps(summary))
    opened()
    assert read(runs)[3].metrics["val/accuracy"] == 0.123
    assert sum(name == "config.yaml" for name in opened()) == 1
    (runs[4] / "evaluation.json").write_text('{"test": {"best": {"test/ece": 0.04}}}')
    assert read(runs)[4].metrics["test/ece"] == 0.04


def test_runs_that_are_gone_are_forgotten_and_those_not_asked_for_are_kept(runs: list[Path]):
    read(runs)
    for file in runs[0].rglob("*.*"):
        if file.is_file():
            file.unlink()
    for folder in (runs[0] / ".hydra", runs[0]):
        folder.rmdir()
    os.utime(runs[1] / "summary.json", (1, 1))
    read(runs[1:3])
    lines = (runs[1].parent / NAME).read_text().splitlines()
    assert {json.loads(line)[0] for line in lines[1:]} == {run.name for run in runs[1:]}


@pytest.mark.parametrize(
    "damage", ["", "[1]\n", '{"a": 1}\n', "[99, {}]\n", "\x00\xff", '[1, {}]\n["run_00", [1], 3]\n']
)
def test_a_damaged_index_is_made_anew(runs: list[Path], damage: str):
    expected = read(runs)
    (runs[0].parent / NAME).write_bytes(damage.encode("latin-1"))
    assert read(runs) == expected
    assert len((runs[0].parent / NAME).read_text().splitlines()) == COUNT + 1


def test_a_folder_that_cannot_be_written_works_and_a_small_one_stays_clean(
    runs: list[Path], monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    assert read(runs[:5])
    assert not (runs[0].parent / NAME).exists()
    monkeypatch.setattr("dlrun.runs.index.write_text", refuse)
    assert len(read(runs)) == COUNT
    assert not (runs[0].parent / NAME).exists()


def test_a_run_without_a_summary_runs_or_was_killed(tmp_path: Path):
    run = make_run(tmp_path / "run", status=None, curve={21: 0.7, 42: 0.8})
    entry = read([run])[0]
    assert entry.status == "killed"
    assert not entry.finished
    assert entry.metrics["val/accuracy"] == 0.8
    with (run / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert entry.status == "running"
    (run / "summary.json").write_text('{"status": "comp')
    assert read([run])[0].status == "unreadable"
    assert "summary.json cannot be read" in read([run])[0].problems[0]
