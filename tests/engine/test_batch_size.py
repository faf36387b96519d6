"""The search for a batch size, on machines whose memory and speed are formulas."""

import pytest
import torch

from dlrun import assembly, build
from dlrun.config.compose import compose, settled
from dlrun.config.identity import run_id
from dlrun.contracts import Splits
from dlrun.engine import batch_size
from dlrun.engine.batch_size import Tried, candidates, largest, quickest
from dlrun.engine.capture import CapturedStep
from dlrun.engine.memory import DeviceMemoryError
from dlrun.engine.seeding import random_state
from dlrun.errors import ConfigError

from ..samples import sample


@pytest.mark.parametrize(
    ("examples", "accumulate", "sizes"),
    [
        (1294, 1, [8, 16, 32, 64]),  # 64 · 20 = 1280
        (1279, 1, [8, 16, 32]),
        (1294, 2, [8, 16, 32]),
        (100, 1, [4]),
        (61, 1, [7]),  # 2, 3, 4, 5 and 6 leave one over
        (7, 1, [4]),
        (2, 1, [2]),
        (1, 1, [1]),
    ],
)
def test_an_epoch_keeps_twenty_steps(examples, accumulate, sizes):
    assert candidates(examples, accumulate) == sizes


class Machine:
    """100 bytes and 10 more for each example; a step takes 1 s and 0.01 s for each example, up to where it is full."""

    def __init__(self, room: int = 10**9) -> None:
        self.room = room
        self.asked: list[int] = []

    def __call__(self, size: int) -> Tried | None:
        self.asked.append(size)
        memory = 100 + 10 * size
        return None if memory > self.room else Tried(size, memory, size / (1e-3 + 1e-5 * size))


@pytest.mark.parametrize(
    ("budget", "size"), [(100 + 10 * 64, 64), (100 + 10 * 95, 64), (100 + 10 * 96, 96), (10**9, 256)]
)
def test_a_gpu_is_filled_up_to_the_budget_and_not_beyond(budget, size):
    machine = Machine(budget)
    assert largest([8, 16, 32, 64, 128, 256], budget, machine).size == size
    assert all(100 + 10 * asked <= budget for asked in machine.asked)  # memory is foretold, not run out of


def test_one_and_a_half_times_is_not_beyond_twenty_steps():
    assert largest([8, 16], 10**9, Machine()).size == 16


def test_what_does_not_fit_ends_the_search_on_a_gpu():
    assert largest([8, 16, 32], 10**9, Machine(100 + 10 * 8)).size == 8
    with pytest.raises(DeviceMemoryError, match=r"data\.batch_size=auto: a training step of 8 examples cannot"):
        largest([8, 16], 10**9, Machine(100))


def test_a_cpu_takes_the_smallest_that_is_nearly_as_fast_as_any():
    sizes = [2**k for k in range(3, 13)]
    found, best = quickest(sizes, 10**9, Machine())
    assert best.size == 4096
    # size / (1e-3 + 1e-5 · size) >= 0.9 · 4096 / (1e-3 + 1e-5 · 4096) from 720 on
    assert found.size == 1024


def test_a_cpu_s_search_ends_where_nothing_gets_faster():
    rates = {8: 10.0, 16: 20.0, 32: 40.0, 64: 39.0, 128: 38.0, 256: 100.0}
    asked = []

    def measured(size: int) -> Tried:
        asked.append(size)
        return Tried(size, size, rates[size])

    found, best = quickest(list(rates), 10**9, measured)
    assert (found.size, best.size) == (32, 32)
    assert asked == [8, 16, 32, 64, 128]
    assert quickest(list(rates), 40, measured)[0].size == 32  # 64 would need more than 40 bytes
    assert quickest([8, 16], 1, measured)[0].size == 8
    with pytest.raises(DeviceMemoryError):
        quickest([8, 16], 100, lambda size: None)


