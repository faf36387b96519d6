"""The training step against the plainest possible reference."""

import copy

import pytest
import torch
from torch import Tensor, nn

from dlrun.contracts import Batch
from dlrun.engine.objective import Objective
from dlrun.engine.precision import choose_precision
from dlrun.engine.step import TrainStep
from dlrun.errors import ConfigError
from dlrun.optim.gradients import ClipNorm, GradientNoise
from dlrun.optim.sam import SharpnessAware

CPU = torch.device("cpu")
FP32 = choose_precision("fp32", CPU)


class NoSchedule:
    def __init__(self) -> None:
        self.steps = 0

    def step(self) -> None:
        self.steps += 1

    def on_metric(self, value: float) -> None: ...

    def state_dict(self) -> dict[str, int]:
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None: ...


class WeightedLoss(nn.Module):
    """Cross-entropy whose mean is over class weights, as PyTorch's with `weight`."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("class_weight", torch.tensor([1.0, 5.0, 0.5]))

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, targets, weight=self.class_weight)

    def weight(self, targets: Tensor) -> Tensor:
        return self.class_weight[targets].sum()


def make(loss: nn.Module, **options: object) -> TrainStep:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
    precision = options.pop("precision", FP32)
    objective = Objective(loss)
    return TrainStep(model, objective, optimizer, NoSchedule(), precision, **{"micro_batch_size": 64, **options})


def batches(count: int, size: int) -> list[Batch]:
    generator = torch.Generator().manual_seed(1)
    return [
        Batch(
            torch.randn(size, 6, dtype=torch.float64, generator=generator),
            torch.randint(3, (size,), generator=generator),
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), WeightedLoss().double()], ids=["plain", "weighted"])
@pytest.mark.parametrize("micro", [8, 10, 7, 25])
def test_accumulated_micro_batches_equal_the_big_batch_even_when_the_last_is_smaller(loss, micro):
    whole, parts = make(loss), make(loss, micro_batch_size=micro, accumulate=-(-25 // micro))
    for batch in batches(5, 25):
        assert torch.allclose(whole(batch), parts(batch), rtol=1e-12)
    for a, b in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-11, atol=1e-13)


def test_a_step_is_what_pytorch_does_by_hand():
    step = make(nn.CrossEntropyLoss(), transforms=[ClipNorm(0.1)])
    step.measure_norm = True
    reference = make(nn.CrossEntropyLoss())
    for batch in batches(4, 32):
        step(batch)
        reference.optimizer.zero_grad()
        nn.functional.cross_entropy(reference.model(batch.inputs), batch.targets).backward()
        norm = nn.utils.clip_grad_norm_(reference.model.parameters(), 0.1)
        reference.optimizer.step()
        assert torch.equal(step.gradient_norm, norm)
    for a, b in zip(step.model.parameters(), reference.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert step.schedule.steps == 4


def test_the_norm_is_measured_when_asked_without_clipping():
    step = make(nn.CrossEntropyLoss())
    step(batches(1, 8)[0])
    assert step.gradient_norm is None
    step.measure_norm = True
    step(batches(1, 8)[0])
    by_hand = torch.stack([p.grad.square().sum() for p in step.model.parameters()]).sum().sqrt()
    assert torch.allclose(step.gradient_norm, by_hand)


def test_lbfgs_gets_its_closure_and_solves_a_least_squares_problem():
    torch.manual_seed(0)
    model = nn.Linear(4, 1).double()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=1.0, line_search_fn="strong_wolfe")
    precision = choose_precision("fp32", CPU)
    step = TrainStep(model, Objective(nn.MSELoss()), optimizer, NoSchedule(), precision, micro_batch_size=64)
    inputs = torch.randn(64, 4, dtype=torch.float64)
    targets = inputs @ torch.tensor([[1.0], [-2.0], [3.0], [0.5]], dtype=torch.float64) + 0.25
    for _ in range(6):
        step(Batch(inputs, targets))
    assert float(step(Batch(inputs, targets))) < 1e-9


def test_lbfgs_is_refused_with_a_scaled_loss():
    model = nn.Linear(4, 1)
    optimizer = torch.optim.LBFGS(model.parameters())
    precision = choose_precision("fp16", CPU)
    with pytest.raises(ConfigError, match=r"fp16 does not go with LBFGS"):
        TrainStep(model, Objective(nn.MSELoss()), optimizer, NoSchedule(), precision, micro_batch_size=4)


def test_fp16_scales_the_loss_and_unscales_before_clipping():
    torch.manual_seed(0)
    model = nn.Linear(6, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    precision = choose_precision("fp16", CPU)
    objective, clip = Objective(nn.CrossEntropyLoss()), ClipNorm(1e9)
    step = TrainStep(model, objective, optimizer, NoSchedule(), precision, micro_batch_size=64, transforms=[clip])
    step.measure_norm = True
    batch = Batch(torch.randn(32, 6), torch.randint(3, (32,)))
    with torch.no_grad():
        before = [p.clone() for p in model.parameters()]
    reference = torch.autograd.grad(nn.functional.cross_entropy(model(batch.inputs), batch.targets), model.parameters())
    step(batch)
    for old, new, gradient in zip(before, model.parameters(), reference, strict=True):
        assert torch.allclose((old - new) / 0.1, gradient, atol=2e-3)
    assert float(step.gradient_norm) < 10  # of the true gradients; scaled by 65536 they would be thousands


def test_split_cuts_inputs_and_targets_alike_also_tuples():
    x, y = torch.arange(10), torch.arange(10)
    parts = Batch((x, x * 2), y).split(4)
    assert [len(part) for part in parts] == [4, 4, 2]
    assert torch.equal(torch.cat([part.arguments[1] for part in parts]), x * 2)


class Counting:
    """A metric that counts how often it sees outputs."""

    names = ("seen",)
    higher_is_better = {"seen": True}  # noqa: RUF012

    def __init__(self) -> None:
        self.seen = 0

    def reset(self, device: torch.device) -> None: ...

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        self.seen += 1

    def compute(self) -> dict[str, float]:
        return {"seen": self.seen}


@pytest.mark.parametrize("accumulate", [1, 2])
def test_sam_is_two_plain_evaluations_written_out(accumulate):
    """The gradient is that at w + ε alone; metrics, batch statistics and the loss are of the first evaluation."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3)).double()
    reference = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    theirs = torch.optim.SGD(reference.parameters(), lr=0.1, momentum=0.9)
    counting = Counting()
    step = TrainStep(
        model, Objective(nn.CrossEntropyLoss()), optimizer, NoSchedule(), choose_precision("fp32", CPU),
        micro_batch_size=32 // accumulate, accumulate=accumulate, sam=SharpnessAware(list(model.parameters()), 0.2),
        transforms=[ClipNorm(0.5)], metrics=[counting],
    )  # fmt: skip

    def loss_of(net: nn.Module, batch: Batch) -> Tensor:
        parts = batch.split(32 // accumulate)
        return sum(nn.functional.cross_entropy(net(part.inputs), part.targets) for part in parts) / accumulate

    for i, batch in enumerate(batches(3, 32)):
        loss = step(batch)
        expected = loss_of(reference, batch)
        assert torch.allclose(loss, expected)
        gradients = torch.autograd.grad(expected, list(reference.parameters()))
        norm = torch.stack([g.square().sum() for g in gradients]).sum().sqrt()
        moved = copy.deepcopy(reference)
        with torch.no_grad():
            for p, g in zip(moved.parameters(), gradients, strict=True):
                p.add_(0.2 * g / norm)
        there = torch.autograd.grad(loss_of(moved, batch), list(moved.parameters()))
        for p, g in zip(reference.parameters(), there, strict=True):
            p.grad = g
        nn.utils.clip_grad_norm_(reference.parameters(), 0.5)
        theirs.step()
        assert counting.seen == accumulate * (i + 1)
    for (name, a), b in zip(model.state_dict().items(), reference.state_dict().values(), strict=True):
        assert torch.allclose(a, b, rtol=1e-9), name


def lbfgs_step(**options: object) -> TrainStep:
    model = nn.Linear(6, 3)
    return TrainStep(
        model, Objective(nn.CrossEntropyLoss()), torch.optim.LBFGS(model.parameters()), NoSchedule(),
        choose_precision("fp32", CPU), micro_batch_size=4, **options,
    )  # fmt: skip


def test_what_needs_one_evaluation_per_step_is_refused_with_lbfgs():
    with pytest.raises(ConfigError, match=r"trainer.sam does not go with LBFGS"):
        lbfgs_step(sam=SharpnessAware([], 0.1))
    with pytest.raises(ConfigError, match=r"gradient_noise do not go with LBFGS"):
        lbfgs_step(transforms=[GradientNoise(1.0, 0.5, int, CPU)])


def test_sam_is_refused_with_a_scaled_loss():
    model = nn.Linear(4, 1)
    with pytest.raises(ConfigError, match=r"fp16 does not go with trainer.sam"):
        TrainStep(
            model, Objective(nn.MSELoss()), torch.optim.SGD(model.parameters()), NoSchedule(),
            choose_precision("fp16", CPU), micro_batch_size=4, sam=SharpnessAware(list(model.parameters()), 0.1),
        )  # fmt: skip


class CountingSGD(torch.optim.SGD):
    """An optimizer with a `zero_grad` of its own."""

    cleared = 0

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.cleared += 1
        super().zero_grad(set_to_none)


def test_a_zero_grad_of_ones_own_is_called_and_the_gradients_of_the_step_before_are_never_added():
    model = nn.Linear(6, 3).double()
    optimizer = CountingSGD(model.parameters(), lr=0.3)
    for step in (
        TrainStep(model, Objective(nn.CrossEntropyLoss()), optimizer, NoSchedule(), FP32, micro_batch_size=64),
        make(nn.CrossEntropyLoss()),
    ):
        for batch in batches(3, 8):
            before = copy.deepcopy(step.model)
            step(batch)
            nn.functional.cross_entropy(before(batch.inputs), batch.targets).backward()
            assert all(
                map(torch.equal, [p.grad for p in step.model.parameters()], [p.grad for p in before.parameters()])
            )
    assert optimizer.cleared == 3


@pytest.mark.parametrize("fused", [False, True])
def test_the_update_is_that_of_the_optimizers_own_step(fused):
    steps = []
    for direct in (True, False):
        torch.manual_seed(0)
        model = nn.Linear(6, 3).double()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=fused)
        step = TrainStep(model, Objective(nn.CrossEntropyLoss()), optimizer, NoSchedule(), FP32, micro_batch_size=64)
        assert (step.direct is not None) is fused
        step.direct = step.direct if direct else None
        for batch in batches(5, 8):
            step(batch)
        steps.append(step)
    assert all(map(torch.equal, steps[0].model.parameters(), steps[1].model.parameters()))


