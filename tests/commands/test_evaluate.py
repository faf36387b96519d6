"""What `dlrun evaluate` prints and keeps."""

import json
import re
from pathlib import Path

import pytest

from .conftest import Answer, call

TRAIN = ("train", "data=iris", "trainer.max_steps=20", "trainer.device=cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs a and b, which differ in their seed."""
    folder = tmp_path_factory.mktemp("evaluate")
    for seed, name in enumerate("ab"):
        answer = call([*TRAIN, f"seed={seed}", "model.dropout=0.1", f"hydra.run.dir={name}"], folder)
        assert answer.code == 0, answer
    return folder


def table(answer: Answer) -> dict[str, list[float]]:
    """The rows of numbers by name."""
    assert answer.code == 0, answer
    rows = re.findall(r"^  (test/\S+)((?: +[-\d.e]+)+)$", answer.out, re.MULTILINE)
    return {name: [float(number) for number in numbers.split()] for name, numbers in rows}


def test_of_one_run_everything_is_printed_and_kept(folder: Path):
    answer = call(["evaluate", "a"], folder)
    assert answer.out.startswith("a  (best weights, test: 30 examples)\n")
    summary = json.loads((folder / "a" / "summary.json").read_text())["metrics"]
    rows = table(answer)
    for name, value in summary.items():
        assert rows[name] == [pytest.approx(value, rel=1e-5)]
    assert {"test/f1_macro", "test/auroc", "test/average_precision", "test/ece", "test/brier"} <= set(rows)
    assert [name for name in answer.changes if "/" in name] == [
        "a/evaluation.json",
        "a/plots/confusion.png",
        "a/plots/reliability.png",
    ]
    assert answer.out.splitlines()[-1].startswith("kept in a/evaluation.json, ")
    kept = json.loads((folder / "a" / "evaluation.json").read_text())["test"]["best"]
    assert {name: [pytest.approx(value, rel=1e-5)] for name, value in kept.items()} == rows


def test_of_several_runs_there_is_a_column_each_and_one_for_all(folder: Path):
    answer = call(["evaluate", "a", "b"], folder)
    rows = table(answer)
    assert answer.out.startswith("2 runs and the mean of their predictions")
    assert re.search(r"^ +1 +2 +ensemble$", answer.out, re.MULTILINE)
    assert len(rows["test/nll"]) == 3
    assert rows["test/nll"][2] <= sum(rows["test/nll"][:2]) / 2  # -ln is convex
    assert rows["test/nll"][0] == table(call(["evaluate", "a"], folder))["test/nll"][0]
    assert answer.changes == []


def test_temperature_and_dropout_say_what_they_did(folder: Path):
    answer = call(["evaluate", "b", "temperature=fit", "mc_dropout=3"], folder)
    assert re.search(r"^ +best +mc_dropout=3$", answer.out, re.MULTILINE)
    assert re.search(r"^temperature [\d.]+, fitted on val: nll [\d.]+ -> [\d.]+, ece", answer.out, re.MULTILINE)
    assert "test/mutual_information" in answer.out


def test_a_folder_that_cannot_be_written_is_evaluated(folder: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dlrun.evaluation.write_json", full)
    answer = call(["evaluate", "a"], folder)
    assert table(answer)
    assert answer.out.splitlines()[-1] == "not kept: a cannot be written (No space left on device)"
