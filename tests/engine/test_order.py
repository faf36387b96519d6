"""Orders of an epoch: permutations, the same for the same seed and epoch, and laid out as they say."""

import itertools
import threading

import pytest
import torch

from dlrun.contracts import Arrays
from dlrun.engine.loaders import gather
from dlrun.engine.order import (
    Ahead,
    alternating,
    bucketed,
    contiguous,
    curriculum,
    distance_to_class_mean,
    make_order,
    shuffled,
)
from dlrun.errors import ConfigError
from dlrun.examples import Padded

LENGTHS = torch.randint(1, 60, (1000,), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("order", [shuffled(1000, 3), bucketed(LENGTHS, 16, 3), contiguous(1000, 16)])
def test_every_example_is_met_once_and_again_in_the_same_place(order):
    assert torch.equal(order(2).sort().values, torch.arange(1000))
    assert torch.equal(order(2), order(2))


def test_bucketed_batches_hold_similar_lengths_and_come_in_another_order_each_epoch():
    order = bucketed(LENGTHS, 16, 3)
    spread = [LENGTHS[batch].float().std() for batch in order(0).split(16)]
    assert torch.stack(spread).mean() < 0.1 * LENGTHS.float().std()
    assert not torch.equal(order(0), order(1))
    means = torch.stack([LENGTHS[batch].float().mean() for batch in order(0).split(16)])
    assert (means.diff() > 0).float().mean() < 0.8  # not simply short to long: 0.5 is chance


def test_contiguous_rows_continue_from_batch_to_batch():
    batches = contiguous(103, 4)(0).split(4)
    for before, after in itertools.pairwise(batches[:25]):
        assert torch.equal(before + 1, after)
    assert batches[-1].tolist() == [100, 101, 102]


def test_a_curriculum_begins_with_the_easiest_fifth_each_five_times_and_ends_with_all():
    difficulty = torch.arange(100).flip(0)
    order = curriculum(difficulty, epochs=4, seed=0)
    assert torch.equal(order(0).bincount(minlength=100), torch.tensor([0] * 80 + [5] * 20))
    assert order(2).unique().numel() == 60  # 0.2 + 0.8 · 2/4
    assert torch.equal(order(4).sort().values, torch.arange(100))


def test_difficulty_is_the_distance_to_the_mean_of_the_class():
    inputs = torch.tensor([[0.0, 0.0], [2.0, 0.0], [4.0, 0.0], [10.0, 3.0]])
    assert distance_to_class_mean(Arrays(inputs, torch.tensor([0, 0, 0, 1]))).tolist() == [2.0, 0.0, 2.0, 0.0]


def test_orders_say_what_they_lack():
    plain = Arrays(torch.zeros(5, 2), torch.zeros(5, 1))
    with pytest.raises(ConfigError, match=r"data\.order=bucketed puts sequences of similar length"):
        make_order("bucketed", plain, 2, 0)
    with pytest.raises(ConfigError, match=r"data\.order=curriculum needs lengths or classes"):
        make_order("curriculum", plain, 2, 0)


def test_padded_batches_are_cut_to_their_longest_example():
    tokens = torch.arange(1, 41).view(4, 10)
    padded = Padded(tokens, torch.arange(4), torch.tensor([2, 10, 3, 1]))
    batch = gather(padded, torch.tensor([3, 0, 2]))
    assert batch.inputs.tolist() == [[31, 32, 33], [1, 2, 3], [21, 22, 23]]


def test_orders_made_ahead_are_the_same_whatever_is_asked_for_next():
    plain, ahead = shuffled(1000, 3), Ahead(shuffled(1000, 3))
    for epoch in (0, 1, 2, 7, 8, 8, 3):
        assert torch.equal(ahead(epoch), plain(epoch))


def test_an_order_is_made_while_the_one_before_is_used_and_its_thread_ends():
    made = []

    def order(epoch):
        made.append((epoch, threading.current_thread().name))
        return torch.tensor([epoch])

    ahead = Ahead(order)
    assert [int(ahead(epoch)) for epoch in (0, 1, 2)] == [0, 1, 2]
    for thread in [t for t in threading.enumerate() if t.name == "order"]:
        thread.join(timeout=10)
        assert not thread.is_alive()
    assert sorted(made) == [(0, "MainThread"), (1, "order"), (2, "order"), (3, "order")]


def test_large_sets_are_ordered_ahead():
    def examples(count):
        return Arrays(torch.zeros(count, 1), torch.zeros(count))

    large = make_order("shuffled", examples(20_000), 128, seed=3)
    assert isinstance(large, Ahead)
    assert torch.equal(large(5), shuffled(20_000, 3)(5))
    assert not isinstance(make_order("shuffled", examples(19_999), 128, seed=3), Ahead)


def test_alternating_shows_every_other_epoch_the_mirror_image():
    """Of each example both are seen in any two epochs that follow one another; half of each epoch are mirrored."""
    order = alternating(shuffled(1000, 3), 1000, 3)
    plain = shuffled(1000, 3)
    mirrored = []
    for epoch in range(4):
        index = order(epoch)
        assert torch.equal(index % 1000, plain(epoch))
        assert torch.equal(order(epoch), index)
        mirrored.append(index[index >= 1000].sort().values - 1000)
        assert 430 < len(mirrored[-1]) < 570  # fails by chance once in 100,000
    assert torch.equal(mirrored[0], mirrored[2])
    assert torch.equal(torch.cat(mirrored[:2]).sort().values, torch.arange(1000))
    assert torch.equal(mirrored[1], mirrored[3])
    assert not torch.equal(alternating(plain, 1000, 4)(0), order(0))
