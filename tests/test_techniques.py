"""Techniques of `trainer`, from the words to the run directory."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from dlrun.assembly import assemble
from dlrun.config.compose import compose
from dlrun.engine import checkpoint
from dlrun.engine.statistics import recompute_statistics
from dlrun.errors import DlrunError
from dlrun.experiment import train
from dlrun.planning import plan
from dlrun.recorded import read_checkpoint, reassemble
from dlrun.runs.console import Console
from dlrun.runs.directory import RunDirectory

SMALL = ["data=digits", "data.limit=200", "model.widths=[16]", "model.norm=batch", "trainer.epochs=2", "seed=1"]


def run(folder: Path, *words: str) -> RunDirectory:
    """A run of the words, which take the place of those of SMALL with the same key."""
    keys = {word.split("=")[0] for word in words}
    common = [word for word in SMALL if word.split("=")[0] not in keys]
    return train(compose([*common, *words, f"hydra.run.dir={folder}"]), Console())


def read(done: RunDirectory) -> dict[str, Any]:
    return json.loads(done.summary.read_text())


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> RunDirectory:
    return run(tmp_path_factory.mktemp("teacher") / "run", "model.widths=[32]", "optimizer.lr=0.01")


def test_a_student_learns_from_its_teacher_alone(teacher, tmp_path):
    """With alpha=0 and the teacher's own architecture the student has its outputs to reach, and no labels."""
    words = [f"trainer.distill={{run: '{teacher.path}', alpha: 0, temperature: 1}}", "model.widths=[32]"]
    done = run(tmp_path / "run", *words, "optimizer.lr=0.01", "trainer.epochs=20")
    losses = [record["train/loss"] for record in done.read_metrics() if "train/loss" in record]
    assert losses[-1] < losses[0] / 5
    assert read(done)["best"]["metrics"]["val/accuracy"] > 0.5  # the teacher's own: 0.6
    content = checkpoint.load(done.last)
    assert content["state"]["train"]["model"].keys() == checkpoint.load(teacher.best)["model"].keys()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data.split_seed=3"], "was trained on other data: their mean differs from that of data=digits"),
        (["data=diabetes"], "was trained on other data: their task differs"),
        (["trainer.distill.run=nowhere"], "trainer.distill.run=nowhere holds no run"),
    ],
)
def test_teachers_that_do_not_fit_are_refused(teacher, tmp_path, words, message):
    with pytest.raises(DlrunError, match=message):
        run(tmp_path / "run", f"trainer.distill.run={teacher.path}", *words)
    assert not (tmp_path / "run").exists()


def test_a_teacher_of_another_split_is_refused_also_where_scales_are_in_the_data(tmp_path):
    """It would have trained on what the student is validated and tested on."""
    theirs = run(tmp_path / "teacher", "data=breast_cancer", "data.split_seed=1", "data.limit=100")
    with pytest.raises(DlrunError, match=r"trained on other data: their data.split_seed: 1, now 0|split_seed"):
        run(tmp_path / "run", "data=breast_cancer", f"trainer.distill.run={theirs.path}")
    run(tmp_path / "thinned", "data=breast_cancer", "data.split_seed=1", f"trainer.distill.run={theirs.path}")


def test_what_a_run_began_with_may_be_gone_when_it_is_evaluated(teacher, tmp_path):
    weights = tmp_path / "weights.pt"
    shutil.copy(teacher.best, weights)
    done = run(tmp_path / "run", "model.widths=[32]", "init=from_checkpoint", f"init.path={weights}")
    weights.unlink()
    assert {f"test/{k}": v for k, v in reassembled(done).items()} == pytest.approx(read(done)["metrics"])


def reassembled(done: RunDirectory) -> dict[str, float]:
    a = reassemble(done, read_checkpoint(done, "best"))
    return a.evaluator("test")(a.model)


def test_parameters_are_those_that_learn_at_some_time(tmp_path):
    words = ["model.widths=[32]", "trainer.max_steps=4", "data.batch_size=32"]
    plain = read(run(tmp_path / "plain", *words))["parameters"]
    ended = run(tmp_path / "ended", *words, "optimizer.param_groups.until={norm1.bias: 2}")
    assert read(ended)["parameters"] == plain


def test_where_nothing_learns_the_model_is_evaluated_once(teacher, tmp_path):
    words = ["model.widths=[32]", "init=from_checkpoint", f"init.path={teacher.path}", "trainer.freeze={*: always}"]
    done = run(tmp_path / "run", *words)
    summary, theirs = read(done), read(teacher)
    assert summary["status"] == "completed"
    assert summary["steps"] == summary["parameters"] == 0
    assert summary["metrics"] == theirs["metrics"]
    assert summary["best"]["metrics"]["val/accuracy"] == theirs["best"]["metrics"]["val/accuracy"]
    assert plan(compose([*SMALL, *words]).config).lrs == []


def test_a_model_without_parameters_is_evaluated_too(tmp_path):
    composed = compose(["data=xor", "optimizer=lbfgs", "trainer.ema=0.9", f"hydra.run.dir={tmp_path / 'run'}"])
    composed.config["model"] = {"_target_": "torch.nn.Identity"}
    summary = read(train(composed, Console()))
    assert summary["steps"] == 0
    assert 0 <= summary["metrics"]["test/accuracy"] <= 1


