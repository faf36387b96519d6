"""In which order an epoch meets the training examples: each a function of (seed, epoch) alone, so that runs resume.

An order is a permutation, or for a curriculum a selection with repetitions; it always has as many entries as there are
examples, so that every epoch has equally many steps.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import Literal

import torch
from torch import Tensor

from dlrun.contracts import Examples
from dlrun.engine.seeding import derive
from dlrun.errors import ConfigError

Order = Callable[[int], Tensor]  # epoch -> (N,) int64 on the CPU
OrderName = Literal["shuffled", "bucketed", "contiguous", "curriculum"]

BUCKET_BATCHES = 50  # batches' worth of examples that are sorted by length together
MANY = 20_000  # examples whose permutation takes longer than the start of a thread
EASIEST = 0.2  # share of the examples a curriculum begins with


def make_order(name: OrderName, examples: Examples, batch_size: int, seed: int, curriculum_epochs: int = 5) -> Order:
    """The order called `name`.

    Args:
        batch_size: examples per step; contiguous and bucketed orders are laid out for it.
        curriculum_epochs: epochs until a curriculum has brought in all examples.

    Raises: ConfigError if the examples do not have what the order goes by.
    """
    count = len(examples)
    lengths: Tensor | None = getattr(examples, "lengths", None)
    if lengths is not None and lengths.ndim > 1:
        lengths = lengths.sum(1)
    if name == "bucketed":
        if lengths is None:
            raise ConfigError(
                "data.order=bucketed puts sequences of similar length together, but these examples all have one "
                "length; leave data.order=shuffled."
            )
        return bucketed(lengths, batch_size, seed)
    if name == "contiguous":
        return contiguous(count, batch_size)
    if name == "curriculum":
        difficulty = lengths if lengths is not None else getattr(examples, "difficulty", None)
        difficulty = distance_to_class_mean(examples) if difficulty is None else difficulty
        return curriculum(difficulty, curriculum_epochs, seed)
    return Ahead(shuffled(count, seed)) if count >= MANY else shuffled(count, seed)


class Ahead:
    """The orders of `order`, of which that of the next epoch is made by a thread while this one is trained on.

    A permutation of 60,000 takes as long as a dozen steps of a small model on a GPU, which would wait for it. The
    thread ends with its order: none is there when processes are forked.
    """

    def __init__(self, order: Order) -> None:
        self._order = order
        self._made: dict[int, Tensor] = {}
        self._thread: Thread | None = None

    def __call__(self, epoch: int) -> Tensor:
        if self._thread is not None:
            self._thread.join()
        order = self._made.pop(epoch, None)
        self._made.clear()
        self._thread = Thread(target=self._make, args=(epoch + 1,), name="order")
        self._thread.start()
        return self._order(epoch) if order is None else order

    def _make(self, epoch: int) -> None:
        self._made[epoch] = self._order(epoch)


def shuffled(count: int, seed: int) -> Order:
    """A permutation of all examples, another in each epoch."""
    return lambda epoch: torch.randperm(count, generator=_generator(seed, epoch))


def bucketed(lengths: Tensor, batch_size: int, seed: int) -> Order:
    """Batches of examples of similar length, so that little is padded; which these are, and their order, is random.

    Shuffled examples are sorted by length within groups of `BUCKET_BATCHES` batches; the batches are then shuffled, but
    for the last, which may be smaller.
    """

    def order(epoch: int) -> Tensor:
        generator = _generator(seed, epoch)
        groups = torch.randperm(len(lengths), generator=generator).split(BUCKET_BATCHES * batch_size)
        batches = torch.cat([group[lengths[group].argsort(stable=True)] for group in groups]).split(batch_size)
        whole = len(lengths) // batch_size
        mixed = [batches[i] for i in torch.randperm(whole, generator=generator)]
        return torch.cat([*mixed, *batches[whole:]])

    return order


def contiguous(count: int, batch_size: int) -> Order:
    """Row b of every batch continues row b of the batch before: for models that carry their state along a text.

    The examples, in their own order, are dealt out as `batch_size` stretches of equal length; those left over at the
    end come last.
    """
    steps = count // batch_size
    rows = torch.arange(steps * batch_size).view(batch_size, steps).T.reshape(-1)
    whole = torch.cat([rows, torch.arange(len(rows), count)])
    return lambda epoch: whole


def curriculum(difficulty: Tensor, epochs: int, seed: int) -> Order:
    """Easy examples first: epoch e draws from the easiest share, which grows linearly to all of them over `epochs`.

    While there are fewer than an epoch needs they are repeated, each equally often within one.
    Source: Bengio et al. 2009, doi:10.1145/1553374.1553380; pacing as in Hacohen & Weinshall 2019 (arXiv:1904.03626).
    """
    ranked = difficulty.argsort(stable=True)
    count = len(ranked)

    def order(epoch: int) -> Tensor:
        generator = _generator(seed, epoch)
        share = min(1.0, EASIEST + (1 - EASIEST) * epoch / epochs)
        easy = ranked[: max(1, round(share * count))]
        rounds = [easy[torch.randperm(len(easy), generator=generator)] for _ in range(-(-count // len(easy)))]
        return torch.cat(rounds)[:count]

    return order


def alternating(order: Order, count: int, seed: int) -> Order:
    """`order` over examples and their mirror images: in each epoch one of the two, in the next the other.

    Example i of `count` has its mirror image at i + count (`dlrun.examples.Mirrored`); which comes first is drawn for
    each. So both are seen equally often, where chance would show a quarter of the images the same way in three epochs.

    Source: Jordan 2024, sec. 3.6 (arXiv:2404.00498).
    """
    first = torch.randint(2, (count,), generator=torch.Generator().manual_seed(derive(seed, "flip")))

    def both(epoch: int) -> Tensor:
        index = order(epoch)
        return index + count * ((first[index] + epoch) % 2)

    return both


def distance_to_class_mean(examples: Examples) -> Tensor:
    """How far each input lies from the mean of its class, (N,) float64 on the CPU: near is typical, so easy.

    Raises: ConfigError without classes to take means of.
    """
    inputs, targets = getattr(examples, "inputs", None), getattr(examples, "targets", None)
    if inputs is None or targets is None or targets.ndim != 1 or targets.is_floating_point():
        raise ConfigError(
            "data.order=curriculum needs lengths or classes to tell easy examples from difficult ones, and these "
            "examples have neither; leave data.order=shuffled."
        )
    flat, targets = inputs.cpu().flatten(1), targets.cpu()
    distance = torch.empty(len(flat), dtype=torch.float64)
    for label in targets.unique():
        members = (targets == label).nonzero().flatten()
        mean = torch.stack([part.double().sum(0) for part in flat[members].split(4096)]).sum(0) / len(members)
        for part in members.split(4096):
            distance[part] = (flat[part].double() - mean).norm(dim=1)
    return distance


def _generator(seed: int, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed(derive(seed, "order", epoch))
