"""What of captured steps can be tested without a GPU: when they are refused, and which steps count as alike."""

import random
import warnings
from collections import deque
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn

from dlrun import assembly
from dlrun.config.compose import compose
from dlrun.engine import capture
from dlrun.engine.activations import checkpoint_activations
from dlrun.engine.capture import EAGER_STEPS, CapturedStep, EagerStep, _Recorded, obstacle
from dlrun.engine.host import HostState
from dlrun.errors import ConfigError

WORDS = ["model.widths=[8]", "data.batch_size=512", "trainer.epochs=4", "trainer.device=cpu"]


def training(*words):
    return assembly.prepare_training(assembly.assemble(compose([*WORDS, *words]).config), lambda record: None, ())


class Again:
    """Stands for a graph: does what was recorded once more, on the tensors it was recorded with."""

    def __init__(self, captured, draw):
        self.captured, self.draw, self.replays = captured, draw, 0

    def replay(self):
        self.replays += 1
        loss = self.captured._eagerly(self.draw)
        self.captured._recorded_loss.copy_(loss)


class Stand(CapturedStep):
    """Records `Again`s in place of CUDA graphs."""

    def __init__(self, step, loader, warn, device="cpu"):
        super().__init__(step, loader, torch.device(device), warn)
        self.graphs = []
        self._recorded_loss = torch.zeros(())

    def context(self):
        return nullcontext()

    def _record(self, draw):
        inputs = tuple(x.clone() for x in draw.tensors)
        graph = Again(self, type(draw)(draw.step, draw.size, inputs, draw.longest))
        self.graphs.append(graph)
        return _Recorded(graph, inputs, self._recorded_loss, self.step.gradient_norm)


def run(t, advance, count):
    losses = []
    for epoch in range(9):
        for draw in t.loader.draws(epoch):
            if len(losses) == count:
                return losses
            t.train_step.measure_norm = len(losses) % 5 == 4
            losses.append(advance(draw).item())
            t.step += 1
    return losses


@pytest.mark.parametrize("more", [["trainer.ema=0.9", "optimizer=momentum"], ["augment=translate", "scheduler=cosine"]])
def test_replayed_steps_are_the_eager_ones_and_each_kind_has_one_graph(more):
    eager, captured = training(*more), training(*more)
    advance = Stand(captured.train_step, captured.loader, pytest.fail)
    losses = run(captured, advance, 24)
    assert losses == run(eager, EagerStep(eager.train_step, eager.loader), 24)
    for a, b in zip(eager.model.parameters(), captured.model.parameters(), strict=True):
        assert torch.equal(a, b)
    # Batches of 512, 512 and 270 examples; every fifth step measures the norm: four kinds, of which the last,
    # 270 examples with the norm, comes up once.
    assert len(advance.graphs) == 3
    assert sum(graph.replays for graph in advance.graphs) == 24 - 3 * EAGER_STEPS - 1


def test_thawing_makes_another_kind_of_step():
    t = training("trainer.freeze={linear1: 2}")
    variants = []
    for _ in range(4):
        t.train_step.begin()
        variants.append(t.train_step.variant)
        t.train_step.end()
    assert variants[0] == variants[1] != variants[2] == variants[3]


class Counts(nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return x


class Remembers(nn.Module):
    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(len(x))
        return x


class Draws(nn.Module):
    def __init__(self, draw):
        super().__init__()
        self.draw = draw

    def forward(self, x):
        self.draw()
        return x


class Swaps(nn.Module):
    """Lets its state go before it makes the next one, which gets the address of the last."""

    def __init__(self):
        super().__init__()
        self.h = None

    def forward(self, x):
        h, self.h = self.h, None
        y = x if h is None else x + 0 * h.mean()
        del h
        self.h = y.detach()
        return y


class Holds(nn.Module):
    """Its state is in a container of its own."""

    def __init__(self, container, change):
        super().__init__()
        self.held, self.change = container, change

    def forward(self, x):
        self.change(self.held, x)
        return x


class Replaces(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, x):
        self.mean = x.mean().detach()
        return x


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (Counts(), r"changes model.\d.calls"),
        (Remembers(), r"changes model.\d.seen"),
        (Swaps(), r"changes model.\d.h,"),
        (Holds({}, lambda held, x: held.update(h=x.detach().clone())), r"changes model.\d.held,"),
        (Holds(set(), lambda held, x: held.add(len(held))), r"changes model.\d.held,"),
        (Holds(deque([0.0], 1), lambda held, x: held.append(held[-1] + 1)), r"changes model.\d.held,"),
        (Replaces(), r"changes .*mean"),
        (Draws(random.random), "random numbers from random,"),
        (Draws(np.random.rand), r"from numpy\.random"),
        (Draws(lambda: torch.rand(1)), "from torch's generator of the CPU"),
    ],
    ids=["counter", "list", "swapped", "dict", "set", "deque", "buffer", "python", "numpy", "torch"],
)
def test_what_a_graph_would_not_repeat_is_noticed_and_done_eagerly(module, reason):
    t = training()
    t.model.append(module)
    warnings = []
    advance = Stand(t.train_step, t.loader, warnings.append)
    run(t, advance, 12)
    assert not advance.graphs
    assert len(warnings) == 1
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(warnings[0])