@pytest.mark.parametrize("there", [True, False])
def test_a_state_from_another_device_is_gone_on_from_in_the_way_of_this_one(there):
    """On a GPU learning rates are tensors, which an optimizer takes only if it is capturable or fused."""
    pair = []
    for fused in (there, not there):
        step = make(nn.CrossEntropyLoss())
        step.optimizer = torch.optim.AdamW(step.model.parameters(), lr=0.01, fused=fused)
        pair.append(step)
    first, second = batches(2, 32)
    pair[0](first)
    pair[1].load_state_dict(copy.deepcopy(pair[0].state_dict()))
    assert [step.optimizer.param_groups[0]["fused"] for step in pair] == [there, not there]
    for step in pair:
        step(second)
    for ours, theirs in zip(pair[0].model.parameters(), pair[1].model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_step_that_was_abandoned_leaves_gradients_to_be_unscaled():
    step = make(nn.CrossEntropyLoss(), precision=choose_precision("fp16", CPU), transforms=[ClipNorm(1.0)])
    step(batches(1, 8)[0])
    step._evaluate(batches(1, 8)[0])
    step._transform_gradients()
    with pytest.raises(RuntimeError, match="already been called"):
        step(batches(1, 8)[0])
    step.abandon()
    step(batches(1, 8)[0])
