"""Gradient transforms against closed forms, NumPy and references written straight from the papers."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from dlrun.optim.gradients import (
    ClipAdaptive,
    ClipEach,
    ClipNorm,
    ClipPercentile,
    ClipValue,
    GradientNoise,
    gradient_norm,
)

CPU = torch.device("cpu")


def parameters() -> list[nn.Parameter]:
    """Gradients 3, 4, -12 (norm 13) in two tensors, and a parameter without one."""
    made = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(3))]
    made[0].grad, made[1].grad = torch.tensor([3.0, 4.0]), torch.tensor([-12.0])
    return made


def gradients(made: list[nn.Parameter]) -> list[float]:
    return [x for p in made if p.grad is not None for x in p.grad.tolist()]


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        (ClipNorm(6.5), [1.5, 2.0, -6.0]),  # all together
        (ClipNorm(20.0), [3.0, 4.0, -12.0]),
        (ClipEach(2.5), [1.5, 2.0, -2.5]),  # each tensor on its own
        (ClipEach(5.5), [3.0, 4.0, -5.5]),
        (ClipValue(3.5), [3.0, 3.5, -3.5]),
        (ClipValue(20.0), [3.0, 4.0, -12.0]),
        (ClipAdaptive(1000.0), [0.6, 0.8, -1.0]),  # weights are 0: 1000 · 1e-3 is the largest norm of a unit
        (ClipPercentile(50, 10, None, CPU), [3.0, 4.0, -12.0]),  # its own norm is the only one so far
        (ClipPercentile(50, 10, 6.5, CPU), [1.5, 2.0, -6.0]),
    ],
)
def test_hand_computed(transform, expected):
    made = parameters()
    transform.begin(0)
    transform(made)
    torch.testing.assert_close(gradients(made), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    "transform",
    [ClipNorm(1.0), ClipEach(1.0), ClipValue(1.0), ClipAdaptive(0.01), ClipPercentile(10, 4, None, CPU),
     GradientNoise(1.0, 0.55, int, CPU)],
)  # fmt: skip
def test_nothing_to_do(transform):
    made = [nn.Parameter(torch.ones(2))]
    transform.begin(0)
    transform(made)
    assert made[0].grad is None
    assert gradient_norm(made).item() == 0.0


@pytest.mark.parametrize("history", [7, 1000])
def test_the_percentile_is_numpys_of_the_norms_so_far(history):
    generator = np.random.default_rng(0)
    raw = generator.lognormal(size=30)
    clip = ClipPercentile(10, history, None, CPU)
    for step, norm in enumerate(raw):
        p = nn.Parameter(torch.zeros(4))
        p.grad = torch.full((4,), norm / 2)
        clip.begin(step)
        clip([p])
        limit = np.percentile(raw[max(0, step + 1 - history) : step + 1], 10)
        assert gradient_norm([p]).item() == pytest.approx(min(norm, limit), rel=1e-5)


def test_norms_that_overflowed_are_not_remembered():
    clip = ClipPercentile(50, 5, None, CPU)
    norms = [1.0, math.inf, math.nan, 3.0]
    for step, norm in enumerate(norms):
        p = nn.Parameter(torch.zeros(1))
        p.grad = torch.tensor([norm])
        clip.begin(step)
        clip([p])
    assert p.grad.item() == pytest.approx(2.0, rel=1e-5)  # the median of 1 and 3


def test_the_history_survives_saving():
    whole, cut = ClipPercentile(25, 4, None, CPU), ClipPercentile(25, 4, None, CPU)
    results = []
    for clip in (whole, cut):
        for step, norm in enumerate([5.0, 1.0, 3.0, 2.0, 4.0, 6.0]):
            if step == 3 and clip is cut:
                saved = cut.state_dict()
                clip = ClipPercentile(25, 4, None, CPU)
                clip.load_state_dict(saved)
            p = nn.Parameter(torch.zeros(1))
            p.grad = torch.tensor([norm])
            clip.begin(step)
            clip([p])
        results.append(p.grad)
    assert torch.equal(*results)


def test_agc_limits_each_filter_row_and_vector_by_its_own_weights():
    torch.manual_seed(0)
    shapes = [(6, 3, 3, 3), (5, 7), (4,), ()]
    made = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    excluded = nn.Parameter(torch.randn(2, 3))
    for p in (*made, excluded):
        p.grad = torch.randn(p.shape)
    with torch.no_grad():
        made[0][2] = 0.0  # a dead filter: taken to have norm 1e-3
    before = [p.grad.clone() for p in (*made, excluded)]
    ClipAdaptive(0.5, [excluded])([*made, excluded])
    for p, old in zip(made, before[:-1], strict=True):
        units = range(len(p)) if p.ndim > 1 else [...]
        for i in units:
            largest = 0.5 * max(p[i].norm().item(), 1e-3)
            factor = min(1.0, largest / old[i].norm().item())
            torch.testing.assert_close(p.grad[i], old[i] * factor)
    assert torch.equal(excluded.grad, before[-1])


def test_noise_has_the_variance_of_its_schedule_and_the_same_noise_at_the_same_step():
    noise = GradientNoise(0.3, 0.55, lambda step: step, CPU)
    assert noise.sigma(0) ** 2 == pytest.approx(0.3)
    assert noise.sigma(999) ** 2 == pytest.approx(0.3 / 1000**0.55)
    drawn = {}
    for step in (0, 5, 5, 99):
        p = nn.Parameter(torch.zeros(20_000))
        p.grad = torch.full_like(p, 7.0)
        noise.begin(step)
        noise([p])
        added = p.grad - 7.0
        # The standard error of the deviation is sigma / 200; five of them are exceeded once in two million.
        assert added.std().item() == pytest.approx(noise.sigma(step), rel=5 / 200)
        assert abs(added.mean().item()) < 5 * noise.sigma(step) / math.sqrt(20_000)
        assert torch.equal(drawn.setdefault(step, added), added)
    assert not torch.equal(drawn[0], drawn[5])
