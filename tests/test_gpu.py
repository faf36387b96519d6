"""What only a CUDA device can show; run there with `pytest -m gpu`."""

import itertools
import json
import os
import random
import re
from pathlib import Path

import pytest
import torch

from dlrun import assembly, build
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


def test_a_resumed_run_with_dropout_between_recurrent_layers_has_the_same_bits(tmp_path, monkeypatch):
    model = ["data=digits", "model=lstm", "model.layers=2", "model.dropout=0.3", "augment=none"]
    overrides = [*(word for word in RUN if not word.startswith(("model", "augment"))), *model]
    whole = finish(tmp_path / "whole", overrides, None, monkeypatch)
    cut = finish(tmp_path / "cut", overrides, 33, monkeypatch)
    a, b = (torch.load(run.last, weights_only=True)["state"]["train"]["model"] for run in (whole, cut))
    assert all(torch.equal(a[name], b[name]) for name in a)
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resumed_run_of_compiled_captured_steps_has_the_same_bits(precision, tmp_path, monkeypatch):
    words = [word for word in RUN if "deterministic" not in word]
    overrides = [*words, f"trainer.precision={precision}", "trainer.compile=true", "trainer.graph=true"]
    whole = finish(tmp_path / "whole", overrides, None, monkeypatch)
    cut = finish(tmp_path / "cut", overrides, 33, monkeypatch)
    a, b = (torch.load(run.last, weights_only=True)["state"]["train"]["model"] for run in (whole, cut))
    assert all(torch.equal(a[name], b[name]) for name in a)


TECHNIQUES = [
    *("trainer.sam={}", "trainer.lookahead.steps=2", "trainer.penalty.l1=1e-4", "trainer.gradient_noise={}"),
    *("trainer.clip={percentile: 50, per_parameter: 1, agc: 0.1, value: 1}", "trainer.freeze={*: 2, output: 0}"),
]
CARRIED = ["data=tinyshakespeare", "data.order=contiguous", "model=char_lstm", "model.carry=true"]
PARTS = {
    "mlp": ["model=mlp", "model.dropout=0.2"],
    "cnn": ["model=cnn", "model.channels=[8,16]", "augment=[translate,mixup,erasing]", "trainer.ema=0.9"],
    "resnet": ["model=resnet20", "optimizer=sgd", "optimizer.lr=0.05", "trainer.clip.norm=1"],
    "densenet": ["model=densenet", "model.dropout=0.1", "optimizer=nesterov"],
    "lstm": ["model=lstm", "model.dropout=0.2", "trainer.clip.norm=1"],
    "vit": ["model=vit", "optimizer=muon"],
    "gpt": ["data=random_tokens", "model=gpt", "model.dropout=0.1", "trainer.accumulate=2"],
    "checkpointed": ["data=random_tokens", "model=gpt", "model.dropout=0.1", "trainer.checkpoint_activations=true"],
    "rmsprop": ["model=mlp", "optimizer=rmsprop", "loss=focal"],
    "techniques": ["model=mlp", *TECHNIQUES],
    "speed": ["data=digits", "model=cnn", "optimizer=muon_sgd", "data.alternating_flip=true", "augment=translate"],
}


def steps(words: list[str], count: int = 12) -> tuple[list[float], dict[str, torch.Tensor], list[str]]:
    """Losses, weights and averaged weights after `count` steps, and what was warned of."""
    warnings: list[str] = []
    a = assembly.assemble(compose(["trainer.device=cuda", "data.batch_size=64", *words]).config)
    t = assembly.prepare_training(a, lambda record: None, (), warn=warnings.append)
    losses = []
    with t.advance.context():
        for draw in itertools.islice((d for epoch in range(9) for d in t.loader.draws(epoch)), count):
            t.train_step.measure_norm = len(losses) % 3 == 0
            losses.append(t.advance(draw).item())
            t.step += 1
    state = dict(a.model.state_dict())
    if t.train_step.average is not None:
        state |= {f"average.{name}": x for name, x in t.train_step.average.module.state_dict().items()}
    state |= {f"metric.{i}": metric.totals for i, metric in enumerate(t.metrics)}
    return losses, state, warnings


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
@pytest.mark.parametrize("parts", PARTS)
def test_captured_steps_are_eager_ones_to_the_bit(parts, precision):
    if precision == "fp16" and parts in ("techniques", "rmsprop", "vit", "speed"):
        pytest.skip("these leave overflows to the host")
    words = [*PARTS[parts], f"trainer.precision={precision}"]
    eager_losses, eager, _ = steps([*words, "trainer.graph=false"])
    losses, captured, warnings = steps([*words, "trainer.graph=true"])
    assert not warnings
    assert losses == eager_losses
    assert not [name for name in eager if not torch.equal(eager[name], captured[name])]


