"""The temporal convolutional network: what it sees, against sums written out, and that it is causal."""

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.nn import functional as F

from dlrun.contracts import DataSpec, Kind, Task
from dlrun.errors import ContractError
from dlrun.layers.causal_convolution import CausalConv1d, TemporalBlock, receptive_field
from dlrun.models.tcn import tcn

CONF = Path(__file__).parents[2] / "conf" / "model"
PIXELS = DataSpec("pixels", Task.CLASSIFICATION, Kind.SEQUENCE, (784, 1), 10)
ROWS = DataSpec("digits", Task.CLASSIFICATION, Kind.IMAGE, (2, 8, 6), 10)
WORDS = DataSpec("words", Task.CLASSIFICATION, Kind.TOKENS, (9,), 2, vocabulary_size=12, padding=0)
TEXT = DataSpec("text", Task.LANGUAGE_MODELLING, Kind.TOKENS, (6,), 8, vocabulary_size=8)
TABLE = DataSpec("iris", Task.CLASSIFICATION, Kind.VECTOR, (4,), 3)


def made(spec, **options):
    torch.manual_seed(0)
    return tcn(spec, **{"channels": [5, 5], "kernel_size": 3, "embedding": 4, **options})


def tokens(*shape):
    return torch.randint(1, 8, shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kernel_size", [1, 2, 3, 7])
@pytest.mark.parametrize("levels", [1, 2, 4])
def test_the_receptive_field_is_the_closed_form(kernel_size, levels):
    dilations = [2**i for i in range(levels)]
    assert receptive_field(kernel_size, dilations) == 1 + 2 * (kernel_size - 1) * (2**levels - 1)


@pytest.mark.parametrize(("kernel_size", "base", "levels"), [(2, 2, 3), (3, 2, 2), (3, 3, 2), (4, 1, 2), (1, 2, 2)])
@pytest.mark.parametrize("norm", ["none", "weight", "rms", "batch"])
def test_an_output_sees_the_receptive_field_and_nothing_else(kernel_size, base, levels, norm):
    torch.manual_seed(0)
    dilations = [base**i for i in range(levels)]
    blocks = nn.Sequential(
        *[TemporalBlock(3, 3, kernel_size, d, norm=norm, activation="tanh", dropout=0.5) for d in dilations]
    )
    x = torch.randn(2, 3, 40, dtype=torch.float64, requires_grad=True)
    blocks.double().eval()(x)[:, :, 30].sum().backward()
    seen = x.grad.abs().amax((0, 1)) > 0
    first = 30 - receptive_field(kernel_size, dilations) + 1
    assert not seen[:first].any()
    assert not seen[31:].any()
    assert seen[first]
    assert seen[30]


def test_a_causal_convolution_is_the_sum_over_the_past():
    torch.manual_seed(0)
    conv = CausalConv1d(2, 3, 3, dilation=2)
    x = torch.randn(1, 2, 7)
    y = conv(x)
    assert y.shape == (1, 3, 7)
    for t in range(7):
        past = [x[0, :, t - 2 * (2 - j)] if t >= 2 * (2 - j) else torch.zeros(2) for j in range(3)]
        expected = conv.bias + sum(conv.weight[:, :, j] @ past[j] for j in range(3))
        torch.testing.assert_close(y[0, :, t], expected)


def test_a_block_is_the_papers_with_weight_norm():
    torch.manual_seed(0)
    block = TemporalBlock(2, 3, 2, 4)
    first, second = (m for m in block.branch if isinstance(m, CausalConv1d))
    x = h = torch.randn(2, 2, 9)
    for conv in (first, second):
        g, v = conv.parametrizations.weight.original0, conv.parametrizations.weight.original1
        weight = g * v / v.flatten(1).norm(dim=1)[:, None, None]
        h = F.relu(F.conv1d(F.pad(h, (4, 0)), weight, conv.bias, dilation=4))
    torch.testing.assert_close(block(x), F.relu(h + F.conv1d(x, block.shortcut.weight, block.shortcut.bias)))
    assert isinstance(TemporalBlock(3, 3, 2, 4).shortcut, nn.Identity)


def test_dropout_zeroes_channels_at_all_time_steps():
    torch.manual_seed(0)
    block = TemporalBlock(1, 200, 3, 1, activation="identity", dropout=0.5).train()
    y = block.branch(torch.randn(2, 1, 10))
    dropped = y == 0
    assert torch.equal(dropped, dropped[:, :, :1].expand_as(dropped))
    assert 0.3 < dropped.double().mean() < 0.7


def test_the_preset_has_the_parameters_of_the_paper():
    """About 70 K for sequential MNIST (Bai et al. 2018, table 1): two convolutions of v, g and bias in each block."""
    settings = OmegaConf.to_container(OmegaConf.load(CONF / "tcn.yaml"))
    assert settings.pop("_target_") == "dlrun.models.tcn.tcn"
    model = tcn(PIXELS, **settings)
    filters = 25 * (7 + 2) + 15 * 25 * (25 * 7 + 2)
    assert sum(p.numel() for p in model.parameters()) == filters + (25 + 25) + (25 * 10 + 10) == 66_910


@pytest.mark.parametrize("readout", ["last", "mean", "max"])
def test_images_are_read_by_rows_and_read_out(readout):
    model = made(ROWS, readout=readout)
    images = torch.randn(3, 2, 8, 6)
    rows = torch.cat([images[:, 0], images[:, 1]], 2)  # (B, H, C · W)
    outputs = model.blocks(rows.transpose(1, 2))
    vector = {"last": outputs[:, :, -1], "mean": outputs.mean(2), "max": outputs.amax(2)}[readout]
    torch.testing.assert_close(model(images), model.output(vector))


@pytest.mark.parametrize("norm", ["none", "weight", "rms", "batch"])
@pytest.mark.parametrize("readout", ["last", "mean", "max"])
def test_padding_has_no_influence(norm, readout):
    model = made(WORDS, norm=norm, readout=readout).eval()
    lengths = torch.tensor([3, 6, 1])
    batch = tokens(3, 6) * (torch.arange(6) < lengths[:, None])
    together = model(F.pad(batch, (0, 2)))
    for i, length in enumerate(lengths):
        torch.testing.assert_close(together[i], model(batch[i : i + 1, :length])[0])


@pytest.mark.parametrize("norm", ["none", "weight", "rms"])
def test_a_language_model_is_causal_while_it_trains_and_goes_step_by_step(norm):
    model = made(TEXT, norm=norm)
    text = tokens(2, 30)
    logits = model(text)
    assert logits.shape == (2, 30, 8)
    changed = text.clone()
    changed[:, 20] = 1 + text[:, 20] % 7
    difference = (model(changed) - logits).abs().amax((0, 2))
    assert difference[:20].max() == 0 < difference[20]
    state, parts = None, []
    for part in text.split([1, 3, 1, 20, 1, 4], dim=1):
        output, state = model.step(part, state)
        parts.append(output)
        assert state.shape[1] < model.receptive_field == 13
    torch.testing.assert_close(torch.cat(parts, 1), logits)


@pytest.mark.parametrize("kernel_size", [1, 2])
def test_the_smallest_kernels_go_step_by_step_too(kernel_size):
    model = made(TEXT, kernel_size=kernel_size, channels=[3])
    text, state, parts = tokens(2, 5), None, []
    for part in text.split(1, dim=1):
        output, state = model.step(part, state)
        parts.append(output)
    torch.testing.assert_close(torch.cat(parts, 1), model(text))


def test_every_parameter_learns():
    model = made(WORDS, channels=[4, 6], activation="tanh")
    model(tokens(6, 6)).square().sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in model.parameters())


@pytest.mark.parametrize(
    ("spec", "options", "words"),
    [
        (TABLE, {}, r"model=tcn reads .* but data=iris gives vectors of shape \(4,\)"),
        (TEXT, {"norm": "batch"}, "model.norm=batch .* data=text .* which it would see: choose model.norm=weight"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_sentence(spec, options, words):
    with pytest.raises(ContractError, match=words):
        made(spec, **options)
