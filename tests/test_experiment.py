"""Runs from beginning to end: what they record, how they end, and what can be done with them afterwards."""

import csv
import importlib.util
import json
import math
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import dlrun
from dlrun.cli import main
from dlrun.config.compose import compose
from dlrun.engine.callbacks import Callback
from dlrun.engine.training import Training
from dlrun.experiment import train
from dlrun.runs.console import Console, Quiet
from dlrun.runs.directory import RunDirectory

QUICK = ["data.limit=400", "trainer.epochs=3", "model.widths=[32]"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run on the digits, good enough to predict with."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    return train(compose(["trainer.epochs=8", "optimizer.lr=0.003", f"hydra.run.dir={folder}"]), Console(view=Quiet()))


def test_the_default_run_learns_the_digits_and_leaves_everything_the_design_promises(finished):
    summary = finished.read_json(finished.summary)
    assert summary["status"] == "completed"
    assert summary["metrics"]["test/accuracy"] >= 0.96
    assert summary["steps"] == 8 * 21
    assert summary["parameters"] == 64 * 256 + 256 + 512 + 256 * 128 + 128 + 256 + 128 * 10 + 10
    assert {"epoch", "step", "metrics"} == set(summary["best"])
    assert summary["samples_per_second"] > 0
    for name in ("config.yaml", "provenance.json", "metrics.jsonl", "train.log", ".hydra/overrides.yaml"):
        assert (finished.path / name).stat().st_size > 0
    with Image.open(finished.plots / "curves.png") as picture:
        assert picture.size[0] > 600
    records = finished.read_metrics()
    assert all({"step", "epoch", "time"} <= set(record) for record in records)
    validations = [record for record in records if "val/loss" in record]
    assert [record["epoch"] for record in validations] == list(range(1, 9))
    assert {"train/loss", "train/accuracy", "val/loss", "val/accuracy", "lr"} <= set(validations[0])
    assert "test/accuracy" in records[-1]
    provenance = finished.read_json(finished.provenance)
    assert provenance["packages"]["torch"].startswith(torch.__version__.split("+")[0])
    assert provenance["run_id"] in finished.path.name or len(provenance["run_id"]) == 8


def test_a_run_is_repeated_from_its_own_configuration_to_the_same_bits(here):
    assert main(["train", *QUICK, "hydra.run.dir=first"]) == 0
    assert main(["train", "--config-path", "first", "--config-name", "config", "hydra.run.dir=second"]) == 0
    first, second = (RunDirectory(here / name) for name in ("first", "second"))
    assert first.read_config() == second.read_config()
    assert first.read_json(first.provenance)["run_id"] == second.read_json(second.provenance)["run_id"]
    a, b = (torch.load(run.best, weights_only=True)["model"] for run in (first, second))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_evaluate_gives_the_number_of_the_summary(finished, capsys):
    assert main(["evaluate", str(finished)]) == 0
    accuracy = finished.read_json(finished.summary)["metrics"]["test/accuracy"]
    assert f"{accuracy:.6g}" in capsys.readouterr().out
    run = dlrun.load(str(finished.path))
    assert run.evaluate("val")["val/accuracy"] == run.summary["best"]["metrics"]["val/accuracy"]


def test_training_loss_is_the_mean_over_the_batches_of_the_epoch(here):
    """Against a loop of its own: same order, same arithmetic, nothing of the engine's bookkeeping."""
    words = [*QUICK, "trainer.epochs=1", "optimizer=sgd", "scheduler=constant", "trainer.log_every=4"]
    assert main(["train", *words, "hydra.run.dir=run"]) == 0
    from dlrun import assembly

    a = assembly.assemble(compose(words).config)
    t = assembly.prepare_training(a, lambda record: None, ())
    losses = []
    for batch in t.loader.epoch(0):
        a.model.zero_grad()
        loss = torch.nn.functional.cross_entropy(a.model(batch.inputs), batch.targets)
        loss.backward()
        with torch.no_grad():
            for parameter in a.model.parameters():
                parameter -= 0.01 * parameter.grad
        losses.append((float(loss.detach()), len(batch)))
    records = RunDirectory(here / "run").read_metrics()
    measured = next(record for record in records if "val/loss" in record)
    expected = sum(loss * count for loss, count in losses) / sum(count for _, count in losses)
    assert measured["train/loss"] == pytest.approx(expected, rel=1e-5)
    first = next(record for record in records if "train/step_loss" in record)
    assert first["train/step_loss"] == pytest.approx(np.mean([loss for loss, _ in losses[:4]]), rel=1e-5)
    a.model.eval()
    with torch.no_grad():
        inputs = a.evaluator("val").prepare(a.splits.val.take(torch.arange(len(a.splits.val))), 0).inputs
        outputs = a.model(inputs)
    assert measured["val/accuracy"] == pytest.approx(float((outputs.argmax(1) == a.splits.val.targets).float().mean()))
    expected = float(torch.nn.functional.cross_entropy(outputs, a.splits.val.targets))
    assert measured["val/loss"] == pytest.approx(expected, rel=1e-5)


def test_a_divergence_ends_the_run_with_step_lr_and_norm(here, capsys):
    words = ["optimizer=sgd", "optimizer.lr=1e9", "scheduler=constant", "model.norm=none", "trainer.log_every=5"]
    assert main(["train", *QUICK, *words, "hydra.run.dir=run"]) == 1
    summary = json.loads(Path("run/summary.json").read_text())
    assert summary["status"] == "diverged"
    assert 1 < summary["divergence"]["step"] <= 10
    assert summary["divergence"]["lr"] == 1e9
    out = capsys.readouterr().out
    assert f"at step {summary['divergence']['step']}" in out
    assert "trainer.clip.norm=1" in out
    assert not Path("run/checkpoints/last.pt").exists()  # nothing poisoned is kept as a state to resume
    assert main(["resume", "run"]) == 2
    assert "diverged" in capsys.readouterr().err


def test_a_divergence_that_is_found_as_an_interrupted_run_is_saved(here, monkeypatch):
    class Press(Callback):
        def on_step_end(self, training):
            if training.step == 6:
                signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("dlrun.build.build_callbacks", lambda config: [Press()])
    words = ["optimizer=sgd", "optimizer.lr=1e20", "scheduler=constant", "model.norm=none", "trainer.log_every=50"]
    run = train(compose([*QUICK, *words, "hydra.run.dir=run"]), Console(view=Quiet()))
    summary = run.read_json(run.summary)
    assert (summary["status"], summary["steps"]) == ("diverged", 6)
    assert summary["divergence"]["step"] < 6
    assert not run.last.exists()


def test_an_exception_in_training_is_recorded(here, monkeypatch, capsys):
    original = Training.tick

    def tick(self: Training) -> float:
        if self.step >= 4:
            raise ZeroDivisionError("in the user's part")
        return original(self)

    monkeypatch.setattr(Training, "tick", tick)
    assert main(["train", *QUICK, "trainer.log_every=4", "hydra.run.dir=run"]) == 1
    summary = json.loads(Path("run/summary.json").read_text())
    assert (summary["status"], summary["steps"]) == ("failed", 4)
    assert "in the user's part" in summary["error"]
    assert "ZeroDivisionError" in Path("run/traceback.txt").read_text()
    assert "Traceback" not in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.chdir(here)
    assert main(["resume", "run"]) == 0
    assert not Path("run/traceback.txt").exists()


def test_a_signal_finishes_the_step_saves_and_exits_130(here, capsys):
    class Press(Quiet):
        def evaluated(self, line: str) -> None:
            signal.raise_signal(signal.SIGINT)

    run = train(compose([*QUICK, "hydra.run.dir=run"]), Console(view=Press()))
    assert run.read_json(run.summary)["status"] == "interrupted"
    assert torch.load(run.last, weights_only=True)["state"]["step"] == run.read_json(run.summary)["steps"]
    from dlrun.experiment import exit_code

    assert exit_code(run) == 130


def test_early_stopping_waits_exactly_patience_validations_and_restores_the_best(here):
    words = ["optimizer=sgd", "optimizer.lr=1e-9", "scheduler=constant", "trainer.epochs=30"]
    assert main(["train", "data.limit=100", *words, "trainer.early_stopping.patience=4", "hydra.run.dir=run"]) == 0
    summary = json.loads(Path("run/summary.json").read_text())
    assert summary["status"] == "early_stopped"
    assert summary["epochs"] == 5  # the first is an improvement over nothing
    assert main(["train", "data.limit=100", *words, "trainer.early_stopping=null", "hydra.run.dir=all"]) == 0
    assert json.loads(Path("all/summary.json").read_text())["epochs"] == 30


def test_the_average_is_what_is_validated_tested_and_kept(here):
    assert main(["train", *QUICK, "trainer.ema=0.9", "trainer.early_stopping=null", "hydra.run.dir=run"]) == 0
    state = torch.load("run/checkpoints/last.pt", weights_only=True)["state"]["train"]
    assert not torch.equal(state["average"]["module"]["linear1.weight"], state["model"]["linear1.weight"])
    run = dlrun.load("run")
    tested = run.evaluate("test", "last")
    assert tested["test/accuracy"] == run.metrics["test/accuracy"]


def test_tensorboard_events_hold_the_records(here):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert main(["train", *QUICK, "logger=tensorboard", "hydra.run.dir=run"]) == 0
    events = EventAccumulator("run/tensorboard")
    events.Reload()
    records = [r for r in RunDirectory(here / "run").read_metrics() if "val/loss" in r]
    written = [(event.step, event.value) for event in events.Scalars("val/loss")]
    assert [step for step, _ in written] == [record["step"] for record in records]
    assert [value for _, value in written] == pytest.approx([record["val/loss"] for record in records], rel=1e-6)


def test_a_missing_extra_is_said_before_anything_is_written(here, monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorboard" else find(name))
    assert main(["train", *QUICK, "logger=tensorboard", "hydra.run.dir=run"]) == 2
    assert "pip install 'dlrun[tensorboard]'" in capsys.readouterr().err
    assert not list(here.iterdir())


def test_predict_an_image_a_folder_and_rows(here, finished, capsys):
    from sklearn.datasets import load_digits

    digits = load_digits()
    (here / "images/deep").mkdir(parents=True)
    for i in range(20):
        pixels = (digits.images[i] * 255 / 16).round().astype("uint8")
        Image.fromarray(pixels).save(here / ("images" if i < 10 else "images/deep") / f"{i:02}.png")
    assert main(["predict", str(finished), "images", "output=out.csv"]) == 0
    rows = list(csv.DictReader((here / "out.csv").read_text().splitlines()))
    right = sum(int(row["class"]) == digits.target[int(Path(row["input"]).stem)] for row in rows)
    assert len(rows) == 20
    assert right >= 18
    assert sum(float(rows[0][str(i)]) for i in range(10)) == pytest.approx(1, abs=1e-4)
    capsys.readouterr()
    assert main(["predict", str(finished), "images/03.png"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split(",")[1] == "3"


def test_predict_rows_in_the_targets_own_units(here, capsys):
    assert main(["train", "data=diabetes", "trainer.epochs=60", "model.widths=[16]", "hydra.run.dir=run"]) == 0
    from sklearn.datasets import load_diabetes

    table = load_diabetes(scaled=False)
    with (here / "rows.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["unused", *table.feature_names])
        writer.writerows([["x", *row] for row in table.data[:50].tolist()])
    capsys.readouterr()
    assert main(["predict", "run", "rows.csv"]) == 0
    values = [float(line.split(",")[1]) for line in capsys.readouterr().out.splitlines()[1:]]
    assert np.corrcoef(values, table.target[:50])[0, 1] > 0.5
    assert 80 < np.mean(values) < 220  # the target runs from 25 to 346
    summary = json.loads(Path("run/summary.json").read_text())
    assert 40 < summary["metrics"]["test/rmse"] < 75


def test_plan_says_what_would_run_and_writes_nothing(here, capsys):
    assert main(["plan", "trainer.epochs=2", "optimizer.lr=0.5", "scheduler=cosine"]) == 0
    out = capsys.readouterr().out
    assert "51,594 parameters" in out
    assert "42: 2 epochs of 21" in out
    assert "to 0.5\n" in out
    assert "val/accuracy (higher is better)" in out
    assert not list(here.iterdir())
    assert main(["plan", "-m", "seed=0,1"]) == 2
    assert "leave out -m" in capsys.readouterr().err


def test_a_sweep_runs_every_job_also_after_one_has_failed(here, capsys):
    words = ["optimizer=sgd", "scheduler=constant", "model.norm=none", "optimizer.lr=0.1,1e9", "seed=0,1"]
    assert main(["train", "-m", *QUICK, *words, "hydra.sweep.dir=sweep"]) == 1
    summaries = [json.loads(path.read_text()) for path in sorted(Path("sweep").glob("*/summary.json"))]
    assert sorted(summary["status"] for summary in summaries) == ["completed", "completed", "diverged", "diverged"]


def test_determinism_is_a_matter_of_the_run_that_asks_for_it(here):
    words = ["data=moons", "model.widths=[4]", "trainer.max_steps=1"]
    dlrun.train([*words, "trainer.deterministic=true"], quiet=True)
    assert torch.are_deterministic_algorithms_enabled()
    dlrun.train(words, quiet=True)
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_run_as_a_python_object(here):
    run = dlrun.train([*QUICK, "hydra.run.dir=run"], quiet=True)
    assert run.status == "completed"
    assert 0 < run.metrics["test/accuracy"] <= 1
    assert run.history["val/loss"].shape == run.history["step"].shape
    assert math.isnan(run.history["test/loss"][0])
    assert not math.isnan(run.history["test/loss"][-1])
    assert run.model(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    assert "completed" in repr(run)
