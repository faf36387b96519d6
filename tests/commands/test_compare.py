"""What `dlrun compare` prints of runs that were trained."""

import json
import re
from pathlib import Path

import pytest

from dlrun.evaluation import answered_right

from .conftest import call


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two learning rates, two seeds each."""
    folder = tmp_path_factory.mktemp("compare")
    train = ["train", "data=iris", "model.widths=[8]", "trainer.max_steps=12", "trainer.device=cpu"]
    for rate in ("0.001", "0.1"):
        for seed in range(2):
            words = [f"optimizer.lr={rate}", f"seed={seed}", f"hydra.run.dir=runs/{rate}_{seed}"]
            answer = call([*train, *words], folder)
            assert answer.code == 0, answer
    return folder


def test_two_rows_are_compared_unasked_and_examples_on_demand(folder: Path):
    answer = call(["compare", "runs", "--mcnemar"], folder)
    assert answer.code == 0, answer
    assert answer.out.startswith("4 runs in 2 groups, by val/accuracy (higher is better)")
    assert "row 1: lr=0.1\nrow 2: lr=0.001\nrow 1 - row 2, val/accuracy" in answer.out
    assert "(2 pairs by seed)" in answer.out
    assert "cannot be below 0.5" in answer.out
    right = {run.name: answered_right([run])[0] for run in (folder / "runs").iterdir()}
    for run, answers in right.items():
        summary = json.loads((folder / "runs" / run / "summary.json").read_text())
        assert answers.mean() == pytest.approx(summary["metrics"]["test/accuracy"])
    for seed in range(2):
        a, b = right[f"0.1_{seed}"], right[f"0.001_{seed}"]
        said = f"of 30 test examples {(a & ~b).sum()} are right in the first alone, {(b & ~a).sum()} in the second"
        assert re.search(rf"seed={seed} +{said}", answer.out)
    assert answer.changes == []


def test_what_another_program_reads_holds_the_table_alone(folder: Path):
    answer = call(["compare", "runs", "--format", "json", "--columns", "lr", "--plot"], folder)
    assert [row["optimizer.lr"] for row in json.loads(answer.out)["rows"]] == [0.1, 0.001]
    assert "paired t test" in answer.err
    assert "drawn: compare.png" in answer.err
    assert answer.changes == ["compare.png"]
    (folder / "compare.png").unlink()
