"""Copying and parity: every example is what its definition says, and no part of it gives the answer away."""

import math

import pytest
import torch
from torch.nn import functional

from dlrun import splitting
from dlrun.contracts import IGNORED, Kind, Task
from dlrun.data.long_range_tokens import BLANK, MARK, copy_memory, parity
from dlrun.errors import DataError
from dlrun.text import decode


def test_what_was_read_is_to_be_said_after_the_mark():
    splits = copy_memory(samples=500, delay=7, items=3, seed=0)
    spec = splits.spec
    assert (spec.task, spec.kind, spec.shape, spec.num_outputs) == (Task.LANGUAGE_MODELLING, Kind.TOKENS, (13,), 10)
    assert spec.vocabulary_size == len(spec.vocabulary) == 10
    for inputs, targets in zip(splits.train.inputs.tolist(), splits.train.targets.tolist(), strict=True):
        assert max(inputs[:3]) < BLANK
        assert inputs[3:] == [BLANK] * 6 + [MARK] + [BLANK] * 3
        assert targets == [IGNORED] * 10 + inputs[:3]
    assert set(splits.train.inputs[:, :3].flatten().tolist()) == set(range(8))
    assert decode(splits.train.inputs[0].tolist(), spec.vocabulary)[3:] == "______!___"


def test_without_memory_the_loss_is_that_of_a_guess():
    targets = copy_memory(samples=4000, delay=5, items=10, seed=1).train.targets
    guess = torch.full((4000, 25, 10), -100.0)
    guess[:, :, :8] = 0
    loss = functional.cross_entropy(guess.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
    assert loss == pytest.approx(math.log(8))
    counts = torch.bincount(targets[targets != IGNORED]) / (targets != IGNORED).sum()
    assert (counts - 1 / 8).abs().max() < 0.008  # five standard deviations: by chance, 1 in 100,000


def test_parity_is_that_of_the_ones():
    splits = parity(samples=300, min_length=3, max_length=12, seed=0)
    spec, examples = splits.spec, splits.train
    assert (spec.shape, spec.vocabulary_size, spec.padding, spec.class_names) == ((12,), 3, 0, ("even", "odd"))
    texts = [decode(row, spec.vocabulary) for row in examples.inputs.tolist()]
    assert [text.count("1") % 2 for text in texts] == examples.targets.tolist()
    assert [len(text) for text in texts] == examples.lengths.tolist()
    assert len(set(texts)) == 300
    assert set(examples.lengths.tolist()) == set(range(3, 13))
    again = parity(samples=300, min_length=3, max_length=12, seed=0).train
    assert torch.equal(again.inputs, examples.inputs)
    assert not torch.equal(parity(samples=300, min_length=3, max_length=12, seed=1).train.inputs, examples.inputs)


def test_parity_of_many_bits_has_two_equal_classes():
    examples = parity(samples=4000, min_length=62, max_length=62, seed=0).train
    assert examples.lengths.unique().tolist() == [62]
    assert abs(float(examples.targets.double().mean()) - 0.5) < 0.03  # 3.8 standard deviations
    ones = (examples.inputs == 2).double().mean(0)
    assert (ones - 0.5).abs().max() < 0.04  # of each bit


def test_half_of_all_short_sequences_can_be_drawn():
    assert len(parity(samples=7, min_length=1, max_length=3, seed=0).train) == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_length": 5, "max_length": 4}, "data.min_length=5 is more than data.max_length=4"),
        ({"samples": 9, "min_length": 4, "max_length": 4}, "at most half of the 16 sequences of 4 to 4 bits, .*got 9"),
    ],
)
def test_too_many_or_none_are_refused(options: dict, message: str):
    with pytest.raises(DataError, match=message):
        parity(**{"samples": 5, "min_length": 1, "max_length": 4, "seed": 0} | options)


def test_common_settings():
    splits = splitting.complete(
        parity(samples=200, min_length=4, max_length=9, seed=0), limit=50, imbalance={"odd": 0.5}
    )
    assert len(splits.train) == 50
    assert len(splitting.complete(copy_memory(samples=50, delay=2, items=2, seed=0), folds=5, bootstrap=1).train) == 32
