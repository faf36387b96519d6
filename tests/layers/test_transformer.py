"""Blocks and stacks of them, against PyTorch's own with the same weights."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dlrun.errors import ConfigError
from dlrun.layers.attention import CrossAttention, SelfAttention
from dlrun.layers.feed_forward import feed_forward
from dlrun.layers.transformer import Block, Residual, Stack, Style

STYLES = [(pre_norm, activation) for pre_norm in (True, False) for activation in ("gelu", "relu")]


def randomised(module):
    """Weights, biases and norms that all matter."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.4)
    return module


def torch_names(block):
    """The state of a block under the names of PyTorch's layers."""
    names = {}

    def put(prefix, linears, output):
        names[f"{prefix}.in_proj_weight"] = torch.cat([linear.weight for linear in linears])
        names[f"{prefix}.in_proj_bias"] = torch.cat([linear.bias for linear in linears])
        names[f"{prefix}.out_proj.weight"], names[f"{prefix}.out_proj.bias"] = output.weight, output.bias

    put("self_attn", [block.attention.inner.qkv], block.attention.inner.output)
    parts = [block.attention]
    if block.cross is not None:
        inner = block.cross.inner
        put("multihead_attn", [inner.query, inner.key_value], inner.output)
        parts += [block.cross]
    for i, part in enumerate([*parts, block.feed_forward], start=1):
        names[f"norm{i}.weight"], names[f"norm{i}.bias"] = part.norm.weight, part.norm.bias
    for theirs, ours in (("linear1", "hidden"), ("linear2", "output")):
        linear = getattr(block.feed_forward.inner, ours)
        names[f"{theirs}.weight"], names[f"{theirs}.bias"] = linear.weight, linear.bias
    return names


@pytest.mark.parametrize(("pre_norm", "activation"), STYLES)
def test_an_encoder_block_is_that_of_torch(pre_norm, activation):
    style = Style(8, 2, 20, activation=activation, pre_norm=pre_norm)
    ours = randomised(Block(style, causal=False))
    theirs = nn.TransformerEncoderLayer(8, 2, 20, 0.0, activation, batch_first=True, norm_first=pre_norm)
    theirs.load_state_dict(torch_names(ours))
    x, kept = torch.randn(3, 5, 8), torch.arange(5) < torch.tensor([[5], [3], [1]])
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-4)
    expected = theirs(x, src_key_padding_mask=~kept)
    torch.testing.assert_close(ours(x, kept[:, None, None]), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
@pytest.mark.parametrize(("pre_norm", "activation"), STYLES)
def test_encoder_and_decoder_are_those_of_torch(pre_norm, activation):
    style = Style(8, 2, 20, activation=activation, pre_norm=pre_norm)
    encoder, decoder = Stack(style, 2), randomised(Stack(style, 2, causal=True, cross=True))
    randomised(encoder)
    options = {"dropout": 0.0, "activation": activation, "batch_first": True, "norm_first": pre_norm}
    theirs = nn.Transformer(8, 2, 2, 2, 20, **options)
    for ours, stack in ((encoder, theirs.encoder), (decoder, theirs.decoder)):
        for block, layer in zip(ours.blocks, stack.layers, strict=True):
            layer.load_state_dict(torch_names(block))
        # PyTorch puts a last norm behind post-norm stacks too, which the paper does not have.
        stack.norm = ours.norm
    source, target = torch.randn(3, 6, 8), torch.randn(3, 4, 8)
    kept = torch.arange(6) < torch.tensor([[6], [3], [1]])
    later = nn.Transformer.generate_square_subsequent_mask(4)
    expected = theirs(
        source, target, tgt_mask=later, tgt_is_causal=True, src_key_padding_mask=~kept, memory_key_padding_mask=~kept
    )
    mask = kept[:, None, None]
    memories = decoder.remember(encoder(source, mask))
    actual = decoder(target, memories=memories, memory_mask=mask)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("kind", "gate"), [("swiglu", F.silu), ("geglu", F.gelu)])
