"""The oracle is `experiment.train` of each run alone."""

import copy
import dataclasses
import json
import os
import signal

import pytest
import torch

from dlrun import experiment, session
from dlrun.assembly import assemble
from dlrun.config.compose import Composed, compose
from dlrun.runs.console import Console, Quiet
from dlrun.runs.directory import RunDirectory
from dlrun.stacked.fit import StackBrokenError
from dlrun.stacked.train import CannotStackError, train_stack
from dlrun.stacked.training import StackedTraining
from dlrun.stacked.worth import draws

WORDS = [
    "data=digits",
    "data.limit=300",
    "model.widths=[16]",
    "trainer.epochs=4",
    "trainer.log_every=3",
    "trainer.eval_every=5",
    "data.batch_size=32",
    "scheduler.warmup=3",
]


@pytest.fixture(scope="module")
def composed() -> Composed:
    return compose(WORDS)


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch):
    """Curves take longer than the rest together and have their own tests."""
    monkeypatch.setattr(session, "drawing", lambda *arguments, **what: lambda: None)


def variant(base: Composed, folder, **values):
    """`base` with other values, written `optimizer__lr`, in a folder of its own."""
    config = copy.deepcopy(base.config)
    for place, value in values.items():
        *parents, name = place.split("__")
        node = config
        for parent in parents:
            node = node[parent]
        node[name] = value
    return dataclasses.replace(base, config=config, run_dir=folder)


def quiet(count: int, view=Quiet) -> list[Console]:
    return [Console(view=view()) for _ in range(count)]


def weights(run, name="last"):
    content = torch.load(getattr(run, name), weights_only=True)
    return content["state"]["train"]["model"] if name == "last" else content["model"]


def must_agree(run, alone, rtol=1e-4):
    """The same course and the same end, up to rounding."""
    ours, theirs = run.read_json(run.summary), alone.read_json(alone.summary)
    for key in ("status", "steps", "epochs", "parameters", "monitor"):
        assert ours[key] == theirs[key], key
    assert ours["best"]["step"] == theirs["best"]["step"]
    assert ours["metrics"] == pytest.approx(theirs["metrics"], rel=rtol)
    for name in ("last", "best"):
        for key, value in weights(alone, name).items():
            torch.testing.assert_close(weights(run, name)[key], value, rtol=rtol, atol=1e-5)
    records = zip(run.read_metrics(), alone.read_metrics(), strict=True)
    for one, other in records:
        assert one.keys() == other.keys()
        assert {**one, "time": 0} == pytest.approx({**other, "time": 0}, rel=rtol)
    assert run.best.stat().st_size == pytest.approx(alone.best.stat().st_size, rel=0.01)
    assert run.last.stat().st_size == pytest.approx(alone.last.stat().st_size, rel=0.05)


VARIANTS = [
    {"seed": 1},
    {"seed": 2, "optimizer__lr": 0.01, "optimizer__weight_decay": 0.0},
    {"seed": 3, "data__label_noise": 0.3, "trainer__clip": {"norm": 0.2}},
]


def test_members_are_what_they_would_be_alone(composed, tmp_path):
    members = [variant(composed, tmp_path / f"s{k}", **values) for k, values in enumerate(VARIANTS)]
    runs = train_stack(members, quiet(3))
    for k, values in enumerate(VARIANTS):
        alone = experiment.train(variant(composed, tmp_path / f"a{k}", **values), quiet(1)[0])
        must_agree(runs[k], alone)
        ours, theirs = (run.read_json(run.provenance) for run in (runs[k], alone))
        assert ours["stacked"] == 3
        assert ours["run_id"] == theirs["run_id"]
        assert ours["data_fingerprint"] == theirs["data_fingerprint"]
        assert (runs[k].path / ".hydra/config.yaml").exists()
        assert len(runs[k].log.read_text().splitlines()) == len(alone.log.read_text().splitlines())


