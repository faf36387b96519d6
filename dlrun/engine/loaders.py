"""Batches in a seeded order that can be entered at any step.

The order of epoch e is a function of (seed, e), and what augmentation does to the batch of a step is a function of
(seed, step): nothing needs to be remembered to resume in the middle of an epoch.

A loader gives `Draw`s, and makes a batch of each by work on the device alone, so that making it can be captured in a
CUDA graph together with the step (dlrun/engine/capture.py).
"""

from __future__ import annotations

import atexit
import copy
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dlrun.contracts import Arrays, Augment, Batch, DataSpec, Examples, Kind, Task
from dlrun.engine.device import free_memory
from dlrun.engine.order import Order
from dlrun.engine.prefetch import on_device_ahead
from dlrun.engine.seeding import derive, seeded

RESIDENT_SHARE = 0.5  # of the memory that is free on the device
AHEAD_BYTES = 1 << 29  # of images worth normalising once instead of batch by batch


@dataclass(frozen=True)
class Draw:
    """A batch still to be made: for which step, and from what.

    Attributes:
        step: optimizer steps done before it.
        size: examples in it.
        tensors: on the device: the indices of the examples, where these live there; else inputs and targets.
        longest: to what padded examples are cut.
    """

    step: int
    size: int
    tensors: tuple[Tensor, ...]
    longest: tuple[int, ...] = ()


