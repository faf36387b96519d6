"""Whole runs that run out of memory end with the bits of the run that was configured to fit."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from dlrun import build
from dlrun.config.compose import compose
from dlrun.engine.training import Training
from dlrun.experiment import _go_on, resume, train
from dlrun.run import Run
from dlrun.runs.console import Console, Quiet
from dlrun.runs.directory import RunDirectory
from dlrun.session import RunFailedError

from .test_resume import Killed, assert_equal, content, run_to

RUN = [
    *("data=digits", "data.limit=150", "model=cnn", "model.channels=[4,8]", "model.dropout=0.3"),
    *("augment=[translate,mixup]", "trainer.ema=0.95", "trainer.clip.norm=1", "trainer.epochs=3", "seed=3"),
    *("trainer.log_every=4", "trainer.eval_every=7", "trainer.checkpoint_every=5"),
]
WHOLE, PARTS = ["data.batch_size=32"], ["data.batch_size=8", "trainer.accumulate=4"]


class Room:
    """Lets models take only so many examples at a time, in training or in evaluation."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.training = self.evaluation = 10**6
        self.tried: list[int] = []
        self.late: tuple[int, int] | None = None  # after so many training passes, room for so many examples
        self.made = build.build_model
        monkeypatch.setattr(build, "build_model", self.build_model)
        monkeypatch.setattr("dlrun.session.drawing", lambda *arguments, **options: lambda: None)  # half of the time

    def build_model(self, *arguments: object) -> nn.Module:
        model = self.made(*arguments)
        model.register_forward_hook(self.check)
        return model

    def check(self, model: nn.Module, inputs: tuple[torch.Tensor, ...], outputs: torch.Tensor) -> None:
        count = len(inputs[0])
        if model.training:
            self.tried.append(count)
            if self.late is not None and len(self.tried) > self.late[0]:
                self.training, self.late = self.late[1], None
        if count > (self.training if model.training else self.evaluation):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Room:
    return Room(monkeypatch)


def trained(folder: Path, words: list[str]) -> dict[str, object]:
    train(compose([*RUN, *words, f"hydra.run.dir={folder}"]), Console(view=Quiet()))
    return same(content(folder))


def same(found: dict[str, object]) -> dict[str, object]:
    """All but the micro-batch that was configured."""
    found["train"].pop("micro_batch_size")
    return found


def test_the_run_is_that_configured_with_micro_batches_also_when_it_is_resumed(room, tmp_path, monkeypatch):
    straight = trained(tmp_path / "straight", PARTS)
    room.training = 8
    assert_equal(trained(tmp_path / "short", WHOLE), straight)
    assert json.loads((tmp_path / "short/summary.json").read_text())["micro_batch_size"] == 8
    log = (tmp_path / "short/train.log").read_text()
    assert "WARNING Out of memory with 32 examples at a time" in log
    assert "micro-batches of 8, whose gradients are added up; the effective batch is still 32" in log
    killed = run_to(tmp_path / "killed", [*RUN, *WHOLE], [6, 11], monkeypatch)
    assert_equal(same(killed), straight)


def test_a_late_shortage_goes_back_to_the_checkpoint(room, tmp_path, monkeypatch):
    """Which was made after step 10; from there it is a run that died at step 12 and goes on where memory is less."""
    room.late = (12, 16)
    late = trained(tmp_path / "late", WHOLE)
    log = (tmp_path / "late/train.log").read_text()
    assert "goes back to its last checkpoint and on from there with micro-batches of 16" in log
    passes = [32] * 4 + [22]
    assert room.tried == [*passes, *passes, 32, 32, 32, *[16] * 8, 16, 6]
    room.training = 10**6
    with monkeypatch.context() as patch:
        patch.setattr(Training, "tick", _killing_at(12))
        with pytest.raises(Killed):
            trained(tmp_path / "dead", WHOLE)
    _go_on(RunDirectory(tmp_path / "dead"), Console(view=Quiet()), 16)
    assert_equal(late, same(content(tmp_path / "dead")))


def _killing_at(step: int) -> Callable[[Training], float]:
    original = Training.tick

    def tick(self: Training) -> float:
        if self.step >= step:
            raise Killed
        return original(self)

    return tick


def test_a_late_shortage_before_any_checkpoint_begins_again(room, tmp_path):
    straight = trained(tmp_path / "straight", PARTS)
    room.late = (2, 8)
    assert_equal(trained(tmp_path / "late", [*WHOLE, "trainer.checkpoint_every=null"]), straight)


def test_an_evaluation_goes_on_in_smaller_batches(room, tmp_path):
    straight = trained(tmp_path / "straight", [*WHOLE, "data.eval_batch_size=7"])
    room.evaluation = 7
    short = trained(tmp_path / "short", [*WHOLE, "data.eval_batch_size=28"])
    assert_equal(short, straight)
    assert (
        "begins again with 14 (from the start: data.eval_batch_size=14)" in (tmp_path / "short/train.log").read_text()
    )
    measured = Run(RunDirectory(tmp_path / "short")).evaluate()
    room.evaluation = 10**6
    assert Run(RunDirectory(tmp_path / "straight")).evaluate() == measured


def test_what_does_not_fit_at_all_fails_with_what_to_type(room, tmp_path):
    room.training = 0
    with pytest.raises(RunFailedError, match=r"out of memory in a training step of two examples.*precision=bf16"):
        trained(tmp_path / "run", [*WHOLE, "model.norm=batch"])
    assert json.loads((tmp_path / "run/summary.json").read_text())["status"] == "failed"
    room.training = 4
    resume(RunDirectory(tmp_path / "run"), Console(view=Quiet()))
    assert json.loads((tmp_path / "run/summary.json").read_text())["status"] == "completed"