def test_augmentation_other_optimizers_and_averages_work_too(composed, tmp_path):
    augment = compose([*WORDS, "augment=translate", "optimizer=rmsprop", "trainer.ema=0.9", "model.norm=batch"])
    members = [variant(augment, tmp_path / f"s{k}", seed=k) for k in range(2)]
    runs = train_stack(members, quiet(2))
    for k in range(2):
        alone = experiment.train(variant(augment, tmp_path / f"a{k}", seed=k), quiet(1)[0])
        must_agree(runs[k], alone, rtol=2e-2)


def test_one_that_diverges_and_one_that_stops_early_leave_the_others_alone(composed, tmp_path):
    variants = [
        {"seed": 1},
        {"seed": 2, "optimizer__lr": 1e38},
        {"seed": 3, "optimizer__lr": 1e-9, "trainer__early_stopping": {"patience": 1, "min_delta": 0.1}},
    ]
    runs = train_stack([variant(composed, tmp_path / f"s{k}", **v) for k, v in enumerate(variants)], quiet(3))
    alone = [experiment.train(variant(composed, tmp_path / f"a{k}", **v), quiet(1)[0]) for k, v in enumerate(variants)]
    summaries = [run.read_json(run.summary) for run in runs]
    assert [summary["status"] for summary in summaries] == ["completed", "diverged", "early_stopped"]
    assert summaries[1]["divergence"]["step"] == alone[1].read_json(alone[1].summary)["divergence"]["step"]
    must_agree(runs[0], alone[0])
    must_agree(runs[2], alone[2])


class Interrupting(Quiet):
    """Sends SIGTERM at the first validation."""

    def evaluated(self, line):
        os.kill(os.getpid(), signal.SIGTERM)


def test_an_interrupted_stack_is_saved_and_each_run_goes_on_alone(composed, tmp_path):
    members = [variant(composed, tmp_path / f"s{k}", **values) for k, values in enumerate(VARIANTS)]
    runs = train_stack(members, [*quiet(2), *quiet(1, Interrupting)])
    for run in runs:
        assert run.read_json(run.summary)["status"] == "interrupted"
    # Resumed, the member goes on with torch's own optimizer from what the stack has left it.
    resumed = experiment.resume(runs[1], quiet(1)[0])
    alone = experiment.train(variant(composed, tmp_path / "a", **VARIANTS[1]), quiet(1)[0])
    must_agree(resumed, alone)


def test_convolutions_go_on_alone_with_moments_in_the_layout_of_their_weights(tmp_path):
    cnn = compose([*WORDS[:2], *WORDS[4:], "model=cnn", "model.channels=[4,8]", "trainer.epochs=2"])
    members = [variant(cnn, tmp_path / f"s{k}", seed=k) for k in range(2)]
    runs = train_stack(members, [*quiet(1), *quiet(1, Interrupting)])
    alone = experiment.train(variant(cnn, tmp_path / "a", seed=0), quiet(1)[0])
    must_agree(experiment.resume(runs[0], quiet(1)[0]), alone, rtol=1e-2)


@pytest.mark.gpu
def test_on_a_gpu_they_are_what_they_would_be_alone_too(tmp_path):
    base = compose([*WORDS, "trainer.device=cuda", "trainer.precision=fp32"])
    members = [variant(base, tmp_path / f"s{k}", **values) for k, values in enumerate(VARIANTS)]
    for k, run in enumerate(train_stack(members, quiet(3))):
        must_agree(run, experiment.train(variant(base, tmp_path / f"a{k}", **VARIANTS[k]), quiet(1)[0]), rtol=1e-3)


def test_dropout_is_of_each_run_and_said_to_be_another_than_alone(tmp_path):
    dropout = compose([*WORDS[:-1], "model.dropout=0.5", "trainer.max_steps=3"])
    # Of one seed, so that nothing but dropout can tell them apart.
    members = [variant(dropout, tmp_path / f"s{k}", trainer__early_stopping=None, name=str(k)) for k in range(2)]
    runs = train_stack(members, quiet(2))
    ours, theirs = (weights(run) for run in runs)
    assert any(not torch.equal(ours[key], theirs[key]) for key in ours)
    assert all(run.log.read_text().count("does not end with the numbers") == 1 for run in runs)


