"""What all models of sequences share: reading, masks that last, and pooling that does not see padding."""

import pytest
import torch

from dlrun.contracts import DataSpec, Kind, Task
from dlrun.layers.sequence import SequenceReader, TimeDropout, lengths_of, pooled, token_embedding


def test_an_image_is_the_sequence_of_its_rows():
    reader = SequenceReader(DataSpec("i", Task.CLASSIFICATION, Kind.IMAGE, (3, 4, 5), 2), "m", embedding=7)
    images = torch.randn(2, 3, 4, 5)
    x, lengths = reader(images)
    assert x.shape == (2, 4, reader.features)
    assert lengths is None
    for row in range(4):
        expected = torch.stack([torch.cat([image[c, row] for c in range(3)]) for image in images])
        assert torch.equal(x[:, row], expected)


def test_embeddings_are_drawn_with_their_spread_and_padding_is_zero():
    torch.manual_seed(0)
    weight = token_embedding(1000, 50, 0.1, padding=0).weight
    assert weight[0].abs().max() == 0
    assert weight[1:].std().item() == pytest.approx(0.1, rel=0.02)


def test_lengths_count_tokens_before_the_padding():
    tokens = torch.tensor([[5, 6, 0, 0], [5, 6, 7, 8], [0, 0, 0, 0]])
    assert lengths_of(tokens, 0).tolist() == [2, 4, 1]


@pytest.mark.parametrize("readout", ["last", "mean", "max"])
@pytest.mark.parametrize("backward", [0, 2])
def test_pooling_is_that_of_each_sequence_alone(readout, backward):
    outputs, lengths = torch.randn(3, 5, 4), torch.tensor([2, 5, 1])
    got = pooled(outputs, lengths, readout, backward=backward)
    for i, length in enumerate(lengths):
        own = outputs[i, :length]
        if readout == "last":
            expected = torch.cat([own[-1, : 4 - backward], own[0, 4 - backward :]])
        else:
            expected = own.mean(0) if readout == "mean" else own.max(0).values
        torch.testing.assert_close(got[i], expected)
        torch.testing.assert_close(pooled(own[None], None, readout, backward=backward)[0], expected)


def test_time_dropout_has_one_mask_for_all_time_steps_and_keeps_the_mean():
    torch.manual_seed(0)
    drop = TimeDropout(0.25)
    x = torch.ones(400, 3, 100)
    y = drop(x)
    assert torch.equal(y, y[:, :1].expand_as(y))
    assert y.unique().tolist() == pytest.approx([0, 4 / 3])
    assert y.mean() == pytest.approx(1.0, abs=0.018)  # six standard deviations
    assert torch.equal(drop.eval()(x), x)