def test_a_search_leaves_nothing_behind(monkeypatch):
    """The run is the one with the number: weights, buffers, generators, configuration."""
    monkeypatch.setattr(batch_size, "SECONDS", 0.0)
    words = ["model=cnn", "model.channels=[4,8]", "model.norm=batch", "model.dropout=0.2", "trainer.ema=0.9"]
    found = assembly.assemble(compose([*words, "data.batch_size=auto", "scheduler=onecycle"]).config)
    after = random_state(found.device)
    size = found.config["data"]["batch_size"]
    assert size in (8, 16, 32, 64)
    given = assembly.assemble(compose([*words, f"data.batch_size={size}", "scheduler=onecycle"]).config)
    assert found.config == given.config
    assert torch.equal(after["torch"], random_state(given.device)["torch"])
    for (name, one), other in zip(found.model.state_dict().items(), given.model.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    assert found.notes[0].startswith(f"data.batch_size=auto is {size}: ")
    assert "optimizer.lr stays 0.001, whatever the batch" in found.notes[0]
    assert not given.notes


def test_no_epoch_ends_with_a_batch_of_one_example(monkeypatch):
    monkeypatch.setattr(batch_size, "SECONDS", 0.0)
    assert candidates(321) == [7, 15]  # 321 = 20 · 16 + 1 = 40 · 8 + 1
    a = assembly.assemble(compose(["model.norm=batch", "data.limit=321", "data.batch_size=auto"]).config)
    assert a.config["data"]["batch_size"] in (7, 15)


def test_batch_norm_gets_two_examples_of_however_few(monkeypatch):
    monkeypatch.setattr(batch_size, "SECONDS", 0.0)
    a = assembly.assemble(compose(["model.norm=batch", "data.limit=61", "data.batch_size=auto"]).config)
    assembly.prepare_training(a, lambda record: None, ())  # which refuses a batch of one
    assert a.config["data"]["batch_size"] == 7
    assert a.notes[0].startswith("data.batch_size=auto is 7: the fastest here, ")
    assert "; 7 is the fewest with which no batch of the 61 examples has but one; optimizer.lr" in a.notes[0]


def by_size(batch_size: int) -> Splits:
    """Data that are made by the batch size."""
    return sample("vectors")


def test_data_that_are_made_by_the_batch_size_need_a_number():
    data = {"_target_": f"{__name__}.by_size", "batch_size": "auto"}
    with pytest.raises(
        ConfigError, match=r"data.batch_size=auto is found by training steps, but data=\S+by_size needs"
    ):
        build.build_data({"data": data})


def test_the_folder_of_a_run_has_the_id_of_what_was_found(tmp_path):
    composed = compose(["data.batch_size=auto"])
    config = {**composed.config, "data": {**composed.config["data"], "batch_size": 32}}
    there = settled(composed, config)
    assert there.run_dir.name.endswith(f"digits-mlp-adamw_{run_id(config)}")
    assert there.run_dir.parent == composed.run_dir.parent
    own = compose(["data.batch_size=auto", f"hydra.run.dir={tmp_path / 'mine'}"])
    assert settled(own, config).run_dir == tmp_path / "mine"
    assert "batch_size: 32" in there.hydra_files["config.yaml"]


def test_an_average_that_begins_late_is_no_obstacle():
    words = ["data=digits", "model.widths=[8]", "data.batch_size=auto", "trainer.swa.start=15ep", "trainer.device=cpu"]
    assert isinstance(assembly.assemble(compose(words).config).config["data"]["batch_size"], int)


def test_a_captured_step_counts_twice():
    """What its graph keeps, and a step of another kind beside it."""

    def measured(captured: bool) -> Tried | None:
        words = ["data=digits", "model.widths=[8]", "data.batch_size=32", "trainer.device=cpu"]
        t = assembly.prepare_training(assembly.assemble(compose(words).config), lambda record: None, ())
        if captured:
            t.advance = CapturedStep(t.train_step, t.loader, t.device, pytest.fail)
        return batch_size.measure(lambda size: t, 32, t.device, timed=False)

    assert measured(captured=True).memory == 2 * measured(captured=False).memory > 0
