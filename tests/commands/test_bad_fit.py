"""Parts that are right alone and do not fit together, or not this machine: refused before a run directory is made."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from .conftest import Answer

NETS = """
import torch
from torch import nn


def flat():
    return nn.Flatten()


def number():
    return 3


def failing(spec, width: int = 1):
    raise RuntimeError("no such width")


class Frozen(nn.Module):
    def __init__(self):
        super().__init__()

    def forward(self, inputs):
        return torch.zeros(len(inputs), 3)
"""


@pytest.fixture
def nets(tmp_path: Path) -> Path:
    """A user's own models."""
    (tmp_path / "nets.py").write_text(NETS)
    (tmp_path / "mine" / "model").mkdir(parents=True)
    for name in ("flat", "number", "failing", "Frozen"):
        (tmp_path / "mine" / "model" / f"{name.lower()}.yaml").write_text(f"_target_: nets.{name}\n")
    (tmp_path / "mine" / "model" / "linear7.yaml").write_text(
        "_target_: torch.nn.Linear\nin_features: 7\nout_features: 3\n"
    )
    return tmp_path


@pytest.mark.parametrize(
    ("words", "needles"),
    [
        (
            "model=cnn data=moons",
            ["model=cnn", "images (channels, height, width)", "data=moons", "vectors of shape (2,)"],
        ),
        ("model=lenet5 data=digits", ["data=digits", "(1, 8, 8)", "model.channels"]),
        ("model=mlp model.norm=instance", ["norm=instance", "norm=batch"]),
        ("loss=mse", ["loss=mse", "regression", "data=digits", "loss=auto"]),
        ("data=diabetes loss=cross_entropy", ["loss=cross_entropy", "data=diabetes", "regression"]),
        ("augment=cutout augment.cutout.size=100", ["augment.cutout.size", "100", "(1, 8, 8)"]),
        ("data=iris augment=translate", ["data=iris", "(4,)"]),
        ("trainer.early_stopping.monitor=val/acc", ["trainer.early_stopping.monitor", "'val/acc'", "val/accuracy"]),
        ("trainer.early_stopping.monitor=train/loss", ["'train/loss'", "val/loss", "not monitored"]),
        ("trainer.early_stopping.monitor=", ["trainer.early_stopping.monitor", "''", "val/accuracy"]),
        ("data=diabetes trainer.early_stopping.monitor=val/accuracy", ["'val/accuracy'", "val/rmse", "regression"]),
        ("scheduler.warmup=9999", ["scheduler.warmup", "9999", "630 steps"]),
        ("scheduler.warmup=31ep", ["scheduler.warmup", "31ep", "630 steps"]),
        ("optimizer=nesterov optimizer.momentum=0", ["optimizer", "Nesterov", "momentum"]),
        ("optimizer.param_groups.lr_factors={nope:2}", ["optimizer.param_groups.lr_factors", "'nope'", "nearest are"]),
        ("optimizer.param_groups.no_decay=[nope]", ["optimizer.param_groups.no_decay", "'nope'"]),
        ("optimizer.param_groups.until={nope:2}", ["optimizer.param_groups.until", "'nope'", "nearest are"]),
        ("optimizer.param_groups.until={*:2ep}", ["optimizer.param_groups.until", "no parameter", "to the end"]),
        ("data=iris trainer.tta=flip", ["trainer.tta=flip", "data=iris", "(4,)", "null"]),
        ("data=iris data.alternating_flip=true", ["data.alternating_flip=true", "data=iris", "vectors"]),
        ("init=whitening", ["init=whitening", "'whitening'", "model=whitened_cnn", "init.layer"]),
        ("model=whitened_cnn", ["model=whitened_cnn", "data=digits", "(1, 8, 8)", "model.widths"]),
        ("data.limit=1e9", ["data.limit", "1000000000.0", "(0, 1]"]),
        ("data.limit=1000000", ["data.limit", "1000000", "at most the 1294"]),
        ("data.val_from=test data.folds=3", ["data.val_from=test", "data.folds=3", "data.val_from=train"]),
        ("data.folds=5000", ["data.folds", "5000", "at most the 1438"]),
        ("data=iris data.imbalance={9:.1}", ["data.imbalance", "'9'", "setosa"]),
        ("data=iris data.imbalance={setossa:.1}", ["data.imbalance", "'setossa'", "Did you mean 'setosa'?"]),
        ("data=diabetes data.imbalance=10", ["data.imbalance=10", "data=diabetes", "class labels"]),
        ("data=diabetes data.label_noise=.1", ["data.label_noise=0.1", "data=diabetes", "class labels"]),
        (
            "data.batch_size=1293 model.norm=batch",
            ["data.batch_size=1293", "batch of one example", "data.drop_last=true"],
        ),
        ("data.batch_size=1 model.norm=batch", ["data.batch_size=1", "one example"]),
    ],
)
def test_parts_that_do_not_fit(words: str, needles: list[str], dlrun: Callable[..., Answer]):
    dlrun("train", *words.split()).must_refuse(*needles)


