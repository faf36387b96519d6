"""A user's own part in every group, from a folder outside the package, without touching dlrun."""

import json
from pathlib import Path

import pytest
import torch

from dlrun.cli import main

PARTS = '''
import torch
from torch import nn
from dlrun.contracts import Arrays, DataSpec, Kind, PositiveFloat, PositiveInt, Splits, Task
from dlrun.engine.callbacks import Callback

EVENTS = []


def stripes(samples: PositiveInt = 200) -> Splits:
    """Two classes told apart by one feature."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(samples, 6, generator=generator)
    spec = DataSpec("stripes", Task.CLASSIFICATION, Kind.VECTOR, (6,), 2, ("left", "right"))
    return Splits(Arrays(inputs, (inputs[:, 2] > 0).long()), spec)


class Pairs(torch.utils.data.Dataset):
    """The same as a map-style torch Dataset, item by item."""

    def __init__(self, samples):
        self.arrays = stripes(samples).train
        self.targets = self.arrays.targets

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, i):
        return self.arrays.inputs[i], int(self.targets[i])


def stripes_dataset(samples: PositiveInt = 200) -> Splits:
    return Splits(Pairs(samples), stripes().spec)


class Tower(nn.Module):
    def __init__(self, spec: DataSpec, *, width: PositiveInt = 8):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(spec.num_features, width), nn.ReLU(), nn.Linear(width, spec.num_outputs))

    def forward(self, inputs):
        return self.body(inputs)


class SignDescent(torch.optim.Optimizer):
    """w <- w - lr sign(g)"""

    def __init__(self, params, lr: PositiveFloat = 1e-3):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(p.grad.sign(), alpha=group["lr"])


def halving(optimizer, every: PositiveInt = 5):
    return torch.optim.lr_scheduler.StepLR(optimizer, every, 0.5)


def sharp_loss(spec: DataSpec, power: PositiveFloat = 2.0):
    return lambda outputs, targets: nn.functional.cross_entropy(outputs * power, targets)


class Jitter:
    def __init__(self, std: PositiveFloat = 0.1):
        self.std = std

    def __call__(self, batch, generator):
        noise = torch.randn(batch.inputs.shape, generator=generator) * self.std
        return type(batch)(batch.inputs + noise, batch.targets)


def tiny(model, std: PositiveFloat = 0.01):
    for p in model.parameters():
        nn.init.normal_(p, std=std)


class Count(Callback):
    def __init__(self):
        self.steps = 0

    def on_step_end(self, training):
        self.steps += 1

    def on_validate(self, training, metrics):
        metrics["val/steps_seen"] = float(self.steps)

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state):
        self.steps = state["steps"]


class Memory:
    def __init__(self, folder: str):
        self.path = folder + "/own.log"

    def log(self, record):
        with open(self.path, "a") as file:
            file.write(f"{record['step']}\\n")

    def close(self):
        with open(self.path, "a") as file:
            file.write("closed\\n")
'''

CONF = {
    "data/stripes": "_target_: mine_parts.stripes\nsamples: 200\nbatch_size: 20\n",
    "data/pairs": "_target_: mine_parts.stripes_dataset\nsamples: 200\nbatch_size: 20\nworkers: 0\n",
    "model/tower": "_target_: mine_parts.Tower\nwidth: 8\n",
    "optimizer/sign": "_target_: mine_parts.SignDescent\n_partial_: true\nlr: 0.01\n",
    "scheduler/halving": "_target_: mine_parts.halving\n_partial_: true\nevery: 7\n",
    "loss/sharp": "_target_: mine_parts.sharp_loss\npower: 1.5\n",
    "augment/jitter": "jitter:\n  _target_: mine_parts.Jitter\n  std: 0.05\n",
    "init/tiny": "_target_: mine_parts.tiny\n_partial_: true\nstd: 0.1\n",
    "trainer/short": "defaults: [default]\nepochs: 3\n",
    "callbacks/count": "count:\n  _target_: mine_parts.Count\n",
    "logger/memory": "memory:\n  _target_: mine_parts.Memory\n",
    "experiment/all_mine": """# @package _global_
defaults:
  - override /data: stripes
  - override /model: tower
  - override /optimizer: sign
  - override /scheduler: halving
  - override /loss: sharp
  - override /augment: jitter
  - override /init: tiny
  - override /trainer: short
  - override /callbacks: count
  - override /logger: memory
model:
  width: 12
""",
}


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The user's folder: conf/ with YAML files, and a module beside it."""
    for name, text in CONF.items():
        path = tmp_path / "conf" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "mine_parts.py").write_text(PARTS)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return tmp_path / "conf"


def train(*words: str) -> Path:
    assert main(["train", *words, "hydra.run.dir=run"]) == 0
    return Path("run")


def test_a_part_of_ones_own_in_every_group(mine):
    run = train("--config-dir", str(mine), "experiment=all_mine")
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    seen = [record["val/steps_seen"] for record in records if "val/steps_seen" in record]
    assert seen == [7.0, 15.0, 23.0]  # 8 steps an epoch; validation comes before the end of its step
    assert (run / "own.log").read_text().endswith("24\nclosed\n")
    assert records[-2]["lr"] == pytest.approx(0.01 * 0.5**3)
    last = torch.load(run / "checkpoints/last.pt", weights_only=True)
    assert last["state"]["train"]["model"]["body.0.weight"].shape == (12, 6)
    assert json.loads((run / "summary.json").read_text())["metrics"]["test/accuracy"] > 0.7


def test_a_torch_dataset_of_ones_own(mine):
    run = train("--config-dir", str(mine), "data=pairs", "model=tower", "trainer.epochs=4", "optimizer.lr=0.05")
    assert json.loads((run / "summary.json").read_text())["metrics"]["test/accuracy"] > 0.8


def test_arguments_of_own_parts_are_checked_like_dlruns(mine, capsys):
    assert main(["train", "--config-dir", str(mine), "experiment=all_mine", "model.widht=3"]) == 2
    assert "Did you mean 'width'?" in capsys.readouterr().err
    assert main(["train", "--config-dir", str(mine), "experiment=all_mine", "model.width=0"]) == 2
    assert "model.width must be a whole number >= 1, got 0" in capsys.readouterr().err
    assert not list(Path().iterdir())


def test_a_run_with_own_parts_is_evaluated_from_anywhere(mine, tmp_path, monkeypatch, capsys):
    run = train("--config-dir", str(mine), "experiment=all_mine").absolute()
    monkeypatch.chdir("/")
    assert main(["evaluate", str(run)]) == 0
    assert "test/accuracy" in capsys.readouterr().out
