"""A step that runs out of memory: the run is that of smaller micro-batches from the start, to the bit."""

import copy
import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dlrun.build import check_fit
from dlrun.contracts import Batch
from dlrun.engine.evaluate import Evaluator, evaluation_batch_size
from dlrun.engine.loaders import Preparation
from dlrun.engine.memory import DeviceMemoryError, LateMemoryError, MicroBatches, halving, is_out_of_memory
from dlrun.engine.objective import Objective
from dlrun.engine.precision import choose_precision
from dlrun.engine.step import TrainStep
from dlrun.metrics.classes import Accuracy
from dlrun.optim.sam import SharpnessAware

from ..samples import sample
from .test_step import NoSchedule

CPU = torch.device("cpu")


class Cramped(nn.Module):
    """Has room for `room` examples at a time, and finds out when it has drawn, counted and changed all it changes."""

    def __init__(self, inner: nn.Module, room: int) -> None:
        super().__init__()
        self.inner, self.room, self.tried = inner, room, []
        self.register_buffer("passes", torch.zeros((), dtype=torch.int64))

    def forward(self, inputs: Tensor) -> Tensor:
        self.tried.append(len(inputs))
        outputs = self.inner(inputs) * (1 + 1e-3 * random.random())
        self.passes += 1
        if len(inputs) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return outputs


def make(room: int, micro: int, count: int, *, norm: bool = False, **options: object) -> TrainStep:
    torch.manual_seed(0)
    random.seed(0)
    between = [nn.BatchNorm1d(8)] if norm else []
    model = Cramped(nn.Sequential(nn.Linear(6, 8), *between, nn.Dropout(0.5), nn.Linear(8, 3)), room)
    accuracy = Accuracy()
    accuracy.reset(CPU)
    make_optimizer: Callable = options.pop("optimizer", torch.optim.AdamW)
    if options.pop("sam", False):
        options["sam"] = SharpnessAware(list(model.parameters()), 0.1)
    step = TrainStep(
        model, Objective(nn.CrossEntropyLoss()), make_optimizer(model.parameters()), NoSchedule(),
        options.pop("precision", choose_precision("fp32", CPU)), micro_batch_size=micro, accumulate=count,
        metrics=[accuracy], **options,
    )  # fmt: skip
    step.said = []
    step.micro.warn = step.said.append
    return step


def batches(*sizes: int) -> list[Batch]:
    generator = torch.Generator().manual_seed(1)
    return [Batch(torch.randn(n, 6, generator=generator), torch.randint(3, (n,), generator=generator)) for n in sizes]