@pytest.mark.parametrize("parts", ["mlp", "cnn", "gpt"])
def test_compiled_captured_steps_are_compiled_ones_to_the_bit(parts):
    # Compiled, the gradient of an embedding is added up in whatever order threads come, unless that is forbidden.
    words = [*PARTS[parts], "trainer.precision=bf16", "trainer.compile=true", "trainer.deterministic=true"]
    eager_losses, eager, _ = steps([*words, "trainer.graph=false"])
    losses, captured, warnings = steps([*words, "trainer.graph=true"])
    torch.use_deterministic_algorithms(False)
    assert not warnings
    assert losses == eager_losses
    assert not [name for name in eager if not torch.equal(eager[name], captured[name])]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["model=mlp", "optimizer=lbfgs"], "several times"),
        (["model=mlp", "optimizer=adagrad"], "learning rate"),
        (["optimizer=momentum", "scheduler=onecycle", "scheduler.cycle_momentum=true"], "momentum"),
        (["data=rt_polarity", "data.limit=64", "model=bilstm"], "waits for the device on the host"),
        (CARRIED, "carried"),
    ],
    ids=["lbfgs", "adagrad", "onecycle", "packed", "carried"],
)  # fmt: skip
def test_what_cannot_be_captured_is_done_eagerly_and_said(words, reason):
    if any(name in words[0] for name in ("rt_polarity", "tinyshakespeare")) and "DLRUN_DATA" not in os.environ:
        pytest.skip("needs the published data sets")
    _, eager, _ = steps([*words, "trainer.graph=false"], 6)
    _, tried, warnings = steps([*words, "trainer.graph=auto"], 6)
    assert len(warnings) == 1
    assert re.search(reason, warnings[0])
    assert not [name for name in eager if not torch.equal(eager[name], tried[name])]


def test_a_model_that_decides_on_the_host_is_not_captured(monkeypatch):
    class Coin(torch.nn.Module):
        def forward(self, x):
            return x if random.random() < 0.5 else 0 * x

    build_model = build.build_model
    monkeypatch.setattr(build, "build_model", lambda *a: torch.nn.Sequential(*build_model(*a), Coin()))
    _, _, warnings = steps(["model=mlp"], 6)
    assert len(warnings) == 1
    assert "random numbers" in warnings[0]


def test_a_wait_that_is_found_only_by_recording_leaves_the_rest_in_order(monkeypatch):
    """Generators draw again, memory is given back, and the bits are those of eager steps."""

    class Synchronises(torch.nn.Module):
        def forward(self, x):
            torch.cuda.synchronize()
            return x

    build_model = build.build_model
    monkeypatch.setattr(build, "build_model", lambda *a: torch.nn.Sequential(build_model(*a), Synchronises()))
    words = ["model=mlp", "model.dropout=0.2", "augment=translate", "trainer.gradient_noise={}"]
    _, eager, _ = steps([*words, "trainer.graph=false"], 8)
    _, tried, warnings = steps([*words, "trainer.graph=true"], 8)
    assert len(warnings) == 1
    torch.cuda.empty_cache()
    assert not [name for name in eager if not torch.equal(eager[name], tried[name])]


@pytest.mark.parametrize("graph", ["true", "false"])
@pytest.mark.parametrize("more", [["trainer.precision=fp32"], ["trainer.precision=bf16"], TECHNIQUES], ids=len)
def test_a_step_does_not_wait_for_the_device(more, graph):
    keys = {word.split("=")[0].split(".norm")[0] for word in more}
    words = [word for word in RUN if "deterministic" not in word and not word.startswith(tuple(keys))]
    a = assembly.assemble(compose([*words, *more, f"trainer.graph={graph}", "data.batch_size=32"]).config)
    t = assembly.prepare_training(a, lambda record: None, ())
    draws = t.loader.draws(0)
    with t.advance.context():
        for _ in range(6):  # whatever is made on first use; the graphs
            t.meter.add(t.advance(next(draws)), 32, t.lr)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(5):
                draw = next(draws)
                t.meter.add(t.advance(draw), draw.size, t.lr)
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("graph", ["true", "false"])
def test_streamed_steps_are_resident_ones_to_the_bit(graph):
    words = ["model=cnn", "model.channels=[8,16]", "augment=[translate]", f"trainer.graph={graph}"]
    _, resident, _ = steps([*words, "data.loader=resident"])
    _, streamed, warnings = steps([*words, "data.loader=streaming"])
    assert not warnings
    assert not [name for name in resident if not torch.equal(resident[name], streamed[name])]


def test_auto_trains_on_the_gpu_in_bf16_and_learns(tmp_path):
    run = train(compose(["trainer.epochs=15", f"hydra.run.dir={tmp_path / 'run'}"]), Console(view=Quiet()))
    assert json.loads(run.provenance.read_text())["device"]["device"] == "cuda:0"
    assert json.loads(run.summary.read_text())["metrics"]["test/accuracy"] > 0.95
