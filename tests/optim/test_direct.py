"""The direct way gives the bits of `optimizer.step()`, whatever happens in between, and is left where there is none."""

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from dlrun.optim.direct import direct_update

SETTINGS: list[tuple[type[Optimizer], dict[str, Any]]] = [
    (SGD, {}),
    (SGD, {"weight_decay": 0.1, "maximize": True}),
    (SGD, {"momentum": 0.9}),
    (SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    (SGD, {"momentum": 0.8, "dampening": 0.3}),
    (Adam, {"weight_decay": 0.1}),
    (Adam, {"betas": (0.8, 0.9), "eps": 1e-3, "maximize": True}),
    (AdamW, {}),
    (AdamW, {"weight_decay": 0.3, "betas": (0.5, 0.95)}),
]
IDS = [f"{kind.__name__}-{'-'.join(settings)}" for kind, settings in SETTINGS]


class Twins:
    """Two equal optimizers that get equal gradients; one is updated directly, the other by `step`.

    Attributes:
        kernels: how often the direct way has called one; each of two groups needs one.
    """

    def __init__(self, kind: type[Optimizer], shapes: Sequence[tuple[int, ...]] = ((4, 3), (7,), ()), **settings: Any):
        weights = [torch.randn(shape) for shape in shapes]
        self.both: list[Optimizer] = []
        for _ in range(2):
            own = [nn.Parameter(weight.clone()) for weight in weights]
            groups = [{"params": own[:2], "lr": 0.1, "lr_factor": 2.0}, {"params": own[2:], "weight_decay": 0.0}]
            self.both.append(kind(groups, lr=0.05, fused=True, **settings))
        update = direct_update(self.both[0])
        assert update is not None
        self.update, self.kernels = update, 0
        kernel = update._update

        def counting(*arguments: Any) -> None:
            self.kernels += 1
            kernel(*arguments)

        update._update = counting

    def steps(self, count: int, frozen: Sequence[int] = ()) -> int:
        """Take steps, after each of which both are equal in all they have. Returns: the kernels called directly."""
        before = self.kernels
        for _ in range(count):
            first, second = ([p for g in optimizer.param_groups for p in g["params"]] for optimizer in self.both)
            for i, (ours, theirs) in enumerate(zip(first, second, strict=True)):
                ours.grad = None if i in frozen else torch.randn(ours.shape)
                theirs.grad = copy.deepcopy(ours.grad)
            self.update()
            self.both[1].step()
            for ours, theirs in zip(first, second, strict=True):
                assert torch.equal(ours, theirs)
                states = [optimizer.state.get(p, {}) for optimizer, p in zip(self.both, (ours, theirs), strict=True)]
                assert states[0].keys() == states[1].keys()
                for mine, other in zip(states[0].values(), states[1].values(), strict=True):
                    assert (mine is None and other is None) or torch.equal(mine, other)
        return self.kernels - before

    def set(self, name: str, value: Any) -> None:
        for optimizer in self.both:
            for group in optimizer.param_groups:
                group[name] = value


@pytest.mark.parametrize(("kind", "settings"), SETTINGS, ids=IDS)
def test_it_gives_the_bits_of_step(kind, settings):
    twins = Twins(kind, **settings)
    has_state = kind is not SGD or "momentum" in settings
    assert twins.steps(4) == 2 * (3 if has_state else 4)  # the first step makes the state
    for lr in (0.3, 0.0, 1e-3):  # as a schedule does
        twins.set("lr", lr)
        assert twins.steps(1) == 2
    twins.set("momentum" if kind is SGD else "betas", 0.5 if kind is SGD else (0.6, 0.7))
    twins.set("nesterov", False)
    assert twins.steps(2) == (2 if not has_state else 4)
    for name in ("weight_decay", "eps"):
        twins.set(name, 0.01)
    assert twins.steps(2) == 4


@pytest.mark.parametrize(("kind", "settings"), [*SETTINGS[:1], *SETTINGS[5:]], ids=[IDS[0], *IDS[5:]])
def test_parameters_may_freeze_and_thaw(kind, settings):
    twins = Twins(kind, **settings)
    twins.steps(2, frozen=[0, 2])
    assert twins.steps(2, frozen=[0, 2]) == 2  # only one group has something to learn, and its kernel is enough
    twins.steps(1)  # the step counters differ from now on
    assert twins.steps(2) == 4
    assert twins.steps(1, frozen=[1]) == 2
    assert twins.steps(1, frozen=[0]) == 2
    assert twins.steps(1, frozen=[0, 1, 2]) == 0
    assert twins.steps(1) == 2


def test_momentum_that_is_switched_on_makes_its_buffers_first():
    twins = Twins(SGD)
    assert twins.steps(2) == 4
    twins.set("momentum", 0.9)
    assert twins.steps(1) == 0
    assert twins.steps(2) == 4
    twins.set("momentum", 0.0)
    assert twins.steps(2) == 4
    twins.set("momentum", 0.5)
    assert twins.steps(2) == 4


@pytest.mark.parametrize(("kind", "settings"), SETTINGS, ids=IDS)
def test_a_state_may_be_loaded_in_between(kind, settings):
    twins = Twins(kind, **settings)
    twins.steps(2)
    saved = copy.deepcopy(twins.both[0].state_dict())
    twins.steps(3)
    for optimizer in twins.both:
        optimizer.load_state_dict(copy.deepcopy(saved))
    assert twins.steps(2) == 4
    settings_of_another = copy.deepcopy(saved)
    for group in settings_of_another["param_groups"]:
        group["fused"] = False
    for optimizer in twins.both:
        optimizer.load_state_dict(copy.deepcopy(settings_of_another))
    assert twins.steps(2) == 0


def test_a_saved_state_is_that_of_step_after_a_passage_through_a_file(tmp_path):
    twins = Twins(AdamW)
    twins.steps(3)
    torch.save([optimizer.state_dict() for optimizer in twins.both], tmp_path / "states.pt")
    ours, theirs = torch.load(tmp_path / "states.pt", weights_only=True)
    for index, state in theirs["state"].items():
        assert all(torch.equal(ours["state"][index][name], value) for name, value in state.items())
    for optimizer in twins.both:
        optimizer.load_state_dict(copy.deepcopy(ours))
    assert twins.steps(2) == 4


def test_models_of_one_number_and_groups_of_nothing():
    assert Twins(AdamW, shapes=((),)).steps(3) == 2
    assert Twins(SGD, shapes=((1,), (1,)), momentum=0.9).steps(3) == 2


def test_hooks_and_wrapped_steps_are_called(monkeypatch):
    twins, seen = Twins(AdamW), []
    twins.steps(2)
    handle = twins.both[0].register_step_post_hook(lambda *_: seen.append("hook"))
    assert twins.steps(2) == 0
    handle.remove()
    assert twins.steps(1) == 2
    handle = register_optimizer_step_pre_hook(lambda optimizer, *_: seen.append(optimizer is twins.both[0]))
    assert twins.steps(1) == 0
    handle.remove()
    step = twins.both[0].step
    monkeypatch.setattr(twins.both[0], "step", lambda: (seen.append("wrapped"), step()))
    assert twins.steps(1) == 0
    assert seen == ["hook", "hook", True, False, "wrapped"]


def test_sparse_gradients_get_the_answer_of_step():
    weight = nn.Parameter(torch.ones(3, 2))
    optimizer = SGD([weight], lr=0.1, fused=True)
    update = direct_update(optimizer)
    for sparse in (False, True):  # also when they come after others
        weight.grad = torch.ones(3, 2).to_sparse() if sparse else torch.ones(3, 2)
        if not sparse:
            update()
            continue
        with pytest.raises(RuntimeError, match="does not support sparse gradients"):
            update()


class OwnAdamW(AdamW):
    """May do anything."""


def made(kind: Any, **settings: Any) -> Any:
    return kind([nn.Parameter(torch.ones(3))], lr=0.1, **settings)


@pytest.mark.parametrize(
    "optimizer",
    [
        made(AdamW),
        made(AdamW, fused=True, amsgrad=True),
        made(AdamW, foreach=True),
        made(OwnAdamW, fused=True),
        made(torch.optim.RMSprop),
        AdamW([nn.Parameter(torch.ones(3))], lr=torch.tensor(0.1), fused=True),
        SGD([nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3).double())], lr=0.1, fused=True),
        AdamW([nn.Parameter(torch.ones(3, device="meta"))], lr=0.1, fused=True),
        object(),
    ],
)
def test_others_are_left_to_their_own_step(optimizer):
    assert direct_update(optimizer) is None


