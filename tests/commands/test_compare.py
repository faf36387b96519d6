"""What `dlrun compare` prints of runs that were trained."""

import json
import re
import shlex
from pathlib import Path

import pytest

from dlrun.commands.compare import HELP, parse
from dlrun.evaluation import answered_right

from .conftest import call

ROOT = Path(__file__).parents[2]
PAGES = {"help": HELP, **{name: (ROOT / name).read_text() for name in ("README.md", "docs/compare.md")}}
LINES = [
    (page, line) for page, text in PAGES.items() for line in re.findall(r"^dlrun (compare .*)$", text, re.MULTILINE)
]


@pytest.mark.parametrize(("page", "line"), [(page, line) for page, line in LINES if "[" not in line])
def test_what_the_pages_tell_to_type_is_understood(page: str, line: str):
    words = shlex.split(re.split(r"\s{3,}", line)[0])
    assert parse(words[1:])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two learning rates."""
    folder = tmp_path_factory.mktemp("compare")
    train = ["train", "data=iris", "model.widths=[8]", "trainer.max_steps=12", "trainer.device=cpu"]
    for rate in ("0.001", "0.1"):
        answer = call([*train, f"optimizer.lr={rate}", f"hydra.run.dir=runs/{rate}"], folder)
        assert answer.code == 0, answer
    return folder


def test_two_rows_are_compared_unasked_and_examples_on_demand(folder: Path):
    answer = call(["compare", "runs", "--mcnemar"], folder)
    assert answer.code == 0, answer
    assert answer.out.startswith("2 runs, by val/accuracy (higher is better)")
    assert "row 1: lr=0.1\nrow 2: lr=0.001\nrow 1 - row 2, val/accuracy" in answer.out
    assert "a single run on one side says nothing of chance" in answer.out
    right = {run.name: answered_right([run])[0] for run in (folder / "runs").iterdir()}
    for run, answers in right.items():
        summary = json.loads((folder / "runs" / run / "summary.json").read_text())
        assert answers.mean() == pytest.approx(summary["metrics"]["test/accuracy"])
    a, b = right["0.1"], right["0.001"]
    said = f"of 30 test examples {(a & ~b).sum()} are right in the first alone, {(b & ~a).sum()} in the second"
    assert re.search(rf"seed=0 +{said}", answer.out)
    assert answer.changes == []


def test_what_another_program_reads_holds_the_table_alone(folder: Path):
    answer = call(["compare", "runs", "--format", "json", "--columns", "lr", "--plot"], folder)
    assert [row["optimizer.lr"] for row in json.loads(answer.out)["rows"]] == [0.1, 0.001]
    assert "says nothing of chance" in answer.err
    assert "drawn: compare.png" in answer.err
    assert answer.changes == ["compare.png"]
    (folder / "compare.png").unlink()