def test_a_plain_step_leaves_the_host_as_it_was():
    t = training("trainer.ema=0.9", "trainer.lookahead={}", "trainer.clip.norm=1")
    t.model.append(Holds({"shape": (1, 8)}, lambda held, x: held.update(shape=(1, 8))))
    t.model.append(nn.Sequential(nn.Linear(10, 10), nn.Tanh()))
    checkpoint_activations(t.model)  # which sets generators back, and forward again
    draws = t.loader.draws(0)
    EagerStep(t.train_step, t.loader)(next(draws))
    before = HostState(t.train_step)
    t.train_step.compute(t.loader.make(next(draws)))
    assert before.change(HostState(t.train_step)) == ""


def test_an_augmentation_that_counts_is_seen():
    """Under a graph it would augment every batch as it did the first."""

    class Growing:
        steps = 0

        def __call__(self, batch, generator):
            self.steps += 1
            return batch

    t = training("augment=[translate]")
    t.loader.prepare.augment = (Growing(), *t.loader.prepare.augment)
    draws = t.loader.draws(0)
    captured = Stand(t.train_step, t.loader, lambda sentence: None)
    for _ in range(2):
        captured(next(draws))
    assert "a step changes Growing.steps, which is not on the device" in captured._obstacle


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["optimizer=lbfgs"], "LBFGS evaluates the loss several times"),
        (["optimizer=adagrad"], "Adagrad reads its learning rate on the host"),
    ],
)
def test_optimizers_that_cannot_be_captured_say_why(words, reason):
    assert reason in obstacle(training(*words).train_step)


def test_a_schedule_of_the_momentum_cannot_be_captured():
    step = training("optimizer=momentum", "scheduler=onecycle", "scheduler.cycle_momentum=true").train_step
    for group in step.optimizer.param_groups:
        group["lr"] = torch.tensor(group["lr"])
    assert "changes the momentum" in obstacle(step)


def test_a_learning_rate_in_a_tensor_follows_the_schedule_and_survives_loading():
    t, plain = training("optimizer=momentum"), training("optimizer=momentum")
    optimizer, schedule = t.train_step.optimizer, t.train_step.schedule
    tensor = torch.tensor(0.01)
    optimizer.param_groups[0]["lr"] = tensor
    schedule._tensors[0] = tensor
    state = t.train_step.state_dict()
    for step in range(3):
        schedule.step()
        plain.train_step.schedule.step()
        assert tensor.item() == pytest.approx(plain.train_step.schedule.lrs[0]), step
    t.train_step.load_state_dict(state)
    assert optimizer.param_groups[0]["lr"] is tensor
    assert tensor.item() == pytest.approx(0.005)  # the first of the warm-up


def test_a_graph_that_cannot_be_had_is_refused_in_a_sentence():
    with pytest.raises(
        ConfigError, match=r"trainer\.graph=true: .* need a CUDA device, and training is on cpu; use auto"
    ):
        training("trainer.graph=true")


class Waits(nn.Module):
    """Waits for the device in the first `times` of its passes, as torch says in its debug mode."""

    def __init__(self, times):
        super().__init__()
        self.left = torch.tensor(times)

    def forward(self, x):
        if self.left > 0 and torch.cuda.get_sync_debug_mode():
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        self.left -= 1
        return x


