import pytest
import torch
from torch import nn

from dlrun.optim.sam import SharpnessAware


def model() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    return net, torch.randn(8, 3, dtype=torch.float64)


@pytest.mark.parametrize("adaptive", [False, True])
def test_it_climbs_as_the_paper_says_and_comes_back_to_the_bit(adaptive):
    net, inputs = model()
    net(inputs).square().mean().backward()
    weights = [p.detach().clone() for p in net.parameters()]
    gradients = [p.grad.clone() for p in net.parameters()]
    scales = [w.abs() + 0.01 if adaptive else torch.ones_like(w) for w in weights]
    norm = sum(float((t * g).square().sum()) for t, g in zip(scales, gradients, strict=True)) ** 0.5
    with SharpnessAware(list(net.parameters()), 0.3, adaptive).climbed():
        for p, w, g, t in zip(net.parameters(), weights, gradients, scales, strict=True):
            torch.testing.assert_close(p.detach(), w + 0.3 * t * t * g / norm, rtol=1e-9, atol=1e-12)
    for p, w in zip(net.parameters(), weights, strict=True):
        assert torch.equal(p, w)


def test_it_goes_to_the_worst_point_of_a_ball():
    """Of a linear function the worst point at distance rho is known: straight along the gradient."""
    p = nn.Parameter(torch.tensor([3.0, 4.0]))
    slope = torch.tensor([0.6, -0.8])
    (p @ slope).backward()
    with SharpnessAware([p], 2.0).climbed():
        torch.testing.assert_close(p.detach() @ slope, torch.tensor([3.0, 4.0]) @ slope + 2.0)


def test_it_comes_back_when_the_evaluation_fails_and_leaves_what_has_no_gradient():
    p, q = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    p.grad = torch.ones(2)

    def fail() -> None:
        with SharpnessAware([p, q], 1.0).climbed():
            assert torch.equal(q, torch.ones(2))
            assert not torch.equal(p, q)
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        fail()
    assert torch.equal(p, q)