class Loader:
    """Gives the batches of an epoch, from any step of it on; the part that loaders share.

    Attributes:
        prepare: what happens to each batch.
        steps_per_epoch: batches in an epoch.
    """

    prepare: Preparation
    steps_per_epoch: int

    def draws(self, epoch: int, first: int = 0) -> Iterator[Draw]:
        """What the batches of an epoch are made of, from its step `first` on."""
        raise NotImplementedError

    def gather(self, draw: Draw) -> Batch:
        """The examples of a draw, by work on the device alone."""
        raise NotImplementedError

    def make(self, draw: Draw) -> Batch:
        """The batch of a draw, by work on the device alone; `prepare.seed_for(draw.step)` comes before it."""
        return self.prepare.apply(self.gather(draw))

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, ready for the model."""
        for draw in self.draws(epoch, first):
            self.prepare.seed_for(draw.step)
            yield self.make(draw)


class Preparation:
    """What happens to a gathered batch on the device: augmentation, then normalisation.

    Args:
        spec: whose mean and std images are normalised by; other kinds are stored normalised.
        augment: applied in order, each example by its own random amounts.
        seed: of the augmentation.
        channels_last: give images in the memory layout that convolutions are fastest in (NHWC).
    """

    def __init__(
        self,
        spec: DataSpec,
        augment: Sequence[Augment],
        seed: int,
        device: torch.device,
        channels_last: bool = False,
    ) -> None:
        self.augment, self.seed = tuple(augment), seed
        self.layout = torch.channels_last if channels_last else torch.preserve_format
        self.generator = torch.Generator(device)
        self.scale: Tensor | float = 1.0
        self.shift: Tensor | float = 0.0
        self.is_image = spec.kind is Kind.IMAGE
        self.reconstructs = spec.task is Task.RECONSTRUCTION
        if self.is_image and spec.mean:
            self.scale = _per_channel([1 / std for std in spec.std], device)
            self.shift = _per_channel([mean / std for mean, std in zip(spec.mean, spec.std, strict=True)], device)
        self.byte_scale = self.scale / 255.0

    def done(self) -> Preparation:
        """What is left to do for images that are normalised already: nothing."""
        left = copy.copy(self)
        left.is_image = False
        return left

    def __call__(self, batch: Batch, step: int) -> Batch:
        """The batch of optimizer step `step`, ready for the model."""
        self.seed_for(step)
        return self.apply(batch)

    def seed_for(self, step: int) -> None:
        """Let the next batch be augmented as that of `step`."""
        if self.augment:
            self.generator.manual_seed(derive(self.seed, "augment", step))

    def apply(self, batch: Batch) -> Batch:
        """The batch ready for the model, by work on the device alone."""
        clean = batch
        for change in self.augment:
            batch = change(batch, self.generator)
        inputs = self.normalise(batch.inputs) if self.is_image else batch.inputs
        if not self.reconstructs:
            return Batch(inputs, batch.targets)
        # What is to be restored is what there was before the augmentation: noise makes a denoising autoencoder.
        wanted = inputs if clean is batch else self.normalise(clean.inputs) if self.is_image else clean.inputs
        assert isinstance(wanted, Tensor)
        return Batch(inputs, wanted.flatten(1).contiguous())

    def normalise(self, images: Any) -> Tensor:
        """(B, C, H, W), uint8 0-255 or float in [0, 1], to float32 with zero mean and unit deviation."""
        scale = self.byte_scale if images.dtype == torch.uint8 else self.scale
        # A copy in the type and layout wanted, then in place: one pass less over memory than the obvious expression.
        fresh: Tensor = images.to(torch.float32, memory_format=self.layout, copy=True)
        return fresh.mul_(scale).sub_(self.shift)


def normalise_ahead(examples: Examples, prepare: Preparation) -> tuple[Examples, Preparation]:
    """Normalise a small set of images once, where nothing happens to them before; else everything stays as it is.

    The batches are the same to the bit. It pays where a small model's step is about as long as a few passes over its
    batch, which on a GPU take as long as they take to start.
    """
    images = examples.inputs if isinstance(examples, Arrays) else None
    if (
        images is None
        or not prepare.is_image
        or prepare.reconstructs
        or prepare.augment
        or prepare.layout is torch.channels_last
        or 4 * images.numel() > AHEAD_BYTES
    ):
        return examples, prepare
    assert isinstance(examples, Arrays)
    return Arrays(prepare.normalise(images), examples.targets), prepare.done()


def _per_channel(values: Sequence[float], device: torch.device) -> Tensor | float:
    """Values to combine with (B, C, H, W); one alone stays a number, which is faster than a tensor of one element."""
    return values[0] if len(values) == 1 else torch.tensor(values, device=device).view(1, -1, 1, 1)


def gather(examples: Examples, index: Tensor) -> Batch:
    """The examples at `index`, (B,) on the CPU, where they are; padded ones cut to the longest of them."""
    batch = examples.take(index.to(examples.device))
    lengths: Tensor | None = getattr(examples, "lengths", None)
    if lengths is None:
        return batch
    longest = lengths[index].view(len(index), -1).amax(0).tolist()
    return examples.trim(batch, longest)  # type: ignore[attr-defined, no-any-return]


class ResidentLoader(Loader):
    """All examples live on the device and batches are gathered there: no copies, no workers, no waiting.

    Args:
        examples: on `device` already.
        batch_size: examples per optimizer step (micro-batches times their number).
        order: of each epoch, see dlrun/engine/order.py.
        prepare: what happens to each batch.
        drop_last: leave out a last batch smaller than the others.
    """

    def __init__(
        self,
        examples: Examples,
        batch_size: int,
        order: Order,
        prepare: Preparation,
        device: torch.device,
        drop_last: bool,
    ) -> None:
        self.examples, self.batch_size, self.order = examples, batch_size, order
        self.prepare, self.device = prepare, device
        self.steps_per_epoch = steps_in(len(examples), batch_size, drop_last)

    def draws(self, epoch: int, first: int = 0) -> Iterator[Draw]:
        order = self.order(epoch)
        # Once, not batch by batch; from pinned memory the copy does not wait for the device.
        pinned = order.pin_memory() if self.device.type == "cuda" else order
        batches = pinned.to(self.device, non_blocking=True).split(self.batch_size)
        longest = _longest(self.examples, order.split(self.batch_size))
        for position in range(first, self.steps_per_epoch):
            index = batches[position]
            yield Draw(epoch * self.steps_per_epoch + position, len(index), (index,), longest(position))

    def gather(self, draw: Draw) -> Batch:
        batch = self.examples.take(draw.tensors[0])
        return self.examples.trim(batch, draw.longest) if draw.longest else batch  # type: ignore[attr-defined]


def _longest(examples: Examples, batches: Sequence[Tensor]) -> Callable[[int], tuple[int, ...]]:
    """From the position of a batch to the length of its longest example; to () where examples are all of one length."""
    lengths: Tensor | None = getattr(examples, "lengths", None)
    if lengths is None:
        return lambda position: ()
    return lambda position: tuple(lengths[batches[position]].view(len(batches[position]), -1).amax(0).tolist())


class StreamingLoader(Loader):
    """Worker processes gather the batches while the device computes: for data that do not fit on it.

    The arguments are those of `ResidentLoader`, but `examples` stay where they are, `seed` is that of what they draw
    themselves, and `workers` is the number of processes (0: gather in this one).
    """

    def __init__(
        self,
        examples: Examples,
        batch_size: int,
        order: Order,
        prepare: Preparation,
        device: torch.device,
        drop_last: bool,
        seed: int = 0,
        workers: int = 0,
    ) -> None:
        self.prepare, self.device = prepare, device
        self.steps_per_epoch = steps_in(len(examples), batch_size, drop_last)
        # One for all epochs: memory that was allocated on a stream is used again on that stream alone.
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._order = _Batches(order, batch_size, seed, self.steps_per_epoch)
        self._loader: DataLoader[Any] = DataLoader(
            _Gather(examples),
            sampler=self._order,
            batch_size=None,
            num_workers=workers,
            pin_memory=device.type == "cuda",
            persistent_workers=workers > 0,
            # Its own generator, so that iterating does not draw from the global one and change dropout.
            generator=torch.Generator(),
            worker_init_fn=_leave_signals,
            multiprocessing_context="forkserver" if workers and device.type == "cuda" else None,
        )
        if workers:
            _WITH_WORKERS.add(self)

    def close(self) -> None:
        """End the workers, if any have begun."""
        iterator, self._loader._iterator = self._loader._iterator, None
        if iterator is not None:
            iterator._shutdown_workers()  # type: ignore[attr-defined]

    def draws(self, epoch: int, first: int = 0) -> Iterator[Draw]:
        self._order.epoch, self._order.first = epoch, first
        step = epoch * self.steps_per_epoch + first
        for batch in on_device_ahead(self._gathered(), self.device, self._copies):
            yield Draw(step, len(batch), (*batch.arguments, batch.targets))
            step += 1

    def _gathered(self) -> Iterator[Batch]:
        for inputs, targets in self._loader:
            yield Batch(tuple(inputs) if isinstance(inputs, list) else inputs, targets)  # tuples arrive as lists

    def gather(self, draw: Draw) -> Batch:
        *inputs, targets = draw.tensors
        return Batch(inputs[0] if len(inputs) == 1 else tuple(inputs), targets)


def _leave_signals(_: int) -> None:
    """Ctrl-C and a scheduler's SIGTERM go to all processes of a group; the one that trains decides when workers end."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


