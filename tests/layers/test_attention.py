"""Attention, against PyTorch's own with the same weights."""

import pytest
import torch
from torch import nn

from dlrun.errors import ConfigError
from dlrun.layers.attention import Cache, CrossAttention, SelfAttention, attention_weights
from dlrun.layers.positions import Rotary

WIDTH, HEADS = 12, 3


@pytest.fixture(autouse=True)
def _float64():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def theirs_of(query_key_value, output):
    """PyTorch's multi-head attention with the weights of ours."""
    theirs = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    weights, biases = zip(*((linear.weight, linear.bias) for linear in query_key_value), strict=True)
    theirs.load_state_dict(
        {
            "in_proj_weight": torch.cat(weights),
            "in_proj_bias": torch.cat(biases),
            "out_proj.weight": output.weight,
            "out_proj.bias": output.bias,
        }
    )
    return theirs


@pytest.mark.parametrize("causal", [False, True])
def test_self_attention_is_that_of_torch(causal):
    ours = SelfAttention(WIDTH, HEADS, causal=causal)
    x = torch.randn(2, 5, WIDTH)
    later = nn.Transformer.generate_square_subsequent_mask(5) if causal else None
    expected, weights = theirs_of([ours.qkv], ours.output)(x, x, x, attn_mask=later, average_attn_weights=False)
    torch.testing.assert_close(ours(x), expected)
    torch.testing.assert_close(ours.weights(x), weights)


def test_normed_queries_and_keys_have_unit_mean_square_before_they_are_turned():
    ours = SelfAttention(WIDTH, HEADS, causal=True, rotary=Rotary(5, WIDTH // HEADS).double(), qk_norm=True)
    x = 100 * torch.randn(2, 5, WIDTH)
    q, k, v = (part.view(2, 5, HEADS, -1).transpose(1, 2) for part in ours.qkv(x).chunk(3, -1))
    q, k = (part * part.shape[-1] ** 0.5 / part.norm(dim=-1, keepdim=True) for part in (q, k))
    scores = ours.rotary(q) @ ours.rotary(k).mT / q.shape[-1] ** 0.5
    weights = scores.masked_fill(~torch.ones(5, 5).tril().bool(), -torch.inf).softmax(-1)
    torch.testing.assert_close(ours.weights(x), weights)
    torch.testing.assert_close(ours(x), ours.output((weights @ v).transpose(1, 2).flatten(2)))
    cache = Cache()
    pieces = [ours(part, None, cache) for part in x.split([2, 3], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, 1), ours(x))


def test_padding_is_not_attended_to():
    ours = SelfAttention(WIDTH, HEADS)
    x = torch.randn(2, 5, WIDTH)
    kept = torch.tensor([[True, True, True, False, False], [True] * 5])
    expected, weights = theirs_of([ours.qkv], ours.output)(x, x, x, key_padding_mask=~kept, average_attn_weights=False)
    torch.testing.assert_close(ours(x, kept[:, None, None]), expected)
    torch.testing.assert_close(ours.weights(x, kept[:, None, None]), weights)


def test_cross_attention_is_that_of_torch():
    ours = CrossAttention(WIDTH, HEADS)
    x, memory = torch.randn(2, 4, WIDTH), torch.randn(2, 6, WIDTH)
    kept = torch.arange(6) < torch.tensor([[3], [6]])
    expected, weights = theirs_of([ours.query, ours.key_value], ours.output)(
        x, memory, memory, key_padding_mask=~kept, average_attn_weights=False
    )
    inputs = x, ours.remember(memory), kept[:, None, None]
    torch.testing.assert_close(ours(*inputs), expected)
    torch.testing.assert_close(ours.weights(*inputs), weights)


def test_a_sequence_of_padding_alone_has_finite_gradients():
    ours = SelfAttention(WIDTH, HEADS)
    x = torch.randn(2, 3, WIDTH, requires_grad=True)
    kept = torch.tensor([[False] * 3, [True] * 3])
    outputs = ours(x, kept[:, None, None])
    outputs.sum().backward()
    torch.testing.assert_close(outputs[0], ours.output.bias.expand(3, -1))
    assert torch.isfinite(x.grad).all()


def test_gradients_are_those_of_finite_differences():
    ours = SelfAttention(4, 2, causal=True, rotary=Rotary(4, 2).double())
    assert torch.autograd.gradcheck(ours, torch.randn(2, 4, 4, requires_grad=True))


@pytest.mark.parametrize("pieces", [[1] * 6, [3, 1, 2], [6], [1, 5]])
def test_in_pieces_is_at_once(pieces):
    ours = SelfAttention(WIDTH, HEADS, causal=True, rotary=Rotary(4, WIDTH // HEADS).double())
    x, cache = torch.randn(2, 6, WIDTH), Cache()
    outputs = torch.cat([ours(piece, None, cache) for piece in x.split(pieces, dim=1)], dim=1)
    torch.testing.assert_close(outputs, ours(x))
    assert len(cache) == 6


def test_a_cache_leaves_what_it_was_given_alone():
    ours = SelfAttention(WIDTH, HEADS, causal=True)
    first = Cache()
    ours(torch.randn(2, 3, WIDTH), None, first)
    before = [tensor.clone() for tensor in first.past]
    ours(torch.randn(2, 2, WIDTH), None, Cache(first.past))
    assert all(torch.equal(a, b) for a, b in zip(first.past, before, strict=True))


def test_attention_dropout_drops_while_training_only():
    ours = SelfAttention(WIDTH, HEADS, dropout=0.5)
    x = torch.randn(2, 5, WIDTH)
    assert not torch.equal(ours(x), ours(x))
    ours.eval()
    assert torch.equal(ours(x), ours(x))


def test_all_weights_of_a_model_are_found_in_evaluation_mode():
    model = nn.Sequential(SelfAttention(WIDTH, HEADS), nn.Dropout(0.5), SelfAttention(WIDTH, HEADS, causal=True))
    x = torch.randn(2, 5, WIDTH)
    found = attention_weights(model, x)
    assert list(found) == ["0", "2"]
    assert model.training
    torch.testing.assert_close(found["2"], model[2].weights(model[0](x)))
    torch.testing.assert_close(found["2"].sum(-1), torch.ones(2, HEADS, 5))
    assert not found["2"].triu(1).any()
    assert not any(module._forward_pre_hooks for module in model)


def test_heads_that_do_not_divide_the_width_are_refused_by_name():
    with pytest.raises(ConfigError, match=r"model.heads=5 must divide model.width=12 .*=4 or 6, or model.width=15"):
        SelfAttention(12, 5)
