"""Loaders: every example once an epoch, the same order from any step on, resident and streaming alike."""

import dataclasses
import random
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from dlrun.contracts import Arrays, Batch, DataSpec, Kind, Task
from dlrun.engine import loaders
from dlrun.engine.loaders import Preparation, ResidentLoader, StreamingLoader, normalise_ahead, steps_in
from dlrun.engine.order import shuffled
from dlrun.examples import Pairs

CPU = torch.device("cpu")
SPEC = DataSpec("toy", Task.CLASSIFICATION, Kind.IMAGE, (1, 2, 2), 4, mean=(0.25,), std=(0.5,))


def examples(count: int = 23) -> Arrays:
    images = torch.arange(count * 4, dtype=torch.uint8).view(count, 1, 2, 2)
    return Arrays(images, torch.arange(count))


def add_noise(batch: Batch, generator: torch.Generator) -> Batch:
    return Batch(batch.inputs.float() / 255 + torch.rand(batch.inputs.shape, generator=generator), batch.targets)


def loader(kind: str, augment: tuple = (), workers: int = 0, drop_last: bool = False):
    prepare = Preparation(SPEC, augment, 3, CPU)
    if kind == "resident":
        return ResidentLoader(examples(), 5, shuffled(len(examples()), 3), prepare, CPU, drop_last)
    return StreamingLoader(examples(), 5, shuffled(len(examples()), 3), prepare, CPU, drop_last, 3, workers)


@pytest.mark.parametrize("kind", ["resident", "streaming"])
def test_an_epoch_shows_every_example_once_in_an_order_of_its_own(kind):
    epochs = [torch.cat([batch.targets for batch in loader(kind).epoch(e)]) for e in range(3)]
    for order in epochs:
        assert sorted(order.tolist()) == list(range(23))
    assert not torch.equal(epochs[0], epochs[1])
    assert not torch.equal(epochs[1], epochs[2])


@pytest.mark.parametrize("workers", [0, 2])
def test_streaming_and_resident_give_the_same_batches_from_any_step_on(workers):
    resident = list(loader("resident", (add_noise,)).epoch(1))
    streaming = loader("streaming", (add_noise,), workers)
    state = torch.get_rng_state()
    for first in (0, 3):
        rest = list(streaming.epoch(1, first))
        assert len(rest) == len(resident) - first
        for a, b in zip(resident[first:], rest, strict=True):
            assert torch.equal(a.inputs, b.inputs)
            assert torch.equal(a.targets, b.targets)
    assert torch.equal(torch.get_rng_state(), state)  # dropout must not depend on how often a loader was entered


ENTER_AND_END = """
import torch
from dlrun.contracts import Arrays, DataSpec, Kind, Task
from dlrun.engine.loaders import Preparation, StreamingLoader

device, spec = torch.device("cpu"), DataSpec("toy", Task.CLASSIFICATION, Kind.VECTOR, (1,), 4)
data = Arrays(torch.zeros(8, 1), torch.arange(8))
prepare = Preparation(spec, (), 0, device)
loader = StreamingLoader(data, 2, lambda e: torch.arange(8), prepare, device, False, workers=1)
batches = loader.epoch(0)
next(batches)
"""


