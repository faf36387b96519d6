"""The oracle is each model on its own, by torch's own optimizers, in float64."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from dlrun.contracts import Batch
from dlrun.engine.objective import Objective
from dlrun.engine.precision import Precision
from dlrun.engine.step import TrainStep
from dlrun.losses import CrossEntropy
from dlrun.optim.gradients import ClipNorm
from dlrun.optim.schedule import Schedule
from dlrun.stacked.stack import Stack
from dlrun.stacked.update import Each, Together, can_be_together, column_order

CPU = torch.device("cpu")
STEPS = 20
LRS, DECAYS, LIMITS = (0.1, 0.003, 0.03), (0.0, 0.1, 0.01), (None, 0.05, 1.0)


class Skip(nn.Module):
    """Anything that is not written out by hand."""

    def __init__(self):
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.output = nn.Linear(4 * 16, 3)

    def forward(self, x):
        x = x.view(-1, 1, 4, 4)
        return self.output((x + self.norm(self.convolution(x)).relu()).flatten(1))


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.rnn = kind(4, 3, num_layers=2, bidirectional=True, batch_first=True)
        self.output = nn.Linear(12, 3)

    def forward(self, x):
        outputs, state = self.rnn(x.view(-1, 4, 4))
        last = state[0] if isinstance(state, tuple) else state
        return self.output(torch.cat([outputs[:, 2], *last[-2:]], 1))


def mlp():
    return nn.Sequential(nn.Linear(16, 6), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 3))


RECURRENT = (nn.RNN, nn.GRU, nn.LSTM)
OPTIMIZERS = {
    "sgd": partial(torch.optim.SGD, momentum=0.0),
    "nesterov": partial(torch.optim.SGD, momentum=0.9, nesterov=True, fused=True),
    "adam": partial(torch.optim.Adam, betas=(0.8, 0.95)),
    "adamw": partial(torch.optim.AdamW, fused=True),
}


def runs(make, optimizer):
    """Three steps that differ in seed, rate, decay (so in groups too) and clipping, and the batches of each."""
    steps = []
    for k in range(3):
        torch.manual_seed(k)
        model = make().double()
        biases = [p for p in model.parameters() if p.ndim == 1]
        weights = [p for p in model.parameters() if p.ndim > 1]
        if DECAYS[k]:
            groups = [{"params": biases, "weight_decay": 0.0}, {"params": weights, "weight_decay": DECAYS[k]}]
        else:
            groups = [{"params": [*model.parameters()], "weight_decay": 0.0}]
        made = optimizer(groups, lr=LRS[k])
        schedule = Schedule(made, partial(CosineAnnealingLR, T_max=STEPS), k, STEPS, "step")
        transforms = [ClipNorm(LIMITS[k])] if LIMITS[k] else []
        objective = Objective(CrossEntropy(0.1))
        precision = Precision("fp32", CPU)
        steps.append(TrainStep(model, objective, made, schedule, precision, micro_batch_size=8, transforms=transforms))
    generator = torch.Generator().manual_seed(7)
    inputs = torch.randn(STEPS, 3, 8, 16, generator=generator, dtype=torch.float64)
    return steps, inputs, torch.randint(3, (STEPS, 3, 8), generator=generator)


def train_alone(steps, inputs, targets):
    return [
        [float(step(Batch(x[k], y[k]))) for x, y in zip(inputs, targets, strict=True)] for k, step in enumerate(steps)
    ]


def train_stacked(steps, inputs, targets, kind):
    models = [step.model for step in steps]
    stack = Stack(models, CrossEntropy(0.1), Precision("fp32", CPU), column_order(models, steps))
    update = kind(stack, steps)
    losses = []
    for x, y in zip(inputs, targets, strict=True):
        own, _, gradients = stack.gradients((x,), y)
        update(gradients, False)
        losses.append(own.tolist())
    for k in range(3):
        update.hand_back(k)
    return stack, [list(of_one) for of_one in zip(*losses, strict=True)]


@pytest.mark.parametrize(
    ("make", "name", "kind"),
    [(mlp, name, Together) for name in OPTIMIZERS]
    + [(make, "adamw", Together) for make in (Skip, *(partial(Recurrent, kind) for kind in RECURRENT))]
    + [(mlp, "adamw", Each)],
)
def test_a_stack_does_what_its_models_would_do_alone(make, name, kind):
    alone, stacked = (runs(make, OPTIMIZERS[name]) for _ in range(2))
    assert can_be_together(stacked[0])
    expected = train_alone(*alone)
    stack, losses = train_stacked(*stacked, kind)
    assert stack.way == ("by hand" if make is mlp else "vmap")
    torch.testing.assert_close(torch.tensor(losses), torch.tensor(expected), rtol=1e-10, atol=1e-12)
    for one, other in zip(alone[0], stacked[0], strict=True):
        ours, theirs = other.model.state_dict(), one.model.state_dict()
        for key in theirs:
            torch.testing.assert_close(ours[key], theirs[key], rtol=1e-10, atol=1e-12)
        for saved, own in zip(
            one.optimizer.state_dict()["state"].values(), other.optimizer.state_dict()["state"].values(), strict=True
        ):
            for key, value in saved.items():
                torch.testing.assert_close(own[key], value, rtol=1e-10, atol=1e-12)


def test_other_optimizers_and_techniques_are_left_to_each_run():
    steps, _, _ = runs(mlp, partial(torch.optim.Adam, amsgrad=True))
    assert not can_be_together(steps)
    steps, _, _ = runs(mlp, partial(torch.optim.SGD, momentum=0.9, dampening=0.1))
    assert not can_be_together(steps)


def test_models_that_leave_take_their_weights_with_them_and_the_others_go_on():
    steps, inputs, targets = runs(mlp, OPTIMIZERS["adamw"])
    stack, _ = train_stacked(steps, inputs[:3], targets[:3], Each)
    before = [{name: w.clone() for name, w in step.model.state_dict().items()} for step in steps]
    stack.keep([0, 2])
    stack.flat.zero_()
    assert all(torch.equal(w, before[1][name]) for name, w in steps[1].model.state_dict().items())
    assert all(not p.any() for k in (0, 2) for p in steps[k].model.parameters())
    with stack.apart(steps[0].model):
        assert all(p.untyped_storage().nbytes() == p.nbytes for p in steps[0].model.parameters())
    assert steps[0].model[0].weight.untyped_storage().nbytes() == stack.flat.nbytes


def test_betas_that_differ_are_as_exact_as_those_that_do_not():
    """1 - 0.99999 in float32 is off by more than a thousandth."""
    betas = [(0.9, 0.99), (0.9, 0.999), (0.8, 0.99999)]
    made = [runs(mlp, OPTIMIZERS["adamw"]) for _ in range(2)]
    for steps, _, _ in made:
        for step, own in zip(steps, betas, strict=True):
            step.model.float()
            for group in step.optimizer.param_groups:
                group["betas"] = own
    (alone, inputs, targets), (stacked, _, _) = made
    train_alone(alone, inputs.float(), targets)
    train_stacked(stacked, inputs.float(), targets, Together)
    for one, other in zip(alone, stacked, strict=True):
        for p, q in zip(one.model.parameters(), other.model.parameters(), strict=True):
            ours, theirs = (step.optimizer.state[x]["exp_avg_sq"] for step, x in ((other, q), (one, p)))
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-9)