_WITH_WORKERS: WeakSet[StreamingLoader] = WeakSet()


@atexit.register  # after torch's own and multiprocessing's are registered, so before they are run
def _end_workers() -> None:
    """At the end Python sends workers a SIGTERM and waits for them, for ever if they ignore it."""
    for loader in list(_WITH_WORKERS):
        loader.close()


class _Batches:
    """The index tensors of the batches of one epoch, and the seed of each."""

    def __init__(self, order: Order, batch_size: int, seed: int, steps: int) -> None:
        self.order, self.batch_size, self.seed, self.steps = order, batch_size, seed, steps
        self.epoch = self.first = 0

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        order = self.order(self.epoch)
        for position in range(self.first, self.steps):
            index = order[position * self.batch_size : (position + 1) * self.batch_size]
            yield index, derive(self.seed, "worker", self.epoch, position)

    def __len__(self) -> int:
        return self.steps - self.first


class _Gather(Dataset[Any]):
    """Examples as a torch Dataset whose items are whole batches."""

    def __init__(self, examples: Examples) -> None:
        self.examples = examples

    def __getitem__(self, item: tuple[Tensor, int]) -> tuple[Any, Tensor]:
        index, seed = item
        # A data set of the user's may draw random numbers; seeding per batch makes them independent of which worker
        # gathers it, and when, and so the same after a resume.
        with seeded(seed):
            batch = gather(self.examples, index)
        return batch.inputs, batch.targets


def steps_in(count: int, batch_size: int, drop_last: bool) -> int:
    """Batches per epoch; at least one, however large the batch."""
    return max(1, count // batch_size if drop_last else -(-count // batch_size))


def fits(splits_bytes: int, device: torch.device) -> bool:
    """Whether data of that size should be kept on the device."""
    return splits_bytes <= RESIDENT_SHARE * free_memory(device)
