"""Comparisons of nothing, by unknown names, and of runs that are damaged."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.recorded_runs import SGD, make_run

from .conftest import Answer, call


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Two runs in runs/, a regression in other/, and what is no run."""
    make_run(tmp_path / "runs" / "a", val=0.9, curve={21: 0.8})
    make_run(tmp_path / "runs" / "b", SGD, val=0.8)
    make_run(tmp_path / "failed" / "c", val=None, status="failed")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.csv").write_text("1\n")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "needles"),
    [
        ("", ["no run yet", "outputs", "dlrun train"]),
        ("nope", ["no run 'nope'", "'last'"]),
        ("empty", ["empty holds no run", "config.yaml"]),
        ("file.csv", ["file.csv is a file", "folder"]),
        ("zz*", ["'zz*' matches no run"]),
        ("runs --where optimizer.lr", ["'optimizer.lr'", "KEY=VALUE"]),
        ("runs --where optimiser.lr<1", ["no run has the key 'optimiser.lr'", "Did you mean 'optimizer.lr'?"]),
        ("runs --where _target_=x", ["no run has the key '_target_'"]),
        ("runs --where accuracy>2", ["leaves none of 2 runs", "val/accuracy is 0.9, 0.8"]),
        ("runs --where epochs>x", ["compares numbers", "'x'"]),
        ("runs --where run~(", ["no regular expression"]),
        ("runs --where seed=4", ["leaves none of 2 runs", "seed is 0"]),
        ("runs --by accurracy", ["--by", "no run has the key 'accurracy'", "Did you mean"]),
        ("runs --metric test/accuracy", ["none of 2 runs has it", "val/accuracy, val/loss", "Did you mean"]),
        ("failed --metric accuracy", ["none of 1 runs has it", "measured nothing yet"]),
        ("runs --group-by model.depth", ["--group-by", "no run has the key 'model.depth'"]),
        ("runs --columns lr,frob", ["--columns", "'frob'"]),
        ("runs --limit few", ["--limit", "a whole number", "'few'"]),
        ("runs --format markdwon", ["--format", "table, markdown, csv, json, latex", "Did you mean 'markdown'?"]),
        ("runs --versus 3", ["no row 3", "1 to 2"]),
        ("runs --versus 1,1", ["two that are not the same", "'1,1'"]),
        ("runs --versus best", ["--versus", "the number of one row", "'best'"]),
        ("runs --by", ["--by needs a value"]),
        ("runs --by seconds --by lr", ["--by is given twice", "'seconds' and 'lr'"]),
        ("runs --bye seconds", ["unknown option '--bye'", "Did you mean '--by'?"]),
        ("runs --plot curves.doc", ["no run 'curves.doc'"]),
        ("runs --plot=curves.doc", ["--plot curves.doc", ".png, .pdf, .svg"]),
        ("runs --plot=nope/curves.png", ["no folder nope"]),
        ("runs --plot-by lr", ["--plot-by says how --plot draws"]),
        ("runs --plot --plot-by dropout", ["--plot-by model.dropout", "1 value"]),
        ("runs --plot --metric loss", ["no metrics.jsonl", "val/loss"]),
        ("failed --mcnemar", ["--mcnemar compares two rows", "here are 1"]),
        ("runs --mcnemar", ["runs/a has no best.pt"]),
    ],
)
def test_refused(words: str, needles: list[str], work: Path):
    answer = call(["compare", *words.split()], work)
    answer.must_refuse(*needles)


def test_unreadable_runs_are_left_out_and_named(work: Path, dlrun: Callable[..., Answer]):
    (work / "runs" / "a" / "config.yaml").write_text("optimizer: [\n")
    (work / "runs" / "b" / "summary.json").write_text('{"status": "comp')
    answer = dlrun("compare", "runs")
    assert answer.code == 0, answer
    assert "! left out: a: config.yaml cannot be read" in answer.out
    assert "! b: summary.json cannot be read" in answer.out
    (work / "runs" / "b" / "config.yaml").write_text("")
    dlrun("compare", "runs").must_refuse("none of the 2 runs can be read", "config.yaml")


def test_runs_that_differ_in_nothing_are_shown_as_such(work: Path, dlrun: Callable[..., Answer]):
    make_run(work / "same" / "a")
    make_run(work / "same" / "b")
    answer = dlrun("compare", "same", "--group-by", "none")
    assert answer.code == 0, answer
    assert "! nothing differs between the rows" in answer.out


def test_failed_and_running_runs_are_rows(work: Path, dlrun: Callable[..., Answer]):
    make_run(work / "failed" / "d", {"seed": 1, "model.dropout": 0.5}, status=None, curve={21: 0.7})
    answer = dlrun("compare", "failed")
    assert answer.code == 0, answer
    assert "1 failed" in answer.out
    assert "1 killed" in answer.out
    assert "0.7" in answer.out
    assert answer.changes == []
