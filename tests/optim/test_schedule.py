import types

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    LambdaLR,
    LinearLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)

from dlrun.optim.schedule import Schedule


def sgd(lr: float = 1.0, **settings) -> torch.optim.SGD:
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr, **settings)


def halve(optimizer: torch.optim.Optimizer) -> StepLR:
    return StepLR(optimizer, step_size=1, gamma=0.5)


def test_the_same_rates_as_torch_behind_a_sequential_warmup():
    ours, theirs = sgd(), sgd()
    schedule = Schedule(ours, lambda o: StepLR(o, 3, 0.5), warmup_steps=4, steps_per_epoch=1, interval="step")
    warmup = LambdaLR(theirs, lambda s: (s + 1) / 5)
    reference = SequentialLR(theirs, [warmup, StepLR(theirs, 3, 0.5)], milestones=[4])
    for _ in range(15):
        assert ours.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"])
        for optimizer, clock in ((ours, schedule), (theirs, reference)):
            optimizer.step()
            clock.step()


def test_an_epoch_is_so_many_steps_after_the_warmup():
    optimizer = sgd()
    schedule = Schedule(optimizer, halve, warmup_steps=2, steps_per_epoch=3, interval="epoch")
    seen = []
    for _ in range(9):
        seen.append(optimizer.param_groups[0]["lr"])
        schedule.step()
    assert seen == pytest.approx([1 / 3, 2 / 3, 1, 1, 1, 0.5, 0.5, 0.5, 0.25])


def test_absolute_rates_are_scaled_for_each_group():
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": f, "lr_factor": f} for f in (1.0, 0.1)]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    schedule = Schedule(
        optimizer, lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 10, eta_min=0.2), 0, 1, "step"
    )
    for _ in range(10):
        schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.2, 0.02])


@pytest.mark.parametrize("hold", [None, (2, 0.3)], ids=["scheduled", "held"])
@pytest.mark.parametrize(
    "make",
    [lambda o: LinearLR(o, 1.0, 0.0, 8), lambda o: StepLR(o, 100), lambda o: OneCycleLR(o, max_lr=1.0, total_steps=8)],
    ids=["linear", "step", "onecycle"],
)
def test_a_group_that_ends_early_falls_in_a_line_from_its_own_rate_whatever_the_others_do(make, hold):
    """Expected: whiten.bias of airbench94_muon, `initial_lr * (1 - step / whiten_bias_train_steps)`."""
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": 2.0, "lr_factor": 2.0}, {"params": []}]
    groups[1] |= {"params": [nn.Parameter(torch.zeros(1))], "lr": 0.5, "lr_factor": 0.5, "until_steps": 4}
    optimizer = torch.optim.SGD(groups, lr=1.0)
    schedule, seen = Schedule(optimizer, make, 0, 1, "step", hold), []
    for _ in range(6):
        seen.append(optimizer.param_groups[1]["lr"])
        assert schedule.lrs == pytest.approx([group["lr"] for group in optimizer.param_groups])
        schedule.step()
    assert seen == pytest.approx([0.5, 0.375, 0.25, 0.125, 0.0, 0.0])


def test_the_warm_up_is_of_groups_that_end_early_too():
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": 1.0, "until_steps": 4}]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    schedule, seen = Schedule(optimizer, halve, 1, 1, "step"), []
    for _ in range(5):
        seen.append(optimizer.param_groups[0]["lr"])
        schedule.step()
    assert seen == pytest.approx([0.5, 0.75, 0.5, 0.25, 0.0])


def test_groups_without_a_factor_keep_their_own_rates():
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (1.0, 0.3)]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    Schedule(optimizer, halve, 0, 1, "step").step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.5, 0.15])


def test_the_optimizer_is_not_patched_and_not_asked_for_more_than_groups():
    optimizer = sgd()
    before = set(optimizer.param_groups[0])
    Schedule(optimizer, halve, 1, 1, "step").step()
    assert set(optimizer.param_groups[0]) == before
    assert "step" not in vars(optimizer)
    foreign = types.SimpleNamespace(param_groups=[{"params": [nn.Parameter(torch.zeros(1))], "lr": 1.0}])
    Schedule(foreign, halve, 0, 1, "step").step()
    assert foreign.param_groups[0]["lr"] == 0.5


