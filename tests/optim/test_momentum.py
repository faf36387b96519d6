import pytest
import torch

from dlrun.optim.momentum import start_momentum


def overflowing(start: bool, junk: float) -> torch.Tensor:
    """A parameter after a step whose gradients overflow, which is left out, and one of gradients 1."""
    p = torch.nn.Parameter(torch.ones(3000))
    optimizer = torch.optim.SGD([p], lr=0.1, momentum=0.9, fused=True)
    if start:
        start_momentum(optimizer)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(torch.ones(()))
    left = [torch.full((3000,), junk) for _ in range(4)]
    del left  # what memory holds that nobody has cleared
    for gradient in (float("inf"), 1.0):
        p.grad = torch.full_like(p, gradient * scaler.get_scale())
        scaler.step(optimizer)
        scaler.update()
    return p.detach()


@pytest.mark.parametrize("junk", [float("nan"), 1e30])
def test_a_first_step_that_is_left_out_leaves_no_junk_in_the_momentum(junk):
    assert torch.equal(overflowing(True, junk), torch.full((3000,), 0.9))


@pytest.mark.parametrize("nesterov", [False, True])
def test_the_first_steps_are_those_of_an_optimizer_left_alone(nesterov):
    weights = []
    for start in (False, True):
        p = torch.nn.Parameter(torch.linspace(-1, 1, 7))
        optimizer = torch.optim.SGD([p], lr=0.1, momentum=0.9, nesterov=nesterov, weight_decay=0.01, fused=True)
        if start:
            start_momentum(optimizer)
        for _ in range(3):
            p.grad = p.detach().sin()
            optimizer.step()
        weights.append(p.detach())
    assert torch.equal(*weights)


def test_other_optimizers_are_left_alone():
    optimizer = torch.optim.RMSprop([torch.nn.Parameter(torch.ones(2))], momentum=0.9)
    start_momentum(optimizer)
    assert not optimizer.state
