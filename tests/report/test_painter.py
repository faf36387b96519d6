"""Curves drawn by a process beside the training one: the same picture, the same errors, and nothing left behind."""

import json
import time
from pathlib import Path

import pytest

from dlrun.report import painter
from dlrun.report.curves import plot_curves

RECORDS = [
    {"step": 10 * epoch, "epoch": float(epoch), "train/loss": 1 / epoch, "val/loss": 2 / epoch, "val/accuracy": 0.5}
    for epoch in range(1, 4)
]
WHAT = {"metric": "accuracy", "best_step": 20, "title": "a run"}


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    return path


@pytest.fixture
def expected(tmp_path: Path) -> bytes:
    path = tmp_path / "expected.png"
    plot_curves(RECORDS, path, **WHAT)
    return path.read_bytes()


@pytest.fixture
def drawn_here(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The pictures that this process has drawn."""
    seen: list[Path] = []

    def draw(records: list[dict], path: Path, **what: object) -> None:
        seen.append(path)
        plot_curves(records, path, **what)

    monkeypatch.setattr("dlrun.report.curves.plot_curves", draw)
    return seen


def have_cpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(painter, "_cpus", lambda: count)


def test_the_process_draws_what_would_be_drawn_here(
    metrics: Path, expected: bytes, drawn_here: list[Path], monkeypatch: pytest.MonkeyPatch
):
    have_cpus(monkeypatch, 2)
    pictures = [metrics.with_name(f"{name}.png") for name in "ab"]
    with painter.at_hand():
        process = painter._process
        painter.drawing(metrics, metrics.parent / "nowhere" / "b.png", **WHAT)  # by a run that fails and does not wait
        for picture in pictures:
            painter.drawing(metrics, picture, **WHAT)()
            assert picture.read_bytes() == expected
        with pytest.raises(OSError, match="No such file or directory"):
            painter.drawing(metrics, metrics.parent / "nowhere" / "a.png", **WHAT)()
    assert not drawn_here
    assert process is not None
    assert process.poll() is not None
    assert painter._process is None


def test_what_else_the_process_says_is_passed_over(
    metrics: Path, expected: bytes, drawn_here: list[Path], monkeypatch: pytest.MonkeyPatch
):
    have_cpus(monkeypatch, 2)
    said = """print("hello from a sitecustomize"); print(3); print('{"path"'); """
    monkeypatch.setattr(painter, "PROGRAM", said + painter.PROGRAM)
    picture = metrics.with_name("a.png")
    with painter.at_hand():
        painter.drawing(metrics, picture, **WHAT)()
    assert not drawn_here
    assert picture.read_bytes() == expected


@pytest.mark.parametrize("cpus", [1, 2])
def test_without_a_process_or_when_it_has_died_the_picture_is_drawn_here(
    cpus: int, metrics: Path, expected: bytes, drawn_here: list[Path], monkeypatch: pytest.MonkeyPatch
):
    have_cpus(monkeypatch, cpus)
    picture = metrics.with_name("a.png")
    with painter.at_hand():
        assert (painter._process is None) == (cpus == 1)
        wait = painter.drawing(metrics, picture, **WHAT)
        if painter._process is not None:
            painter._process.kill()
        wait()
    assert drawn_here == [picture]
    assert picture.read_bytes() == expected


def test_the_process_ends_with_the_one_that_started_it():
    process = painter._start()
    began = time.monotonic()
    assert process.stdin is not None
    process.stdin.close()
    process.wait(timeout=60)
    assert process.returncode == 0, time.monotonic() - began
    assert process.stdout is not None
    assert process.stdout.read() == ""
    process.stdout.close()