def test_a_process_ends_though_its_workers_leave_signals_to_it():
    done = subprocess.run(
        [sys.executable, "-c", ENTER_AND_END], timeout=120, check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


class Noisy(Arrays):
    """Draws from every generator of the host that a data set of the user's may draw from."""

    def take(self, index: Tensor) -> Batch:
        batch = super().take(index)
        noise = torch.tensor([random.random(), np.random.random(), torch.rand(()).item()])
        return Batch(noise.repeat(len(index), 1), batch.targets)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_a_data_set_draws_is_a_function_of_seed_and_step(workers):
    def noises(first: int) -> list[Tensor]:
        noisy = Noisy(examples().inputs, examples().targets)
        prepare = Preparation(dataclasses.replace(SPEC, kind=Kind.VECTOR), (), 3, CPU)
        made = StreamingLoader(noisy, 5, shuffled(23, 3), prepare, CPU, False, 3, workers)
        return [draw.tensors[0][0] for draw in made.draws(1, first)]

    whole = noises(0)
    assert len({tuple(noise.tolist()) for noise in whole}) == 5
    random.seed(7)
    np.random.seed(7)
    before = random.getstate(), np.random.get_state(legacy=True)[1].tolist(), torch.get_rng_state().tolist()
    assert torch.equal(torch.stack(noises(3)), torch.stack(whole[3:]))
    assert (random.getstate(), np.random.get_state(legacy=True)[1].tolist(), torch.get_rng_state().tolist()) == before


def test_a_streaming_loader_draws_what_has_been_copied_ahead(monkeypatch):
    """The stand-in for the copies gives other numbers, so that a draw past them would be seen."""
    asked = []

    def ahead(batches: Iterator[Batch], device: torch.device, copies: object) -> Iterator[Batch]:
        asked.append((device, copies))
        for batch in batches:
            yield batch.map(lambda tensor: tensor + 100)

    plain = [draw.tensors for draw in loader("streaming").draws(2, 1)]
    monkeypatch.setattr(loaders, "on_device_ahead", ahead)
    copied = list(loader("streaming").draws(2, 1))
    assert asked == [(CPU, None)]
    assert [draw.step for draw in copied] == [11, 12, 13, 14]
    assert [draw.size for draw in copied] == [5, 5, 5, 3]
    for (inputs, targets), draw in zip(plain, copied, strict=True):
        assert torch.equal(inputs + 100, draw.tensors[0])
        assert torch.equal(targets + 100, draw.tensors[1])


def test_images_are_normalised_as_documented():
    batch = next(loader("resident").epoch(0))
    raw = examples().inputs[batch.targets].double() / 255
    assert torch.allclose(batch.inputs.double(), (raw - 0.25) / 0.5, atol=1e-6)
    assert batch.inputs.dtype == torch.float32


@pytest.mark.parametrize("channels", [1, 3])
def test_images_normalised_ahead_give_the_same_bits(channels):
    spec = dataclasses.replace(
        SPEC, shape=(channels, 2, 2), mean=(0.2, 0.3, 0.4)[:channels], std=(0.5, 0.6, 0.7)[:channels]
    )
    images = torch.randint(256, (23, channels, 2, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    data, prepare = Arrays(images, torch.arange(23)), Preparation(spec, (), 3, CPU)
    ahead = normalise_ahead(data, prepare)
    assert ahead[0].inputs.dtype == torch.float32
    slow, fast = (ResidentLoader(d, 5, shuffled(len(d), 3), p, CPU, False) for d, p in ((data, prepare), ahead))
    for a, b in zip(slow.epoch(2), fast.epoch(2), strict=True):
        assert torch.equal(a.inputs, b.inputs)
        assert torch.equal(a.targets, b.targets)
    noisy = Preparation(spec, (add_noise,), 3, CPU)
    assert normalise_ahead(data, noisy) == (data, noisy)  # what is random must come first
    assert torch.equal(data.inputs, images)


def test_the_stored_images_are_left_as_they_were():
    data = Arrays(torch.rand(8, 1, 2, 2), torch.arange(8))
    before = data.inputs.clone()
    plain = Preparation(SPEC, (), 0, CPU)
    for _ in ResidentLoader(data, 8, shuffled(len(data), 0), plain, CPU, False).epoch(0):
        pass
    plain(Batch(data.inputs, data.targets), 0)
    assert torch.equal(data.inputs, before)


def test_steps_per_epoch():
    assert [steps_in(23, 5, drop) for drop in (False, True)] == [5, 4]
    assert steps_in(3, 5, True) == 1
    assert [len(b) for b in loader("resident").epoch(0)] == [5, 5, 5, 5, 3]
    assert [len(b) for b in loader("streaming", drop_last=True).epoch(0)] == [5, 5, 5, 5]


def test_what_is_to_be_reconstructed_is_the_input_before_the_augmentation():
    spec = dataclasses.replace(SPEC, task=Task.RECONSTRUCTION, num_outputs=4)
    data = examples(5)
    plain, noisy = Preparation(spec, (), 3, CPU), Preparation(spec, (add_noise,), 3, CPU)
    batch = data.take(torch.arange(5))
    clean, restored = plain(batch, 0), noisy(batch, 0)
    assert torch.equal(clean.targets, clean.inputs.flatten(1))
    assert torch.equal(restored.targets, clean.targets)
    assert not torch.equal(restored.inputs, clean.inputs)


@pytest.mark.parametrize("workers", [0, 1])
def test_pairs_of_sequences_are_streamed_like_resident_ones(workers):
    tokens = torch.arange(1, 41, dtype=torch.int32).view(8, 5)
    pairs = Pairs(tokens, tokens + 1, tokens + 2, torch.tensor([[n, n] for n in (1, 2, 3, 4, 5, 1, 2, 3)]))
    spec = DataSpec("toy", Task.SEQUENCE_TO_SEQUENCE, Kind.TOKENS, (5,), 50, vocabulary_size=50)
    arguments = pairs, 3, shuffled(8, 0), Preparation(spec, (), 0, CPU), CPU, False
    resident, streamed = ResidentLoader(*arguments).epoch(0), StreamingLoader(*arguments, workers=workers).epoch(0)
    for a, b in zip(resident, streamed, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a.arguments, b.arguments, strict=True))
        assert torch.equal(a.targets, b.targets)
