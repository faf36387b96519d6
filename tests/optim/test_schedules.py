"""Every schedule of conf/scheduler against its closed form, at every step of a run with warm-up and two groups."""

import io
import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

PEAK, FACTOR = 0.1, 0.25
TOTAL, PER_EPOCH, WARMUP = 90, 10, 10
AFTER = TOTAL - WARMUP  # 80 steps, 8 epochs


def one_cycle(t: int) -> float:
    top, last = 0.3 * AFTER - 1, AFTER - 1
    start, low = PEAK / 25, PEAK / 25 / 1e4
    a, b, x = (start, PEAK, t / top) if t <= top else (PEAK, low, (min(t, last) - top) / (last - top))
    return b + (a - b) * (1 + math.cos(math.pi * x)) / 2


def triangle(t: int) -> float:
    """Up in 8 steps, down in 8."""
    return PEAK * (0.1 + 0.9 * (1 - abs(t % 16 / 8 - 1)))


def cosine(x: float) -> float:
    return (1 + math.cos(math.pi * x)) / 2


CLOSED_FORMS: dict[str, Callable[[int], float]] = {
    "constant": lambda t: PEAK,
    "step": lambda t: PEAK * 0.1 ** (t // 100),
    "multistep": lambda t: PEAK * (1.0 if t < 40 else 0.1 if t < 60 else 0.01),
    "exponential": lambda t: PEAK * 0.95 ** (t // 10),
    "polynomial": lambda t: PEAK * (1 - t / AFTER) ** 2,
    "linear": lambda t: PEAK * (1 - t / AFTER),
    "cosine": lambda t: PEAK * cosine(t / AFTER),
    "cosine_restarts": lambda t: PEAK * 0.8 ** (t // 16) * cosine(t % 16 / 16),
    "onecycle": one_cycle,
    "cyclic": triangle,
    "inverse_sqrt": lambda t: PEAK * math.sqrt(4 / (4 + t)),
    "wsd": lambda t: PEAK * (1 - math.sqrt(max(t - 64, 0) / 16)),
    "plateau": lambda t: PEAK,
}
VARIANTS: list[tuple[str, dict, Callable[[int], float]]] = [
    ("constant", {"factor": 0.5, "total_iters": 2}, lambda t: PEAK * (0.5 if t < 20 else 1)),
    ("step", {"step_size": 3}, lambda t: PEAK * 0.1 ** (t // 30)),
    ("step", {"step_size": 3, "interval": "step"}, lambda t: PEAK * 0.1 ** (t // 3)),
    ("step", {"step_size": "25%", "gamma": 0.5}, lambda t: PEAK * 0.5 ** (t // 20)),
    ("multistep", {"milestones": [1, "3ep"]}, lambda t: PEAK * (1.0 if t < 10 else 0.1 if t < 30 else 0.01)),
    ("polynomial", {"power": 0.5, "end_lr": 0.02, "total_steps": 40},
     lambda t: 0.02 + 0.08 * math.sqrt(max(1 - t / 40, 0))),
    ("linear", {"end_factor": 0.1}, lambda t: PEAK * (1 - 0.9 * t / AFTER)),
    ("cosine", {"eta_min": 0.02}, lambda t: 0.02 + 0.08 * cosine(t / AFTER)),
    ("cosine_restarts", {"cycles": 3, "cycle_growth": 2.0, "restart_decay": 0.5, "total_steps": 70, "eta_min": 0.03},
     lambda t: 0.03 + ((0.07, 10, t) if t < 10 else (0.02, 20, t - 10) if t < 30 else (0.0, 1, 0))[0]
     * cosine((t if t < 10 else t - 10) / (10 if t < 10 else 20))),
    ("cosine_restarts", {"cycles": 1}, lambda t: PEAK * cosine(t / AFTER) if t < AFTER else 0.8 * PEAK),
    ("wsd", {"shape": "linear", "end_factor": 0.1}, lambda t: PEAK * (1 - 0.9 * max(t - 64, 0) / 16)),
    ("wsd", {"shape": "cosine", "decay_steps": "50%", "total_steps": "50%"},
     lambda t: PEAK * cosine(min(t / 40, 1))),
    ("cyclic", {"mode": "triangular2"}, lambda t: 0.01 + (triangle(t) - 0.01) / 2 ** (t // 16)),
    ("cyclic", {"mode": "exp_range", "gamma": 0.9}, lambda t: 0.01 + (triangle(t) - 0.01) * 0.9**t),
]  # fmt: skip


def two_groups(optimizer: type[torch.optim.Optimizer] = torch.optim.SGD, **settings) -> torch.optim.Optimizer:
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": PEAK * f, "lr_factor": f} for f in (1.0, FACTOR)]
    return optimizer(groups, lr=PEAK, **settings)


def rates(schedule, optimizer, steps: int) -> list[tuple[float, float]]:
    """What each group's learning rate is at each of the next `steps` steps."""
    found = []
    for _ in range(steps):
        found.append(tuple(group["lr"] for group in optimizer.param_groups))
        assert schedule.lrs == pytest.approx(found[-1])
        assert schedule.lr == pytest.approx(found[-1][0])
        optimizer.step()
        schedule.step()
    return found


def planned(eta: Callable[[int], float], warmup: int) -> list[tuple[float, float]]:
    values = [min((s + 1) / (warmup + 1), 1) * eta(max(s - warmup, 0)) for s in range(TOTAL)]
    return [(value, FACTOR * value) for value in values]


@pytest.mark.parametrize(
    ("name", "changes", "eta"),
    [*((name, {}, eta) for name, eta in CLOSED_FORMS.items()), *VARIANTS],
    ids=lambda value: value.__name__ if callable(value) else str(value),
)
def test_every_step_has_the_rate_of_the_closed_form(name, changes, eta, compose, make_schedule):
    settings = {f"scheduler__{key}": value for key, value in {"warmup": WARMUP, **changes}.items()}
    optimizer = two_groups()
    schedule = make_schedule(compose("sgd", name, optimizer__lr=PEAK, **settings), optimizer, TOTAL, PER_EPOCH)
    found = rates(schedule, optimizer, TOTAL)
    for step, (ours, expected) in enumerate(zip(found, planned(eta, WARMUP), strict=True)):
        assert ours == pytest.approx(expected, rel=1e-6, abs=1e-12), step


@pytest.mark.parametrize("warmup", [0, 1, "2ep", "5%"])
def test_warmup_is_linear_and_ends_at_the_peak(warmup, compose, make_schedule):
    steps = {0: 0, 1: 1, "2ep": 20, "5%": 4}[warmup]
    optimizer = two_groups()
    config = compose("sgd", "polynomial", scheduler__warmup=warmup, scheduler__power=1.0)
    found = rates(make_schedule(config, optimizer, TOTAL, PER_EPOCH), optimizer, TOTAL)
    expected = planned(lambda t: PEAK * (1 - t / (TOTAL - steps)), steps)
    assert [pair for pair, _ in found] == pytest.approx([pair for pair, _ in expected])


def test_transformer_schedule(compose, make_schedule):
    """min(s^-1/2, s · W^-3/2) · W^1/2 · peak of Vaswani et al., whose steps count from 1."""
    optimizer = two_groups()
    config = compose("sgd", "inverse_sqrt", scheduler__warmup=20, scheduler__timescale=21)
    found = rates(make_schedule(config, optimizer, TOTAL, PER_EPOCH), optimizer, TOTAL)
    warmup = 21
    expected = [PEAK * warmup**0.5 * min(s**-0.5, s * warmup**-1.5) for s in range(1, TOTAL + 1)]
    assert [rate for rate, _ in found] == pytest.approx(expected)


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_a_restored_schedule_continues_identically(name, compose, make_schedule):
    config = compose("sgd", name, optimizer__lr=PEAK, scheduler__warmup=WARMUP)

    def fresh():
        optimizer = two_groups(momentum=0.9)
        return make_schedule(config, optimizer, TOTAL, PER_EPOCH), optimizer

    for stop in (3, WARMUP, 37):
        schedule, optimizer = fresh()
        rates(schedule, optimizer, stop)
        buffer = io.BytesIO()
        torch.save([schedule.state_dict(), optimizer.state_dict()], buffer)
        expected = rates(schedule, optimizer, TOTAL - stop)
        buffer.seek(0)
        saved = torch.load(buffer, weights_only=True)
        schedule, optimizer = fresh()
        optimizer.load_state_dict(saved[1])
        schedule.load_state_dict(saved[0])
        assert rates(schedule, optimizer, TOTAL - stop) == expected


def test_saved_states_are_snapshots(compose, make_schedule):
    optimizer = two_groups()
    schedule = make_schedule(compose("sgd", "cyclic", optimizer__lr=PEAK), optimizer, TOTAL, PER_EPOCH)
    rates(schedule, optimizer, 5)
    state = schedule.state_dict()
    expected = rates(schedule, optimizer, 20)
    for _ in range(2):  # loading must not use the state up
        schedule.load_state_dict(state)
        assert rates(schedule, optimizer, 20) == expected


@pytest.mark.parametrize(("mode", "values"), [("min", [1.0, 0.5, 0.6, 0.7, 0.8]), ("max", [0.1, 0.9, 0.8, 0.7, 0.6])])
def test_plateau_waits_for_patience_and_ignores_the_warmup(mode, values, compose, make_schedule):
    config = compose("sgd", "plateau", scheduler__warmup=4, scheduler__patience=1, scheduler__mode=mode)
    optimizer = two_groups()
    schedule = make_schedule(config, optimizer, TOTAL, PER_EPOCH)
    for _ in range(4):
        schedule.on_metric(-math.inf if mode == "min" else math.inf)  # would make every later value a bad one
        optimizer.step()
        schedule.step()
    seen = []
    for value in values:
        schedule.on_metric(torch.tensor(value))
        optimizer.step()
        schedule.step()
        seen.append([group["lr"] for group in optimizer.param_groups])
    expected = [PEAK, PEAK, PEAK, PEAK / 10, PEAK / 10]
    assert seen == [pytest.approx([lr, FACTOR * lr]) for lr in expected]


def test_other_schedules_ignore_metrics(compose, make_schedule):
    optimizer = two_groups()
    schedule = make_schedule(compose("sgd", "cosine"), optimizer, TOTAL, PER_EPOCH)
    schedule.on_metric(1.0)
    assert schedule.inner.last_epoch == 0


@pytest.mark.parametrize(
    ("name", "changes", "match"),
    [
        ("inverse_sqrt", {"timescale": 0}, r"timescale must be a whole number of steps >= 1, got 0"),
        ("polynomial", {"total_steps": 1.5}, r"total_steps must be .* got 1\.5"),
        ("wsd", {"decay_steps": 200}, r"decay_steps must be at most total_steps=86, got 200"),
        ("wsd", {"shape": "sqrt"}, r"shape must be linear, cosine or 1-sqrt, got sqrt"),
        ("onecycle", {"cycle_momentum": True}, r"momentum or beta1"),
    ],
)
def test_impossible_settings_are_refused(name, changes, match, compose, make_schedule):
    config = compose("sgd", name, **{f"scheduler__{key}": value for key, value in changes.items()})
    with pytest.raises(ValueError, match=match):
        make_schedule(config, two_groups(torch.optim.Adagrad), TOTAL, PER_EPOCH)
