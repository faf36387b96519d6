import torch
from torch import nn

from dlrun.optim.lookahead import Lookahead


def step(p: nn.Parameter, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    (p - 10.0).square().sum().backward()
    optimizer.step()


def test_slow_weights_follow_as_in_algorithm_1():
    p = nn.Parameter(torch.tensor([0.0, 4.0], dtype=torch.float64))
    fast, slow = p.detach().clone(), p.detach().clone()
    momentum = torch.zeros_like(fast)
    optimizer = torch.optim.SGD([p], lr=0.1, momentum=0.9)
    lookahead = Lookahead([p], steps=3, alpha=0.4)
    for outer in range(4):
        for inner in range(3):
            step(p, optimizer)
            lookahead.update()
            momentum = 0.9 * momentum + 2 * (fast - 10.0)  # kept over the synchronisation
            fast = fast - 0.1 * momentum
            if inner < 2:
                torch.testing.assert_close(p.detach(), fast)
        slow = slow + 0.4 * (fast - slow)
        fast = slow
        torch.testing.assert_close(p.detach(), slow, msg=f"outer step {outer}")


def test_it_goes_on_from_its_saved_state():
    ends = []
    for cut in (None, 4):
        p = nn.Parameter(torch.tensor([0.0, 4.0]))
        optimizer, lookahead = torch.optim.SGD([p], lr=0.1), Lookahead([p], steps=3, alpha=0.5)
        for i in range(8):
            if i == cut:
                saved = {"slow": [t.clone() for t in lookahead.slow], "updates": lookahead.updates}
                lookahead = Lookahead([p], steps=3, alpha=0.5)
                lookahead.load_state_dict(saved)
            step(p, optimizer)
            lookahead.update()
        ends.append(p.detach())
    assert torch.equal(*ends)
