"""Every YAML of conf/optimizer and conf/scheduler is built, used, saved and combined with every other."""

import importlib.util
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

CONF = Path(__file__).parents[2] / "conf"
NAMES = sorted(path.stem for path in (CONF / "optimizer").glob("[!_]*.yaml"))
OPTIMIZERS = [name for name in NAMES if name != "pytorch_optimizer" or importlib.util.find_spec(name)]
SCHEDULERS = sorted(path.stem for path in (CONF / "scheduler").glob("[!_]*.yaml"))
WITHOUT_MOMENTUM = {"adadelta", "adafactor", "adagrad", "asgd", "lbfgs", "rprop"}


class Problem:
    """A fixed small regression with a convolution, normalisation, three linear layers and a full batch."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        trunk = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten()]
        head = [nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1)]
        self.model = nn.Sequential(*trunk, *head)
        self.inputs = torch.randn(32, 1, 4, 4)
        self.targets = self.inputs.sum((1, 2, 3)).tanh()[:, None]

    def loss(self) -> Tensor:
        return nn.functional.mse_loss(self.model(self.inputs), self.targets)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = self.loss()
            loss.backward()
            return loss

        optimizer.step(closure)


def test_the_names_are_those_documented():
    assert set(NAMES) == {
        "sgd", "momentum", "nesterov", "adagrad", "adadelta", "rmsprop", "adam", "amsgrad", "adamax", "nadam", "radam",
        "adamw", "adafactor", "asgd", "rprop", "muon", "muon_sgd", "lbfgs", "pytorch_optimizer",
    }  # fmt: skip
    assert set(SCHEDULERS) == {
        "constant", "step", "multistep", "exponential", "polynomial", "linear", "cosine", "cosine_restarts", "onecycle",
        "cyclic", "plateau", "inverse_sqrt", "wsd",
    }  # fmt: skip


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_lowers_the_loss_in_three_steps(name, compose, make_optimizer):
    problem = Problem()
    optimizer = make_optimizer(compose(name), problem.model)
    before = problem.loss().item()
    for _ in range(3):
        problem.step(optimizer)
    assert problem.loss().item() < before


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_continues_identically_from_its_saved_state(name, compose, make_optimizer):
    problem = Problem()
    optimizer = make_optimizer(compose(name), problem.model)
    for _ in range(3):
        problem.step(optimizer)
    buffer = io.BytesIO()
    torch.save([problem.model.state_dict(), optimizer.state_dict()], buffer)
    buffer.seek(0)
    saved: list[Any] = torch.load(buffer, weights_only=True)
    second = Problem()
    second.model.load_state_dict(saved[0])
    restored = make_optimizer(compose(name), second.model)
    restored.load_state_dict(saved[1])
    for _ in range(3):
        problem.step(optimizer)
        second.step(restored)
    for p, q in zip(problem.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("optimizer_name", OPTIMIZERS)
def test_every_optimizer_goes_with_every_schedule(optimizer_name, compose, make_optimizer, make_schedule):
    for scheduler_name in SCHEDULERS:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3, bias=False), nn.Linear(3, 1, bias=False))
        # Where the norm of the weights is set, the first step changes the loss whatever the learning rate.
        still = {"optimizer__normalize": False} if optimizer_name == "muon_sgd" else {}
        config = compose(optimizer_name, scheduler_name, optimizer__lr=1e-3, **still)
        optimizer = make_optimizer(config, model)
        schedule = make_schedule(config, optimizer, total_steps=6, steps_per_epoch=2)

        def closure(model: nn.Module = model, optimizer: torch.optim.Optimizer = optimizer) -> Tensor:
            optimizer.zero_grad()
            loss = (model(torch.ones(1, 2)) - 3.0).square().sum()
            loss.backward()
            return loss

        start = closure().item()
        for step in range(6):
            optimizer.step(closure)
            schedule.step()
            if step % 2:
                schedule.on_metric(1.0)
        assert closure().item() < start, scheduler_name


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("scheduler", ["onecycle", "cyclic"])
def test_cycling_the_momentum_needs_an_optimizer_with_one(name, scheduler, compose, make_optimizer, make_schedule):
    config = compose(name, scheduler, scheduler__cycle_momentum=True)
    optimizer = make_optimizer(config, Problem().model)
    if name in WITHOUT_MOMENTUM:
        with pytest.raises(ValueError, match=r"optimizer must support momentum or beta1"):
            make_schedule(config, optimizer, total_steps=20, steps_per_epoch=2)
    else:
        assert make_schedule(config, optimizer, total_steps=20, steps_per_epoch=2).cycles_momentum


def test_lbfgs_gets_one_group_and_says_so_when_there_are_more(compose, make_optimizer):
    assert len(make_optimizer(compose("lbfgs"), Problem().model).param_groups) == 1
    config = compose("lbfgs", optimizer__param_groups__layer_decay=0.5)
    with pytest.raises(ValueError, match="parameter groups"):
        make_optimizer(config, Problem().model)
