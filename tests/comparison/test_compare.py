"""The leaderboard: rows, columns, order, warnings; runs are made of their files alone."""

import csv
import io
import json
import math
import os
import statistics
import sys
from pathlib import Path

import pytest

import dlrun
from dlrun.comparison import Comparison, compare
from dlrun.comparison.formats import FORMATS, render
from dlrun.errors import MissingExtraError, UsageError
from tests.recorded_runs import SGD, make_run

ADAMW, SGD_SEEDS = [0.91, 0.93, 0.95], [0.80, 0.85, 0.90]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two optimizers, three seeds each."""
    for seed, (a, b) in enumerate(zip(ADAMW, SGD_SEEDS, strict=True)):
        make_run(tmp_path / f"a{seed}", {"seed": seed}, val=a, test=a - 0.1, choices={"optimizer": "adamw"})
        make_run(tmp_path / f"b{seed}", {"seed": seed, **SGD}, val=b, test=b + 0.1, choices={"optimizer": "sgd"})
    return tmp_path


def of(folder: Path, **more) -> Comparison:
    return compare([str(folder)], **more)


def warned(comparison: Comparison) -> str:
    return "\n".join(comparison.warnings)


def test_runs_that_differ_in_their_seed_are_one_row_and_the_best_is_first(runs: Path):
    found = of(runs)
    assert found.columns == ["optimizer", "optimizer.lr"]
    assert [row.shared("optimizer") for row in found.rows] == ["adamw", "sgd"]
    estimate = found.rows[1].estimate("val/accuracy")
    assert (estimate.n, estimate.mean) == (3, pytest.approx(0.85))
    assert estimate.std == pytest.approx(statistics.stdev(SGD_SEEDS))
    assert found.metrics == ["val/accuracy", "test/accuracy"]
    assert found.warnings == []
    by_test = of(runs, by="test/accuracy")
    assert [row.shared("optimizer") for row in by_test.rows] == ["sgd", "adamw"]
    assert "ordered by test/accuracy" in warned(by_test)


def test_columns_are_the_keys_that_differ_and_do_not_follow_from_a_part(tmp_path: Path):
    make_run(tmp_path / "1", {"augment.flip": {"_target_": "dlrun.augment.Flip", "p": 0.5}})
    make_run(tmp_path / "2", {"trainer.ema": {"decay": 0.99}, "model.dropout": 0.1})
    make_run(tmp_path / "3", {**SGD, "model.widths": [64], "name": "another name"})
    found = of(tmp_path)
    # Not optimizer.betas, optimizer.momentum, augment.flip.p, trainer.ema, name.
    assert found.columns == [
        *("optimizer", "optimizer.lr", "model.widths", "model.dropout", "augment.flip", "trainer.ema.decay")
    ]


def test_a_part_goes_by_its_choice_if_that_says_which(tmp_path: Path):
    for name, target, choice in (("1", "a.net", "small"), ("2", "b.net", "large"), ("3", "c.net", "large")):
        make_run(tmp_path / name, {"model._target_": target}, choices={"model": choice})
    assert [row.shared("model") for row in of(tmp_path, by="model").rows] == ["b.net", "c.net", "small"]


def test_a_loss_is_better_when_lower(runs: Path):
    make_run(runs / "c", {"model.dropout": 0.5}, summary={"best": {"metrics": {"val/loss": 0.1}}})
    found = of(runs, metric=["loss"])
    assert found.metrics == ["val/loss"]
    assert found.rows[0].shared("model.dropout") == 0.5


def test_the_same_configuration_twice_is_one_sample(runs: Path):
    make_run(runs / "z", {"seed": 0}, val=0.91)
    make_run(runs / "failed", {"seed": 1}, val=None, status="failed")
    found = of(runs)
    assert found.rows[0].estimate("val/accuracy").n == 3
    assert "2 runs repeat the configuration of another" in warned(found)
    assert len(of(runs, group_by=["none"]).rows) == 8


def test_runs_that_did_not_finish_are_not_in_the_mean_and_it_is_said(runs: Path):
    make_run(runs / "a3", {"seed": 3}, val=0.2, status="diverged")
    make_run(runs / "d", {"model.dropout": 0.5}, val=0.99, status="interrupted")
    found = of(runs)
    assert found.rows[0].estimate("val/accuracy").mean == pytest.approx(0.93)
    assert found.rows[-1].shared("model.dropout") == 0.5  # last, though it has the best number
    assert "means are of finished runs alone, in row 1 (3 completed, 1 diverged)" in warned(found)
    assert "rows without a finished run stand last, with what they had reached: 1" in warned(found)


@pytest.mark.parametrize(
    ("settings", "summary", "said"),
    [
        ({"trainer.epochs": 5}, {"epochs": 5.0}, "unequal budget: trainer.epochs is 5, 20"),
        ({"data.limit": 100}, {}, "unequal budget: data.limit is null, 100"),
        ({"model.dropout": 0.1}, {"epochs": 7.0, "status": "early_stopped"}, "7 to 20 epochs were trained: early"),
        ({"data.batch_size": 32}, {"steps": 840}, "unequal steps: 420 to 840 (data.batch_size 32, 64)"),
        ({"data.name": "moons"}, {}, "different data (digits, moons)"),
        ({"data.split_seed": 3, "model.dropout": 0.1}, {}, "data.split_seed differs between the rows: they are ranked"),
        ({"data.val_from": "test"}, {}, "data.val_from differs between the rows: they are ranked on different val"),
    ],
)
def test_what_makes_a_comparison_unfair(tmp_path: Path, settings: dict, summary: dict, said: str):
    make_run(tmp_path / "1")
    make_run(tmp_path / "2", settings, summary=summary)
    assert said in warned(of(tmp_path))


@pytest.mark.parametrize(
    ("provenance", "said"),
    [
        ({"data_fingerprint": "0000"}, "the data changed between runs"),
        ({"git": {"commit": "b" * 40}}, "different code: commits aaaaaaaaaaaa, bbbbbbbbbbbb"),
        ({"git": {"commit": "a" * 40, "diff": "+x"}}, "different code: commits aaaaaaaaaaaa, aaaaaaaaaaaa+"),
        ({"device": {"name": "H100"}}, "seconds are of different devices: cpu, H100"),
    ],
)
def test_runs_of_other_origin(tmp_path: Path, provenance: dict, said: str):
    git = {"git": {"commit": "a" * 40, "diff": ""}}
    make_run(tmp_path / "1", provenance=git)
    make_run(tmp_path / "2", {"seed": 1}, provenance=git | provenance)
    assert said in warned(of(tmp_path))


def test_group_by_pools_and_says_what(runs: Path):
    make_run(runs / "c", {"seed": 3, "optimizer.lr": 0.5}, val=0.5)
    found = of(runs, group_by=["optimizer"])
    assert {row.shared("optimizer"): len(row.records) for row in found.rows} == {"adamw": 4, "sgd": 3}
    assert "differ in optimizer.lr: its ± is not of seeds alone" in warned(found)


@pytest.mark.parametrize(
    ("conditions", "left"),
    [
        (["lr<0.01"], ["a0", "a1", "a2"]),
        (["optimizer.lr>=0.1", "seed!=1"], ["b0", "b2"]),
        (["optimizer=SGD"], ["b0", "b1", "b2"]),
        (["optimizer=torch.optim.AdamW", "seed=2"], ["a2"]),
        (["val/accuracy>0.92"], ["a1", "a2"]),
        (["betas=[0.9, 0.999]", "seed<=0"], ["a0"]),
        (["momentum!=0.9"], ["a0", "a1", "a2"]),  # who has none is not at 0.9
        (["momentum>0"], ["b0", "b1", "b2"]),
        (["run~B[01]$"], ["b0", "b1"]),
        (["limit=null", "seed=0"], ["a0", "b0"]),
        (["status=completed", "seconds<3", "seed=1"], ["a1", "b1"]),
    ],
    ids=str,
)
def test_where(runs: Path, conditions: list[str], left: list[str]):
    assert sorted(record.entry.path.name for record in of(runs, where=conditions).records) == left


def test_folds_share_examples_and_it_is_said(tmp_path: Path):
    for fold in range(3):
        make_run(tmp_path / f"{fold}", {"data.fold": fold, "data.folds": 3}, val=0.9 + fold / 100)
    assert "differ in data.fold: their training sets overlap" in warned(of(tmp_path))


def test_a_metric_that_only_some_runs_have(runs: Path):
    make_run(runs / "a3", {"seed": 3}, val=0.93)  # not tested
    assert "test/accuracy is of 3 of 4 runs in row 1" in warned(of(runs))


def test_by_loss_is_by_the_metric_though_a_setting_is_called_so(tmp_path: Path):
    for name, loss in (("1", 0.5), ("2", 0.1), ("3", 0.3)):
        best = {"best": {"metrics": {"val/loss": loss, "val/accuracy": 0.9}}}
        make_run(tmp_path / name, {"loss._target_": "dlrun.losses.auto", "model.dropout": loss}, summary=best)
    found = of(tmp_path, by="loss")
    assert found.by == found.metrics[0] == "val/loss"
    assert [row.shared("model.dropout") for row in found.rows] == [0.1, 0.3, 0.5]


def test_runs_of_one_seed_are_one_sample_whatever_else_a_row_pools(tmp_path: Path):
    gains = {(seed, lr): (seed + 1) / 100 + lr for seed in range(3) for lr in (0.1, 0.2)}
    for (seed, lr), gain in gains.items():
        for dropout, val in ((0.0, 0.5), (0.5, 0.5 + gain)):
            settings = {"seed": seed, "optimizer.lr": lr, "model.dropout": dropout}
            make_run(tmp_path / f"{seed}_{lr}_{dropout}", settings, val=val)
    found = of(tmp_path, group_by=["model.dropout"]).versus(1, 2)
    assert (found.n, found.matched) == ((3, 3), "seed, means over optimizer.lr")
    assert found.difference == pytest.approx(statistics.fmean(gains.values()))
    spread = statistics.stdev([(seed + 1) / 100 for seed in range(3)])
    assert found.high - found.low == pytest.approx(2 * 4.302653 * spread / 3**0.5, rel=1e-6)  # t, 2 degrees of freedom
    labels = [name for name, *_ in of(tmp_path, group_by=["model.dropout"]).pairs(1, 2)]
    assert sorted(labels) == sorted(f"seed={seed} optimizer.lr={lr}" for seed, lr in gains)


def test_what_is_equal_but_for_rounding_has_no_spread(tmp_path: Path):
    for seed, (a, b) in enumerate([(330, 329), (332, 331)]):
        make_run(tmp_path / f"a{seed}", {"seed": seed}, val=a / 360)
        make_run(tmp_path / f"b{seed}", {"seed": seed, "model.dropout": 0.5}, val=b / 360)
    found = of(tmp_path).versus(1, 2)
    assert math.isnan(found.p)
    assert "all differences are equal" in found.notes[0]
    for seed in range(3):
        make_run(tmp_path / f"c{seed}", {"seed": seed, "model.dropout": 0.7}, val=332 / 360 + seed * 1e-16)
    row = of(tmp_path).rows[0]
    assert row.estimate("val/accuracy").std == 0
    assert "0.9222 ± 0.0000" in str(of(tmp_path))


def test_the_best_is_marked_among_finished_runs_all_of_equal_ones(tmp_path: Path):
    for name, val, status in (("1", 0.9, "completed"), ("2", 0.9, "completed"), ("3", 0.99, "interrupted")):
        make_run(tmp_path / name, {"model.dropout": float(name) / 10}, val=val, status=status)
    assert render(of(tmp_path), "markdown").count("**0.9**") == 2
    assert "**0.99**" not in render(of(tmp_path), "markdown")


def test_versus_a_row_without_the_metric_names_that_row(runs: Path):
    make_run(runs / "c", {"model.dropout": 0.5}, val=None, status="failed")
    with pytest.raises(UsageError, match=r"row 3 has no val/accuracy, .* it is 1 failed"):
        of(runs).versus(1, 3)


def test_versus_pairs_by_seed(runs: Path):
    found = of(runs).versus(1, 2)
    assert found.paired
    assert found.difference == pytest.approx(statistics.mean(ADAMW) - statistics.mean(SGD_SEEDS))
    make_run(runs / "c", {"model.dropout": 0.5}, val=0.5)
    others = of(runs).against(1)
    assert [one.adjusted_p is None for one in others] == [False, True]


def test_every_format_holds_the_same_numbers(runs: Path):
    found = of(runs)
    for how in (*FORMATS, "html"):
        assert "adamw" in render(found, how, limit=1)
        assert "sgd" not in render(found, how, limit=1) or how == "html"
    rows = list(csv.DictReader(io.StringIO(render(found, "csv"))))
    content = json.loads(render(found, "json"))["rows"]
    assert [float(row["val/accuracy"]) for row in rows] == [row["val/accuracy"] for row in content]
    assert content[1]["val/accuracy.std"] == pytest.approx(0.05)
    assert "| **0.930 ± 0.020 [0.880, 0.980]** |" in render(found, "markdown")
    assert r"\textbf{0.930 $\pm$ 0.020 [0.880, 0.980]}" in render(found, "latex")
    assert r"optimizer.lr & n & val/accuracy $\uparrow$" in render(found, "latex")
    narrow = render(found, "table", width=90)
    assert max(map(len, narrow.splitlines()[2:])) <= 90
    assert "0.930 ± 0.020" in narrow
    assert found._repr_html_().count("<tr>") == 3


def test_from_python(runs: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(runs)
    found = dlrun.compare("a0", "b*", by="seconds")
    assert len(found.records) == 4
    assert found.to_dicts()[0]["n"] in {1, 3}
    assert found.rows[0].values == dlrun.compare("a0", "b*", by="seconds", where="seed<5").rows[0].values
    assert str(found).startswith("4 runs in 2 rows, by seconds; mean")


def test_a_frame_holds_the_rows_and_says_what_it_needs(runs: Path, monkeypatch: pytest.MonkeyPatch):
    found = of(runs)
    frame = found.to_frame()
    assert frame["val/accuracy"].tolist() == [row["val/accuracy"] for row in found.to_dicts()]
    assert frame.loc[1, "val/accuracy.std"] == pytest.approx(0.05)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtraError, match=r"Comparison.to_frame needs an optional package: .*dlrun\[pandas\]"):
        found.to_frame()


def test_words_that_name_runs(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sweep = tmp_path / "outputs" / "sweeps" / "2026-11-26_10-00-00_1d3efb9d"
    made = [make_run(sweep / f"{i}_seed={i}", {"seed": i}) for i in range(2)]
    made.append(make_run(tmp_path / "outputs" / "runs" / "latest", provenance={"run_id": "0dfbcd4f"}))
    make_run(tmp_path / "outputs" / "tune" / "2026-11-26_10-00-00_mine_9c0d1e2f" / "trials" / "0", {"seed": 7})
    os.utime(made[2] / "provenance.json", (2e9, 2e9))
    monkeypatch.chdir(tmp_path)
    counts = {(): 4, ("1d3efb9d",): 2, ("9c0d1e2f",): 1, ("last",): 1, ("0dfb",): 1, ("outputs", str(sweep)): 4}
    for words, count in counts.items():
        assert len(compare(words, group_by=["none"]).records) == count
    with pytest.raises(UsageError, match="Did you mean '2026-11-26_10-00-00_1d3efb9d'"):
        compare(["2026-11-26_10-00-00_1d3efb90"])