@pytest.mark.parametrize(
    ("name", "needles"),
    [
        ("flat", ["(Flatten)", "(2, 4)", "data=iris", "needs (2, 3)"]),
        ("number", ["model=nets.number", "torch.nn.Module", "int"]),
        ("failing", ["model", "nets.failing", "no such width"]),
        ("linear7", ["(Linear)", "data=iris", "(4,)", "7"]),
    ],
)
def test_a_model_of_ones_own_that_does_not_fit(name: str, needles: list[str], nets: Path, dlrun: Callable[..., Answer]):
    dlrun("train", "--config-dir", "mine", f"model={name}", "data=iris").must_refuse(*needles)


def test_a_model_with_nothing_to_learn_is_evaluated_and_says_so(nets: Path, dlrun: Callable[..., Answer]):
    answer = dlrun("train", "--config-dir", "mine", "model=frozen", "data=iris")
    assert answer.code == 0
    assert "no trainable parameters" in answer.out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("device", ["cuda", "cuda:9"])
def test_a_gpu_that_is_not_there(device: str, dlrun: Callable[..., Answer]):
    dlrun("train", f"trainer.device={device}").must_refuse(f"trainer.device={device}", "no CUDA device", "cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_second_gpu_that_is_not_there(dlrun: Callable[..., Answer]):
    dlrun("train", "trainer.device=cuda:99").must_refuse("trainer.device=cuda:99", "CUDA device", "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_tf32_without_a_gpu(dlrun: Callable[..., Answer]):
    dlrun("train", "trainer.precision=tf32").must_refuse("trainer.precision=tf32", "CUDA", "fp32 or bf16")


def test_a_job_that_fails_does_not_stop_a_sweep(tmp_path: Path, dlrun: Callable[..., Answer]):
    answer = dlrun("train", "-m", "model=cnn,mlp", "data=iris", "trainer.max_steps=1")
    assert answer.code == 1
    assert "2 jobs: 1 failed, 1 completed" in answer.out
    assert "failed: 0_model=cnn: model=cnn reads images" in answer.err
    assert "Traceback" not in answer.err
    (finished,) = tmp_path.glob("outputs/sweeps/*/1_model=mlp/summary.json")
    assert '"completed"' in finished.read_text()


@pytest.mark.parametrize(
    ("words", "needles"),
    [
        ("data.order=shuffled", ["model.carry=true", "data.order=contiguous", "shuffled"]),
        ("data.order=contiguous trainer.accumulate=2", ["model.carry=true", "trainer.accumulate=1", "2"]),
        ("data.order=contiguous data.stride=1", ["model.carry=true", "overlap", "data.stride"]),
        ("data.order=contiguous data.limit=0.5", ["model.carry=true", "leave gaps", "data.limit"]),
    ],
)
def test_a_state_is_carried_only_along_a_text(
    words: str, needles: list[str], tmp_path: Path, dlrun: Callable[..., Answer]
):
    (tmp_path / "novel.txt").write_text("It was the best of times, it was the worst of times. " * 60)
    dlrun(
        "train", "data=language", "data.path=novel.txt", "model=char_lstm", "model.carry=true", *words.split()
    ).must_refuse(*needles)
