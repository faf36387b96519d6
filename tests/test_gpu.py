"""What only a CUDA device can show; run there with `pytest -m gpu`."""

import json
from pathlib import Path

import pytest
import torch

from dlrun import assembly
from dlrun.config.compose import compose
from dlrun.engine.training import Training
from dlrun.experiment import resume, train
from dlrun.runs.console import Console, Quiet
from dlrun.runs.directory import RunDirectory

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

RUN = [
    *("model=cnn", "model.channels=[8,16]", "model.dropout=0.2", "augment=[translate,mixup]", "trainer.ema=0.95"),
    *("trainer.clip.norm=1", "trainer.epochs=4", "trainer.checkpoint_every=5", "trainer.device=cuda"),
    *("trainer.early_stopping=null", "trainer.deterministic=true"),
]


class KilledError(BaseException):
    """Stands for SIGKILL."""


def finish(folder: Path, overrides: list[str], kill_at: int | None, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    """Train; with `kill_at`, die at that step without a word and resume."""
    original = Training.tick

    def tick(self: Training) -> float:
        if kill_at is not None and self.step >= kill_at:
            raise KilledError
        return original(self)

    monkeypatch.setattr(Training, "tick", tick)
    words = [*overrides, f"hydra.run.dir={folder}", "trainer.log_every=1"]
    try:
        train(compose(words), Console(view=Quiet()))
    except KilledError:
        monkeypatch.setattr(Training, "tick", original)
        resume(RunDirectory(folder), Console(view=Quiet()))
    return RunDirectory(folder)


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
def test_a_resumed_run_has_the_bits_of_the_undisturbed_one(precision, tmp_path, monkeypatch):
    overrides = [*RUN, f"trainer.precision={precision}"]
    whole = finish(tmp_path / "whole", overrides, None, monkeypatch)
    cut = finish(tmp_path / "cut", overrides, 33, monkeypatch)
    a, b = (torch.load(run.last, weights_only=True)["state"]["train"]["model"] for run in (whole, cut))
    assert all(torch.equal(a[name], b[name]) for name in a)
    torch.use_deterministic_algorithms(False)


TECHNIQUES = [
    *("trainer.sam={}", "trainer.lookahead.steps=2", "trainer.penalty.l1=1e-4", "trainer.gradient_noise={}"),
    *("trainer.clip={percentile: 50, per_parameter: 1, agc: 0.1, value: 1}", "trainer.freeze={*: 2, output: 0}"),
]


@pytest.mark.parametrize("more", [["trainer.precision=fp32"], ["trainer.precision=bf16"], TECHNIQUES], ids=len)
def test_a_step_does_not_wait_for_the_device(more):
    keys = {word.split("=")[0].split(".norm")[0] for word in more}
    words = [word for word in RUN if "deterministic" not in word and not word.startswith(tuple(keys))]
    a = assembly.assemble(compose([*words, *more]).config)
    t = assembly.prepare_training(a, lambda record: None, ())
    batches = iter(t.loader.epoch(0))
    t.meter.add(t.train_step(next(batches)), 64, 0.1)  # whatever is made on first use
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(5):
            batch = next(batches)
            t.meter.add(t.train_step(batch), len(batch), 0.1)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_auto_trains_on_the_gpu_in_bf16_and_learns(tmp_path):
    run = train(compose(["trainer.epochs=15", f"hydra.run.dir={tmp_path / 'run'}"]), Console(view=Quiet()))
    assert json.loads(run.provenance.read_text())["device"]["device"] == "cuda:0"
    assert json.loads(run.summary.read_text())["metrics"]["test/accuracy"] > 0.95