def assert_same(a: TrainStep, b: TrainStep) -> None:
    for (name, one), other in zip(a.model.state_dict().items(), b.model.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    assert torch.equal(a.metrics[0].totals, b.metrics[0].totals)


OPTIONS = {
    "plain": {},
    "norm": {"norm": True},
    "sam": {"sam": True},
    "sam, norm": {"sam": True, "norm": True},
    "lbfgs": {"optimizer": lambda p: torch.optim.LBFGS(p, max_iter=3)},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_the_run_is_that_of_smaller_micro_batches_from_the_start(name):
    sizes = (32, 32, 20, 7)
    short, straight = make(8, 32, 1, **OPTIONS[name]), make(32, 8, 4, **OPTIONS[name])
    for step in (short, straight):
        torch.manual_seed(5)
        random.seed(5)
        step.losses = [step(batch) for batch in batches(*sizes)]
    assert short.micro.size == 8
    assert short.model.tried[:3] == [32, 16, 8]
    assert max(short.model.tried[2:]) == 8
    assert len(short.said) == 2
    assert "data.batch_size=8 trainer.accumulate=4" in short.said[1]
    assert ("Batch norm takes its statistics from 8 examples" in short.said[1]) == ("norm" in name)
    assert all(torch.equal(a, b) for a, b in zip(short.losses, straight.losses, strict=True))
    assert_same(short, straight)


def test_a_resumed_run_keeps_the_micro_batch():
    short, resumed = make(8, 32, 1), make(1000, 32, 1)
    first, second = batches(32, 32)
    short(first)
    resumed.load_state_dict(copy.deepcopy(short.state_dict()))
    for step in (short, resumed):
        torch.manual_seed(6)
        random.seed(6)
        step(second)
    assert resumed.model.tried == [8, 8, 8, 8]
    for one, other in zip(short.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_only_the_first_step_of_a_shape_is_copied(monkeypatch):
    made = []
    monkeypatch.setattr("dlrun.engine.memory.Snapshot", lambda *arguments: made.append(arguments))
    step = make(64, 32, 1)
    for batch in batches(32, 32, 7, 32, 7):
        step(batch)
    assert len(made) == 2
    step.micro.forget()
    step(batches(32)[0])
    assert len(made) == 3


def test_memory_that_can_be_spared_goes_before_anything_is_halved():
    short, roomy = make(32, 32, 1), make(1000, 32, 1)
    spared = []

    def make_room():
        spared.append(short.micro.size)
        short.model.room = 32

    for step in (short, roomy):
        torch.manual_seed(5)
        random.seed(5)
        step.losses = [step(batches(32)[0])]
        if step is short:
            short.model.room, short.micro.make_room = 8, make_room
        step.losses += [step(batch) for batch in batches(32, 20)]
    assert spared == [32]
    assert short.micro.size == 32
    assert not short.said
    assert short.losses == roomy.losses
    assert_same(short, roomy)


def test_a_late_shortage_asks_for_the_last_checkpoint():
    step = make(32, 32, 1)
    step(batches(32)[0])
    step.model.room = 8
    with pytest.raises(LateMemoryError, match=r"goes back to its last checkpoint .* micro-batches of 16") as caught:
        step(batches(32)[0])
    assert caught.value.micro_batch_size == 16


@pytest.mark.parametrize(
    ("room", "norm", "needle"),
    [
        (0, False, "one example at a time.*checkpoint_activations=true"),
        (1, True, "two examples, the fewest that batch"),
    ],
)
def test_what_does_not_fit_at_all_is_said_with_what_to_type(room, norm, needle):
    with pytest.raises(DeviceMemoryError, match=needle):
        make(room, 32, 1, norm=norm)(batches(32)[0])


def test_a_model_that_carries_its_state_is_not_cut_up():
    step = make(8, 32, 1)
    step.model.carried = nn.Identity()
    with pytest.raises(DeviceMemoryError, match=r"model.carry=true needs each batch whole.* smaller data.batch_size"):
        step(batches(32)[0])


def test_batch_norm_never_gets_a_part_of_one_example():
    short = make(8, 32, 1, norm=True)
    for batch in batches(32, 17, 9):
        short(batch)
    assert short.model.tried[-5:] == [8, 7, 2, 7, 2]
    two = MicroBatches(short.model, 8)
    two.size = 2
    assert [len(part) for part in two.parts(batches(7)[0])] == [2, 2, 3]


def test_other_errors_pass():
    step = make(32, 32, 1)
    step.model.inner = nn.Linear(5, 3)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        step(batches(32)[0])


def test_what_says_that_memory_has_run_out():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))
    assert is_out_of_memory(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"))


@pytest.mark.parametrize(("in_use", "answer"), [(79, True), (70, False)])
def test_cudnn_finding_no_way_means_memory_only_where_that_is_scarce(monkeypatch, in_use, answer):
    gib = 1 << 30
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (gib // 2, 80 * gib))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 79 * gib)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: in_use * gib)
    error = RuntimeError("GET was unable to find an engine to execute this computation")
    assert is_out_of_memory(error) is answer


class Roomy(nn.Module):
    """Classifies by the first three features, at most `room` examples at once."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room, self.tried = room, []

    def forward(self, inputs: Tensor) -> Tensor:
        self.tried.append(len(inputs))
        if len(inputs) > self.room:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory")
        return inputs[:, :3].double()


def evaluator(size: int) -> Evaluator:
    splits = sample("vectors")
    plain = Preparation(splits.spec, (), 0, CPU)
    return Evaluator(
        splits.train, size, plain, nn.CrossEntropyLoss(), [Accuracy()], choose_precision("fp32", CPU), CPU
    )  # fmt: skip


def test_an_evaluation_begins_again_with_smaller_batches():
    straight, short = evaluator(5), evaluator(20)
    said: list[str] = []
    short.warn = said.append
    model = Roomy(5).train()
    assert short(model) == straight(Roomy(100))
    assert model.training
    assert model.tried[:4] == [len(short.examples) if len(short.examples) < 20 else 20, 10, 5, 5]
    assert ["data.eval_batch_size=10" in said[0], "data.eval_batch_size=5" in said[1]] == [True, True]
    with pytest.raises(DeviceMemoryError, match="evaluation of one example"):
        short(Roomy(0))


def test_several_evaluators_stay_in_step():
    pair = [evaluator(16), evaluator(16)]

    def measure() -> list[int]:
        if pair[0].batch_size > 4:
            raise MemoryError
        return [one.batch_size for one in pair]

    assert halving(pair, measure) == [4, 4]


@pytest.mark.parametrize(
    ("kind", "each", "size"),
    [("cpu", 1000, 512), ("cuda", 1000, 16384), ("cpu", 8_000_000, 256), ("cuda", 8_000_000, 256), ("cpu", 10**12, 1)],
)
def test_an_evaluation_s_batch_takes_an_eighth_of_the_memory_at_most(kind, each, size, monkeypatch):
    monkeypatch.setattr("dlrun.engine.evaluate.total_memory", lambda device: 8 * 8_000_000 * 511)
    assert evaluation_batch_size(each, torch.device(kind)) == size


def test_what_an_example_takes_in_a_forward_pass_is_counted_by_hand():
    splits = sample("vectors")
    plain = Preparation(splits.spec, (), 0, CPU)
    features, classes = splits.spec.num_features, splits.spec.num_outputs
    model = nn.Sequential(nn.Linear(features, 1000), nn.Tanh(), nn.Linear(1000, classes))
    each = check_fit(model, nn.CrossEntropyLoss(), splits, plain)
    assert 2 * 4 * 1000 <= each <= 2 * 4 * 1000 + 200  # the hidden layer before and after tanh


def test_a_model_that_is_too_large_for_two_examples_is_refused_before_training():
    splits = sample("vectors")
    with pytest.raises(
        DeviceMemoryError, match=r"forward pass of the model \(Roomy\) with 2 examples: choose a smaller"
    ):
        check_fit(Roomy(1), nn.CrossEntropyLoss(), splits, Preparation(splits.spec, (), 0, CPU))
