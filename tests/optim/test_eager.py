"""Optimizers without torch._dynamo: in a process of its own, as that of pytest may have loaded it already."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# Every optimizer takes the same steps without torch._dynamo as with torch's own wrappers, to the bit.
SAME_STEPS = """
import sys, torch
from torch import optim
from dlrun.optim.eager import keep_dynamo_unloaded

NAMES = "SGD Adam AdamW NAdam RAdam RMSprop Adagrad Adadelta Adamax ASGD Rprop Adafactor LBFGS".split()

def trained(name):
    weight = torch.nn.Parameter(torch.linspace(-1, 1, 12).view(3, 4))
    optimizer = getattr(optim, name)([weight])
    def closure():
        optimizer.zero_grad()
        loss = (weight * torch.arange(12.0).view(3, 4)).sin().sum()
        loss.backward()
        return loss
    for _ in range(4):
        optimizer.step(closure)
    optimizer.load_state_dict(optimizer.state_dict())
    return weight.detach().clone()

keep_dynamo_unloaded()
without = [trained(name) for name in NAMES]
assert "torch._dynamo" not in sys.modules, "an optimizer has loaded it"

weight = torch.ones(3, requires_grad=True)
moved = weight.clone()
moved.grad = 2 * weight
optim.SGD([moved], lr=0.5, differentiable=True).step()
assert torch.equal(torch.autograd.grad(moved.sum(), weight)[0], torch.zeros(3)), "w - 0.5 * 2 w, so 1 - 1"

step = optim.SGD.step
keep_dynamo_unloaded()
assert optim.SGD.step is step, "nothing more to do"

model, inputs = torch.nn.Linear(4, 1), torch.ones(2, 4)
assert torch.equal(torch.compile(model, backend="eager")(inputs), model(inputs))
assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1, "it was not compiled"
assert all(torch.equal(a, trained(name)) for a, name in zip(without, NAMES, strict=True))
assert optim.Optimizer.zero_grad.__wrapped__.__dynamo_disable._torchdynamo_disable, "torch's own again"
"""


def test_steps_are_the_same_without_dynamo_and_it_is_torch_s_own_again_once_something_compiles():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SAME_STEPS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


# In a torch whose wrappers are not to be found, or are made otherwise, nothing is changed.
OTHER_TORCH = """
import torch
from torch import optim
from dlrun.optim.eager import keep_dynamo_unloaded

del torch._disable_dynamo
import torch.optim.optimizer as module
module._use_grad_for_differentiable = lambda method: method
before = [dict(vars(kind)) for kind in (optim.Optimizer, optim.SGD)]
keep_dynamo_unloaded()
assert before == [dict(vars(kind)) for kind in (optim.Optimizer, optim.SGD)]
assert not hasattr(optim.Optimizer.zero_grad.__wrapped__, "__dynamo_disable")
"""


def test_another_torch_is_left_as_it_is():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", OTHER_TORCH],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
