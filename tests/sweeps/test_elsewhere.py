"""What is made of jobs that another launcher has run in processes of its own."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dlrun.sweeps.elsewhere import Jobs


def returned(folder: Path, status: str | None, **more: str) -> Any:
    folder.mkdir()
    if status is not None:
        (folder / "summary.json").write_text(json.dumps({"status": status, **more}))
    runtime = SimpleNamespace(output_dir=str(folder))
    return SimpleNamespace(hydra_cfg=SimpleNamespace(hydra=SimpleNamespace(runtime=runtime)))


def test_their_folders_say_how_they_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    good = returned(tmp_path / "0", "completed")
    bad = returned(tmp_path / "1", "failed", error="ValueError: no")
    lost = returned(tmp_path / "2", None)
    assert Jobs().report([[good]]) == 0
    assert Jobs().report([[good, bad], [lost]]) == 1
    said = capsys.readouterr()
    assert "1 of 3 jobs finished" in said.out
    assert "failed: 1: ValueError: no" in said.err
    assert "failed: 2: it left no summary" in said.err
    assert Jobs().report(None) == 0