def test_momentum_that_cycles_does_so_in_every_member(tmp_path):
    cycled = compose([*WORDS[:-1], "optimizer=momentum", "scheduler=onecycle", "scheduler.cycle_momentum=true"])
    members = [variant(cycled, tmp_path / f"s{k}", seed=k) for k in range(2)]
    runs = train_stack(members, quiet(2))
    for k in range(2):
        must_agree(runs[k], experiment.train(variant(cycled, tmp_path / f"a{k}", seed=k), quiet(1)[0]))


def test_what_fails_in_a_step_of_all_leaves_each_to_go_on_alone(composed, tmp_path, monkeypatch):
    """As where memory does for one and not for all."""
    steps = iter(range(100))
    step = StackedTraining._step

    def failing(training):
        if next(steps) == 12:
            raise RuntimeError("out of everything")
        step(training)

    monkeypatch.setattr(StackedTraining, "_step", failing)
    members = [variant(composed, tmp_path / f"s{k}", **values) for k, values in enumerate(VARIANTS[:2])]
    with pytest.raises(StackBrokenError, match="in a step of all its runs: RuntimeError: out of everything"):
        train_stack(members, quiet(2))
    for k in range(2):
        run = RunDirectory(tmp_path / f"s{k}")
        assert not run.summary.exists()
        alone = experiment.train(variant(composed, tmp_path / f"a{k}", **VARIANTS[k]), quiet(1)[0])
        must_agree(experiment.resume(run, quiet(1)[0]), alone)


@pytest.mark.parametrize(
    ("words", "chance"),
    [
        (["data=sequence_mean", "model=lstm", "model.hidden=4", "model.zoneout=0.1"], True),
        (["data=moons", "model.dropout=0.1"], True),
        (["data=moons", "model.norm=batch"], False),
        (["data=sequence_mean", "model=lstm", "model.hidden=4"], False),
    ],
)
def test_chance_in_a_model_is_found_by_trying_and_leaves_no_trace(words, chance):
    a = assemble(compose([*words, "trainer.device=cpu"]).config)
    before, weights_before = torch.get_rng_state(), copy.deepcopy(a.model.state_dict())
    assert draws(a) == chance
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, weights_before[key]) for key, value in a.model.state_dict().items())


class FullDisk(Quiet):
    """Fails at the first validation with an error that is nobody else's."""

    def evaluated(self, line):
        raise RuntimeError("of this run alone")


def test_one_that_fails_is_recorded_and_the_others_go_on(composed, tmp_path):
    members = [variant(composed, tmp_path / f"s{k}", seed=k) for k in range(2)]
    runs = train_stack(members, [*quiet(1, FullDisk), *quiet(1)])
    failed, other = (run.read_json(run.summary) for run in runs)
    assert failed["status"] == "failed"
    assert "of this run alone" in failed["error"]
    assert "of this run alone" in runs[0].traceback.read_text()
    assert other["status"] == "completed"
    assert not runs[1].traceback.exists()
    assert json.loads(runs[1].summary.read_text())["metrics"]


def test_what_cannot_be_stacked_is_refused_before_anything_is_written(composed, tmp_path):
    one = variant(composed, tmp_path / "one")
    with pytest.raises(CannotStackError, match=r"trainer\.compile=True cannot be trained in a stack"):
        train_stack([one, variant(composed, tmp_path / "two", trainer__compile=True)], quiet(2))
    with pytest.raises(CannotStackError, match="these 2 would make 2 stacks"):
        train_stack([one, variant(composed, tmp_path / "two", trainer__epochs=9)], quiet(2))
    lstm = compose([*WORDS[:2], "model=lstm", "model.hidden=4", "model.truncate=4", "trainer.epochs=1"])
    with pytest.raises(CannotStackError, match=r"cannot be trained in a stack: .* given a state"):
        train_stack([variant(lstm, tmp_path / "one"), variant(lstm, tmp_path / "two", seed=1)], quiet(2))
    with pytest.raises(CannotStackError, match=r"a stack of 2 runs with 1,242 parameters .* not known to be faster"):
        train_stack([one, variant(composed, tmp_path / "two", seed=1)], quiet(2), forced=False)
    assert not any(tmp_path.iterdir())