def test_a_rate_in_a_tensor_is_filled_in_place():
    optimizer = sgd()
    held = optimizer.param_groups[0]["lr"] = torch.tensor(1.0, dtype=torch.float64)
    schedule = Schedule(optimizer, halve, 1, 1, "step")
    seen = []
    for _ in range(4):
        seen.append(held.item())
        schedule.step()
    assert optimizer.param_groups[0]["lr"] is held
    assert seen == [0.5, 1.0, 0.5, 0.25]
    assert isinstance(schedule.lr, float)


@pytest.mark.parametrize(
    ("optimizer", "read"),
    [
        (sgd(momentum=0.9), lambda group: group["momentum"]),
        (torch.optim.AdamW([nn.Parameter(torch.zeros(1))]), lambda group: group["betas"][0]),
    ],
    ids=["momentum", "beta1"],
)
def test_one_cycle_moves_the_momentum_of_the_real_optimizer(optimizer, read):
    schedule = Schedule(optimizer, lambda o: OneCycleLR(o, 1.0, total_steps=20), 0, 1, "step")
    assert schedule.cycles_momentum
    seen = []
    for _ in range(20):
        seen.append(read(optimizer.param_groups[0]))
        schedule.step()
    assert (seen[0], min(seen), seen[-1]) == pytest.approx((0.95, 0.85, 0.95), abs=1e-3)
    state = schedule.state_dict()
    optimizer.param_groups[0].update(momentum=0.0) if "momentum" in optimizer.param_groups[0] else None
    schedule.load_state_dict(state)
    assert read(optimizer.param_groups[0]) == pytest.approx(0.95)


def test_one_cycle_may_be_stepped_beyond_its_end():
    optimizer = sgd()
    schedule = Schedule(optimizer, lambda o: OneCycleLR(o, 1.0, total_steps=5, cycle_momentum=False), 0, 1, "step")
    for _ in range(10):
        schedule.step()
    assert schedule.lr == pytest.approx(1 / 25 / 1e4)


@pytest.mark.parametrize(
    "make",
    [
        lambda o: SequentialLR(o, [LinearLR(o, 0.5, total_iters=3), halve(o)], milestones=[4]),
        lambda o: ChainedScheduler([LinearLR(o, 0.5, total_iters=3), halve(o)]),
    ],
    ids=["sequential", "chained"],
)
def test_schedules_made_of_schedules(make):
    ours, theirs = sgd(), sgd()
    schedule, reference = Schedule(ours, make, 0, 1, "step"), make(theirs)
    for step in range(10):
        assert ours.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"])
        theirs.step()
        reference.step()
        schedule.step()
        if step == 5:
            state, ours = schedule.state_dict(), sgd()
            schedule = Schedule(ours, make, 0, 1, "step")
            schedule.load_state_dict(state)


def test_reloading_the_optimizer_does_not_detach_it():
    optimizer = sgd()
    schedule = Schedule(optimizer, halve, 0, 1, "step")
    optimizer.load_state_dict(optimizer.state_dict())
    schedule.step()
    assert optimizer.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize("changes", [{"warmup_steps": -1}, {"steps_per_epoch": 0}, {"interval": "batch"}])
def test_impossible_settings_are_refused(changes):
    settings = {"warmup_steps": 0, "steps_per_epoch": 1, "interval": "step"} | changes
    with pytest.raises(ValueError, match="a schedule needs"):
        Schedule(sgd(), halve, **settings)


@pytest.mark.parametrize("interval", ["step", "epoch", "metric"])
def test_from_a_step_on_the_rate_can_be_held(interval):
    """As SWA wants it; groups keep their factors, and a restored schedule holds too."""
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": lr, "lr_factor": lr} for lr in (1.0, 0.5)]
    made = [
        Schedule(torch.optim.SGD(groups), lambda o: LinearLR(o, 1.0, 0.0, 10) if interval != "metric" else
                 ReduceLROnPlateau(o), 0, 2, interval, hold=(5, 0.2)) for _ in range(2)
    ]  # fmt: skip
    whole, cut = made
    for step in range(8):
        if step == 6:
            cut.load_state_dict(whole.state_dict())
        assert (whole.lrs == [0.2, 0.1]) == (step >= 5)
        assert whole.lr == whole.lrs[0] == whole.optimizer.param_groups[0]["lr"]
        whole.step()
        if step >= 6:
            cut.step()
            assert cut.lrs == [0.2, 0.1]