def test_a_gated_layer_is_that_of_the_paper(kind, gate):
    ours = feed_forward(kind, 6, 48, bias=False)
    units = 32  # two thirds of 48
    w, v = ours.gate_value.weight[:units], ours.gate_value.weight[units:]
    x = torch.randn(2, 3, 6)
    torch.testing.assert_close(ours(x), (gate(x @ w.T) * (x @ v.T)) @ ours.output.weight.T)


def test_relu2_is_the_square_of_relu():
    ours = feed_forward("relu2", 6, 12, bias=False)
    x = torch.randn(2, 3, 6)
    torch.testing.assert_close(ours(x), torch.clamp(x @ ours.hidden.weight.T, min=0) ** 2 @ ours.output.weight.T)


@pytest.mark.parametrize("width", [8, 64, 128, 768])
def test_a_gated_layer_costs_what_a_plain_one_does(width):
    plain, gated = (
        sum(p.numel() for p in feed_forward(kind, width, 4 * width, bias=False).parameters())
        for kind in ("gelu", "swiglu")
    )
    assert gated == pytest.approx(plain, rel=4 / (8 * width / 3))


def test_an_unknown_activation_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"model.activation must be one of gelu, .*got 'geluu'"):
        feed_forward("geluu", 4, 16)


def test_branches_are_added_whatever_the_depth():
    # Of 2 · 8 branches each contributes 1 / 16 of the variance that an unscaled one would.
    stack = Stack(Style(256, 4, 1024), 8)
    for branch in stack.modules():
        if isinstance(branch, Residual):
            assert branch.inner.output.weight.std().item() == pytest.approx((2 / 5 / 256) ** 0.5 / 4, rel=0.02)
        if isinstance(branch, SelfAttention):
            assert branch.qkv.weight.std().item() == pytest.approx((2 / 5 / 256) ** 0.5, rel=0.02)
            assert not branch.qkv.bias.any()
    post_norm = Stack(Style(256, 4, 1024, pre_norm=False), 8).blocks[0].attention.inner.output.weight
    assert post_norm.std().item() == pytest.approx((2 / 5 / 256) ** 0.5, rel=0.02)


def test_rms_norm_and_no_bias_reach_every_layer():
    style = Style(8, 2, 32, norm="rms", bias=False)
    names = [name for name, _ in Stack(style, 1, causal=True, cross=True).named_parameters()]
    assert not [name for name in names if "bias" in name]
    layer_norms = Stack(Style(8, 2, 32, bias=False), 1)
    assert not [name for name, _ in layer_norms.named_parameters() if "bias" in name]


def test_dropout_is_of_branches_and_inputs():
    style = Style(8, 2, 16, dropout=0.5)
    stack = Stack(style, 1)
    drops = [name for name, module in stack.named_modules() if isinstance(module, nn.Dropout)]
    assert drops == ["dropout", "blocks.0.attention.drop.0", "blocks.0.feed_forward.drop.0"]


def test_stochastic_depth_leaves_out_whole_branches():
    torch.manual_seed(0)
    stack = Stack(Style(8, 2, 16, pre_norm=False), 2, stochastic_depth=0.5)
    assert [len(block.attention.drop) for block in stack.blocks] == [1, 1]
    assert [block.feed_forward.drop[0].drop_probability for block in stack.blocks] == [0.25, 0.5]
    block = Stack(Style(8, 2, 16), 1, stochastic_depth=0.5).blocks[0]
    x = torch.randn(64, 3, 8)
    left_out = (block.attention(x, None, None) == x).all(dim=(1, 2))
    # Of 64 draws at .5: outside 12 to 52 once in 10^6.
    assert 12 <= int(left_out.sum()) <= 52


def test_a_decoder_remembers_once_for_each_block():
    stack = Stack(Style(8, 2, 16), 3, causal=True, cross=True)
    memories = stack.remember(torch.randn(2, 5, 8))
    assert len(memories) == 3
    crossing = stack.blocks[1].cross.inner
    assert isinstance(crossing, CrossAttention)
    assert memories[1][0].shape == (2, 2, 5, 4)
