import math

import torch
from torch import nn

from dlrun.optim.clipping import clip_gradients, gradient_norm


def parameters() -> list[nn.Parameter]:
    """Gradients 3, 4, -12 (norm 13) in two tensors, and a parameter without one."""
    made = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(3))]
    made[0].grad, made[1].grad = torch.tensor([3.0, 4.0]), torch.tensor([-12.0])
    return made


def gradients(made: list[nn.Parameter]) -> list[float]:
    return [x for p in made if p.grad is not None for x in p.grad.tolist()]


def test_norm_scales_all_gradients_together():
    made = parameters()
    total = clip_gradients(iter(made), norm=6.5, value=None)
    assert total.item() == 13.0
    torch.testing.assert_close(gradients(made), [1.5, 2.0, -6.0])
    assert math.isclose(gradient_norm(made).item(), 6.5, rel_tol=1e-6)


def test_smaller_gradients_are_left_alone():
    made = parameters()
    assert clip_gradients(made, norm=20.0, value=20.0).item() == 13.0
    assert gradients(made) == [3.0, 4.0, -12.0]


def test_value_limits_each_element():
    made = parameters()
    assert clip_gradients(made, norm=None, value=3.5) is None
    assert gradients(made) == [3.0, 3.5, -3.5]


def test_norm_comes_before_value():
    made = parameters()
    assert clip_gradients(made, norm=6.5, value=2.0).item() == 13.0
    torch.testing.assert_close(gradients(made), [1.5, 2.0, -2.0])


def test_nothing_to_do():
    made = parameters()
    assert clip_gradients(made, norm=None, value=None) is None
    assert gradients(made) == [3.0, 4.0, -12.0]
    assert gradient_norm([nn.Parameter(torch.zeros(1))]).item() == 0.0
