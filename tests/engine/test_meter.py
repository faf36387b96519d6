"""The loss window: means as computed by hand, and the exact step of a divergence."""

import pytest
import torch

from dlrun.engine.meter import DivergedError, LossMeter


def test_means_are_weighted_by_batch_size():
    meter = LossMeter(4, torch.device("cpu"))
    losses, sizes = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0], [10, 10, 10, 10, 10, 3]
    for loss, size in zip(losses, sizes, strict=True):
        meter.add(torch.tensor(loss), size, 0.1)
    expected = sum(loss * size for loss, size in zip(losses, sizes, strict=True)) / sum(sizes)
    assert meter.mean_since_log() == pytest.approx(expected, rel=1e-12)
    meter.add(torch.tensor(5.0), 10, 0.1)
    assert meter.mean_since_log() == 5.0
    assert meter.mean_since_validation() == pytest.approx((expected * 53 + 50) / 63, rel=1e-12)
    meter.add(torch.tensor(7.0), 1, 0.1)
    assert meter.mean_since_validation() == 7.0


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_the_first_loss_that_is_not_finite_is_found_with_its_step_and_lr(bad):
    meter = LossMeter(10, torch.device("cpu"))
    for step in range(1, 8):
        meter.add(torch.tensor(bad if step >= 5 else 1.0), 4, step / 100)
    with pytest.raises(DivergedError) as caught:
        meter.drain()
    assert (caught.value.step, caught.value.lr) == (5, 0.05)


def test_a_restored_meter_goes_on_as_if_nothing_had_happened():
    one, two = (LossMeter(5, torch.device("cpu")) for _ in range(2))
    for value in (0.1, 0.2, 0.3):
        one.add(torch.tensor(value), 7, 0.1)
    two.load_state_dict(one.state_dict())
    for meter in (one, two):
        for value in (0.4, 0.5, 0.6):
            meter.add(torch.tensor(value), 5, 0.1)
    assert one.mean_since_log() == two.mean_since_log()
    assert one.mean_since_validation() == two.mean_since_validation()
    assert one.state_dict() == two.state_dict()