def test_a_linear_probe_moves_the_head_alone(teacher, tmp_path):
    words = ["model.widths=[32]", "init=from_checkpoint", f"init.path={teacher.path}"]
    done = run(tmp_path / "run", *words, "trainer.freeze={*: always, output: 0}", "optimizer.lr=0.1")
    before, after = checkpoint.load(teacher.best)["model"], checkpoint.load(done.last)["state"]["train"]["model"]
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"output.weight", "output.bias"}  # and no statistics of the batch norm
    assert read(done)["parameters"] == 32 * 10 + 10


def test_with_momentum_more_may_learn_later(tmp_path):
    done = run(tmp_path / "run", "optimizer=momentum", "trainer.freeze={linear1: 4}", "trainer.max_steps=8")
    velocities = checkpoint.load(done.last)["state"]["train"]["optimizer"]["state"].values()
    assert read(done)["status"] == "completed"
    assert all(bool(state["momentum_buffer"].any()) for state in velocities)


def test_snapshots_lie_at_the_end_of_each_cycle(tmp_path):
    words = ["scheduler=cosine_restarts", "scheduler.cycles=3", "trainer.max_steps=30", "callbacks=snapshots"]
    done = run(tmp_path / "run", *words, "scheduler.warmup=0", "data.batch_size=16")
    files = sorted(path.name for path in done.checkpoints.glob("snapshot_*.pt"))
    assert files == ["snapshot_1.pt", "snapshot_2.pt", "snapshot_3.pt"]
    contents = [checkpoint.load(done.checkpoints / name) for name in files]
    assert [content["step"] for content in contents] == [10, 20, 30]
    best = checkpoint.load(done.best)
    assert all(content[key] == best[key] for content in contents for key in ("config", "spec", "fingerprint"))
    last = checkpoint.load(done.last)["state"]["train"]["model"]
    assert all(torch.equal(last[name], value) for name, value in contents[-1]["model"].items())
    other = run(tmp_path / "every", "trainer.max_steps=9", "callbacks=snapshots", "callbacks.snapshots.every=4")
    assert len(list(other.checkpoints.glob("snapshot_*.pt"))) == 2


def test_the_average_is_evaluated_with_statistics_of_its_own(tmp_path):
    words = ["trainer.swa={start: 2, every: 1}", "trainer.max_steps=6", "data.batch_size=32", "trainer.eval_every=3"]
    done = run(tmp_path / "run", *words, "optimizer.lr=0.05")
    a = assemble(done.read_config())
    a.model.load_state_dict(checkpoint.load(done.best)["model"])
    again = a.evaluator("test")(a.model)
    assert {f"test/{name}": value for name, value in again.items()} == read(done)["metrics"]
    average, live = (checkpoint.load(done.last)["state"]["train"][key] for key in ("average", "model"))
    assert average["updates"] == 5
    assert not torch.allclose(average["module"]["norm1.running_mean"], live["norm1.running_mean"], rtol=1e-2)


def test_an_average_that_is_saved_between_validations_has_statistics_of_its_own(tmp_path):
    words = ["trainer.swa={start: 2, every: 1}", "trainer.max_steps=7", "data.batch_size=32", "trainer.eval_every=5"]
    done = run(tmp_path / "run", *words, "optimizer.lr=0.05", "callbacks=snapshots", "callbacks.snapshots.every=4")
    kept = next(each for each in map(checkpoint.load, done.checkpoints.glob("snapshot_*.pt")) if each["step"] == 4)[
        "model"
    ]
    a = assemble(done.read_config())
    a.model.load_state_dict(kept)
    recompute_statistics(a.model, a.evaluator("train").batches(), a.precision)
    torch.testing.assert_close(a.model.state_dict()["norm1.running_mean"], kept["norm1.running_mean"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trainer.ema=0.9", "trainer.swa={}"], "trainer.ema=0.9 and trainer.swa both say"),
        (["trainer.swa.start=1000ep"], r"trainer.swa.start must lie within training, which has \d+ steps, got 1000ep"),
        (["trainer.sam={}", "trainer.precision=fp16"], "trainer.precision=fp16 does not go with trainer.sam"),
        (["trainer.sam={}", "optimizer=lbfgs"], "trainer.sam does not go with LBFGS"),
        (["trainer.gradient_noise={}", "optimizer=lbfgs"], "gradient_noise do not go with LBFGS"),
        (["trainer.freeze={haed: always}"], "'haed' matches no parameter"),
        (["trainer.freeze={*: 5}"], "leaves nothing to train before step 5"),
        (["trainer.checkpoint_activations=true"], "has no repeated blocks"),
        (["trainer.checkpoint_activations=true", "trainer.compile=true"], "does nothing with trainer.compile=true"),
        (["trainer.distill.run=x", "data=diabetes"], "trainer.distill.run=x holds no run"),
        (["init=from_checkpoint", "init.path=nowhere.pt"], "init.path: there is no file nowhere.pt"),
        (["callbacks=snapshots", "callbacks.snapshots.every=0"], "callbacks.snapshots.every must be above 0"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path, words, message):
    with pytest.raises(DlrunError, match=message):
        run(tmp_path / "run", *words)
    assert not (tmp_path / "run").exists()
