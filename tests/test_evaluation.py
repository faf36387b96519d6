"""Recorded runs evaluated: alone, together, with dropout, at another temperature; against what is computed by hand."""

import json
import math
import shutil
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import dlrun
from dlrun import evaluation, splitting
from dlrun.assembly import assemble
from dlrun.cli import main
from dlrun.contracts import Arrays, DataSpec, Kind, Splits, Task
from dlrun.engine import checkpoint
from dlrun.errors import UsageError
from dlrun.evaluation import bleu, evaluate
from dlrun.members import require_same_task
from dlrun.metrics import SCORES
from dlrun.runs.directory import RunDirectory

QUICK = (
    "trainer.max_steps=12",
    "trainer.eval_every=6",
    "model.widths=[16]",
    "trainer.device=cpu",
    "data.val_fraction=0.2",
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs of a few steps, by name."""
    folder = tmp_path_factory.mktemp("runs")
    settings = {
        "one": ["seed=0", "model.dropout=0.3", "trainer.metrics=[f1_macro,ece]"],
        "two": ["seed=1"],
        "bagged": ["seed=2", "data.bootstrap=1", "data.batch_size=50"],
        "moved": ["seed=0", "data.split_seed=1"],
        "numbers": ["data=diabetes", "seed=0"],
        "other numbers": ["data=diabetes", "seed=1", "data.bootstrap=3"],
    }
    made = {}
    for name, words in settings.items():
        base = [] if any(word.startswith("data=") for word in words) else ["data=wine"]
        run = dlrun.train([*base, *QUICK, *words, f"hydra.run.dir={folder / name}"], quiet=True)
        made[name] = RunDirectory(run.path)
    return made


def logits_of(run, split="test"):
    """Outputs of a run's best model, and the targets, without any of the code under test."""
    a = assemble(run.read_config())
    a.model.load_state_dict(torch.load(run.best, weights_only=True)["model"])
    examples = getattr(a.splits, split)
    batch = examples.take(torch.arange(len(examples)))
    with torch.no_grad():
        return a.model.eval()(batch.inputs), batch.targets


def test_one_run_has_every_score_and_the_numbers_of_its_summary(runs):
    result = evaluate([runs["one"]])
    metrics = result.last.metrics
    summary = runs["one"].read_json(runs["one"].summary)["metrics"]
    assert summary == {name: pytest.approx(metrics[name]) for name in summary}
    assert set(summary) == {"test/loss", "test/accuracy", "test/f1_macro", "test/ece"}
    # wine has 3 classes, too few for top5
    assert set(metrics) == {"test/loss", "test/accuracy"} | {f"test/{name}" for name in SCORES if name != "top5"}
    assert metrics["test/nll"] == pytest.approx(metrics["test/loss"])
    assert result.examples == result.last.answers.confusion.sum() == 36


def test_chosen_scores_are_recorded_at_every_validation(runs):
    records = [r for r in runs["one"].read_metrics() if "val/loss" in r]
    assert len(records) == 2
    assert all({"val/f1_macro", "val/ece"} <= set(record) for record in records)
    assert not any("train/f1_macro" in record for record in records)


@pytest.mark.parametrize("names", [("one", "two"), ("one", "two", "bagged")])
def test_an_ensemble_is_the_mean_of_the_probabilities(runs, names):
    result = evaluate([runs[name] for name in names])
    assert list(result.columns) == [*(str(i) for i in range(1, len(names) + 1)), "ensemble"]
    logits, targets = zip(*(logits_of(runs[name]) for name in names), strict=True)
    assert all(torch.equal(each, targets[0]) for each in targets)
    p = torch.stack(logits).softmax(-1).mean(0)
    metrics = result.last.metrics
    assert metrics["test/accuracy"] == (p.argmax(-1) == targets[0]).double().mean().item()
    assert metrics["test/nll"] == pytest.approx(-p.gather(1, targets[0][:, None]).log().mean().item(), rel=1e-5)
    assert metrics["test/loss"] == pytest.approx(metrics["test/nll"], rel=1e-5)
    for number, name in enumerate(names, 1):
        assert result.columns[str(number)].metrics == evaluate([runs[name]]).last.metrics


def test_a_loss_that_takes_no_log_probabilities_is_not_told_of_an_ensemble(tmp_path):
    words = ["data=moons", "loss=bce", "trainer.max_steps=4", "model.widths=[4]", "trainer.device=cpu"]
    made = [dlrun.train([*words, f"seed={k}", f"hydra.run.dir={tmp_path / str(k)}"], quiet=True) for k in range(2)]
    result = evaluate([RunDirectory(run.path) for run in made])
    assert "test/loss" in result.columns["1"].metrics
    assert "test/loss" not in result.last.metrics
    assert "test/nll" in result.last.metrics


def test_an_ensemble_of_numbers_is_their_mean_in_their_own_units(runs):
    pair = [runs["numbers"], runs["other numbers"]]
    values = []
    for run in pair:
        outputs, targets = logits_of(run)
        spec = assemble(run.read_config()).spec
        mean, std = torch.tensor(spec.target_mean), torch.tensor(spec.target_std)
        values.append(outputs * std + mean)
        true = targets * std + mean
    metrics = evaluate(pair).last.metrics
    assert metrics["test/rmse"] == pytest.approx((sum(values) / 2 - true).square().mean().sqrt().item(), rel=1e-4)
    assert metrics["test/spread"] == pytest.approx((values[0] - values[1]).abs().mean().item() / 2, rel=1e-4)


@pytest.mark.parametrize(
    ("names", "split", "needles"),
    [
        (("one", "moved"), "test", ["runs 1 and 2", "test splits", "data.split_seed: 0 -> 1"]),
        (("one", "two", "moved"), "test", ["runs 1 and 3"]),
        (("one", "numbers"), "test", ["task", "wine", "diabetes"]),
        (("one", "bagged"), "train", ["train splits", "data.bootstrap"]),
    ],
)
def test_runs_that_answer_other_questions_are_refused(runs, names, split, needles):
    with pytest.raises(UsageError) as error:
        evaluate([runs[name] for name in names], split)
    assert all(needle in str(error.value) for needle in needles), error.value


def test_snapshots_of_a_run_are_an_ensemble(runs, tmp_path):
    run = RunDirectory(shutil.copytree(runs["one"].path, tmp_path / "run"))
    content = checkpoint.load(run.best)
    logits = []
    for step in (2, 10):
        weights = {name: tensor * (1 + step / 10) for name, tensor in content["model"].items()}
        kept = {key: value for key, value in content.items() if key not in ("format", "model")}
        checkpoint.save(run.checkpoints / f"snapshot_{step}.pt", {**kept, "model": weights})
        a = assemble(run.read_config())
        a.model.load_state_dict(weights)
        batch = a.splits.test.take(torch.arange(len(a.splits.test)))
        with torch.no_grad():
            logits.append(a.model.eval()(batch.inputs))
    result = evaluate([run], which="snapshots")
    assert list(result.columns) == ["1", "2", "ensemble"]
    p = torch.stack(logits).softmax(-1).mean(0)
    expected = -p.gather(1, batch.targets[:, None]).log().mean().item()
    assert result.last.metrics["test/nll"] == pytest.approx(expected, rel=1e-5)
    first = nn.functional.cross_entropy(logits[0], batch.targets).item()
    assert result.columns["1"].metrics["test/nll"] == pytest.approx(first, rel=1e-5)  # oldest first: 2 before 10
    with pytest.raises(UsageError, match="callbacks=snapshots"):
        evaluate([runs["two"]], which="snapshots")
    with pytest.raises(UsageError, match="one run"):
        evaluate([run, runs["two"]], which="snapshots")


def test_a_fitted_temperature_is_that_of_validation_and_changes_no_answer(runs):
    metrics = evaluate([runs["two"]], temperature="fit").last.metrics
    outputs, targets = logits_of(runs["two"], "val")
    temperatures = torch.linspace(0.02, 3, 3000, dtype=torch.float64)
    losses = torch.stack([nn.functional.cross_entropy(outputs.double() / t, targets) for t in temperatures])
    assert metrics["test/temperature"] == pytest.approx(temperatures[losses.argmin()].item(), abs=2e-3)
    outputs, targets = logits_of(runs["two"])
    scaled = nn.functional.cross_entropy(outputs.double() / metrics["test/temperature"], targets).item()
    assert metrics["test/nll_scaled"] == pytest.approx(scaled, rel=1e-4)
    untouched = evaluate([runs["two"]], temperature=1.0).last.metrics
    for name in ("nll", "ece", "brier"):
        assert untouched[f"test/{name}_scaled"] == pytest.approx(untouched[f"test/{name}"], rel=1e-5)


def test_dropout_many_times_comes_near_its_mean_and_repeats(runs):
    few, again = (evaluate([runs["one"]], mc_dropout=3).last.metrics for _ in range(2))
    assert few == again
    result = evaluate([runs["one"]], mc_dropout=200)
    assert list(result.columns) == ["best", "mc_dropout=200"]
    metrics = result.last.metrics
    assert result.columns["best"].metrics == evaluate([runs["one"]]).last.metrics
    a = assemble(runs["one"].read_config())
    a.model.load_state_dict(torch.load(runs["one"].best, weights_only=True)["model"])
    batch = a.splits.test.take(torch.arange(len(a.splits.test)))
    torch.manual_seed(1)
    with torch.no_grad():
        p = torch.stack([a.model.train()(batch.inputs).softmax(-1) for _ in range(400)])
    entropy = torch.special.entr(p.mean(0)).sum(-1).mean().item()
    information = entropy - torch.special.entr(p).sum(-1).mean().item()
    assert metrics["test/entropy"] == pytest.approx(entropy, rel=0.02)
    assert metrics["test/mutual_information"] == pytest.approx(information, rel=0.1)


@pytest.mark.parametrize(
    ("names", "settings", "needles"),
    [
        (["two"], {"mc_dropout": 5}, ["mc_dropout=5", "nothing is dropped", "model.dropout"]),
        (["one", "two"], {"mc_dropout": 5}, ["one model", "2"]),
        (["numbers"], {"temperature": "fit"}, ["temperature=fit", "regression"]),
    ],
)
def test_what_does_not_go_together_is_refused(runs, names, settings, needles):
    with pytest.raises(UsageError) as error:
        evaluate([runs[name] for name in names], **settings)
    assert all(needle in str(error.value) for needle in needles), error.value


def test_what_is_kept_adds_up_and_is_not_in_the_way_of_training(runs, tmp_path):
    run = RunDirectory(shutil.copytree(runs["one"].path, tmp_path / "run"))
    for split, draws in (("test", None), ("val", 4)):
        result = evaluate([run], split, mc_dropout=draws)
        paths = evaluation.keep(result, run, "best")
    assert [path.name for path in paths] == ["evaluation.json", "confusion.png", "reliability.png"]
    assert all(path.stat().st_size > 100 for path in paths)
    kept = json.loads(paths[0].read_text())
    assert {split: list(by) for split, by in kept.items()} == {"test": ["best"], "val": ["best", "mc_dropout=4"]}
    assert kept["val"]["mc_dropout=4"] == result.last.metrics
    # The same run, interrupted in the middle: resuming it ends as if nobody had looked at it.
    run.summary.unlink()
    assert main(["resume", str(run.path)]) == 0
    metrics = run.read_json(run.summary)["metrics"]
    assert metrics == runs["one"].read_json(runs["one"].summary)["metrics"]


def test_bleu_is_the_geometric_mean_of_matching_runs():
    pytest.importorskip("sacrebleu")
    # Of the runs of 1, 2, 3 and 4 words, 5/6, 3/5, 2/4 and 1/3 are in the reference, which is as long.
    expected = 100 * (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25
    assert bleu(["the cat sat on the mat"], ["the cat sat on a mat"]) == pytest.approx(expected)
    assert bleu(["123456"], ["123496"], by_character=True) == pytest.approx(
        100 * (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25
    )
    # A text of 6 words for one of 8 that begins with them is right in all it says, and cut down for what it leaves out.
    assert bleu(["a b c d e f"], ["a b c d e f g h"]) == pytest.approx(100 * math.exp(1 - 8 / 6))


def test_reconstructions_on_different_scales_are_not_mixed():
    def bagged(bootstrap: int) -> SimpleNamespace:
        raw = Splits(
            Arrays(torch.arange(80.0).view(40, 2), torch.arange(40) % 2),
            DataSpec("v", Task.CLASSIFICATION, Kind.VECTOR, (2,), 2),
        )
        splits = splitting.complete(raw, bootstrap=bootstrap, reconstruct=True)
        return SimpleNamespace(spec=splits.spec, splits=splits, config={"data": {"bootstrap": bootstrap}})

    require_same_task(bagged(1), bagged(1), "test", "runs 1 and 2")
    with pytest.raises(UsageError, match="their test splits hold other examples"):
        require_same_task(bagged(1), bagged(2), "test", "runs 1 and 2")