@pytest.mark.parametrize(("times", "graphs"), [(1, 2), (99, 0)], ids=["on first use", "always"])
def test_a_step_that_waits_for_the_device_is_not_recorded(times, graphs, monkeypatch):
    modes = [0]
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: modes[-1])
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda mode: modes.append({"warn": 1}.get(mode, mode)))
    t = training()
    t.model.append(Waits(times))
    said = []
    advance = Stand(t.train_step, t.loader, said.append, "cuda")
    run(t, advance, 12)
    assert modes[1:] == [1, 0] * (len(modes) // 2)
    assert len(advance.graphs) == graphs
    assert [sentence.partition(": ")[2] for sentence in said] == (
        [] if graphs else ["a step waits for the device on the host."]
    )


def test_graphs_are_let_go_where_an_eager_step_needs_their_memory():
    eager, captured = training(), training()
    advance = Stand(captured.train_step, captured.loader, pytest.fail)
    advance.pool.crowds = lambda: bool(advance._recorded)
    beside, eagerly = [], advance._beside_graphs

    def beside_graphs(draw):
        loss = eagerly(draw)
        beside.append(len(advance._recorded))
        return loss

    advance._beside_graphs = beside_graphs
    assert run(captured, advance, 40) == run(eager, EagerStep(eager.train_step, eager.loader), 40)
    assert beside == [0] * 7  # two of each of four kinds, of which one comes up once
    assert len(advance.graphs) > 4  # recorded again at their next use
    assert len(advance._recorded) > 1


class Cramped(nn.Module):
    """Finds no memory for a step while there is some to be spared, and finds out when it has changed its buffer."""

    def __init__(self, micro):
        super().__init__()
        self.micro = [micro]
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x):
        self.passes += 1
        if self.micro[0].make_room is not None:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return x * (1 + self.passes)


def test_a_step_that_runs_out_of_memory_beside_graphs_is_repeated_without_them():
    """Nothing is halved, nor does the run go back to a checkpoint, though the like of the step has fitted before."""
    eager, captured = training(), training()
    for t in (eager, captured):
        t.model.append(Cramped(t.train_step.micro))
        t.train_step.micro.warn = pytest.fail
    advance = Stand(captured.train_step, captured.loader, pytest.fail)
    assert run(captured, advance, 24) == run(eager, EagerStep(eager.train_step, eager.loader), 24)
    assert captured.train_step.micro.size == 512
    assert (
        advance._made_room == 3
    )  # the norm measured, the last batch of an epoch: one beside graphs for the first time
    assert torch.equal(eager.model[-1].passes, captured.model[-1].passes)


def test_graphs_that_are_let_go_again_and_again_are_given_up(monkeypatch):
    monkeypatch.setattr(capture, "MOST_ROOM", 2)
    t = training()
    said = []
    advance = Stand(t.train_step, t.loader, said.append)
    advance.pool.crowds = lambda: bool(advance._recorded)
    run(t, advance, 20)
    assert not advance._recorded
    assert len(said) == 1
    assert "graphs do not fit into memory beside the steps of other kinds" in said[0]


def test_smaller_micro_batches_leave_no_graph_of_the_larger():
    t = training()
    advance = Stand(t.train_step, t.loader, pytest.fail)
    run(t, advance, 4)
    (kind,) = advance._recorded
    t.train_step.micro.size = 256
    run(t, advance, 4)
    assert kind not in advance._recorded
    assert len(advance._recorded) == 1


def test_a_kind_that_was_not_watched_is_not_recorded(monkeypatch):
    """When as many are recorded as may be, steps of others are not counted, until some have been let go."""
    monkeypatch.setattr(capture, "MOST_GRAPHS", 1)
    t = training()
    advance = Stand(t.train_step, t.loader, pytest.fail)
    run(t, advance, 24)
    assert len(advance.graphs) == 1
    assert max(seen for kind, seen in advance._seen.items() if kind not in advance._recorded) < EAGER_STEPS


def test_memory_that_runs_out_while_recording_is_said_to_be_that():
    t = training()
    t.train_step.micro.warn = pytest.fail
    said = []
    advance = CapturedStep(t.train_step, t.loader, torch.device("cpu"), said.append)
    module = Holds([False], lambda held, x: run_out() if held[0] else None)
    t.model.append(module)

    def run_out():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    def record(compute, generators, stream):
        module.held[0] = True
        try:
            return None, compute()
        finally:
            module.held[0] = False

    advance.pool.record = record
    losses = run(t, advance, 6)
    plain = training()
    assert losses == run(plain, EagerStep(plain.train_step, plain.loader), 6)
    (sentence,) = said
    assert sentence.endswith(": a graph beside the eager step does not fit into memory.")