@pytest.mark.parametrize("kind", [SGD, Adam, AdamW])
@pytest.mark.parametrize("replacement", ["absent", "of another signature", "of another meaning"])
def test_a_torch_that_is_made_differently_is_left_to_its_own_step(monkeypatch, kind, replacement):
    optimizer = made(kind, fused=True)
    assert direct_update(optimizer) is not None
    name = f"_fused_{kind.__name__.lower()}_"
    if replacement == "absent":
        monkeypatch.delattr(torch, name)
    elif replacement == "of another signature":
        monkeypatch.setattr(torch, name, lambda parameters, gradients: None)
    else:
        kernel = getattr(torch, name)
        monkeypatch.setattr(torch, name, lambda *lists, lr, **more: kernel(*lists, lr=-lr, **more))
        original = kind.step

        def step(self: Optimizer) -> None:
            with monkeypatch.context() as patch:
                patch.setattr(torch, name, kernel)
                original(self)

        monkeypatch.setattr(kind, "step", step)
    assert direct_update(optimizer) is None


def test_a_torch_without_hooks_where_they_are_looked_for_is_left_to_its_own_step(monkeypatch):
    optimizer = made(AdamW, fused=True)
    monkeypatch.delattr(optimizer, "_optimizer_step_pre_hooks")
    assert direct_update(optimizer) is None
