"""Recurrent models against torch.nn's layers put together by hand, and what state, padding and options may change."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dlrun.contracts import DataSpec, Kind, Task
from dlrun.errors import ConfigError, ContractError
from dlrun.models.lstm import lstm

ROWS = DataSpec("digits", Task.CLASSIFICATION, Kind.IMAGE, (1, 8, 8), 10)
SERIES = DataSpec("series", Task.FORECASTING, Kind.SEQUENCE, (7, 2), 3)
WORDS = DataSpec("words", Task.CLASSIFICATION, Kind.TOKENS, (9,), 2, vocabulary_size=12, padding=0)
TEXT = DataSpec("text", Task.LANGUAGE_MODELLING, Kind.TOKENS, (6,), 8, vocabulary_size=8)
PAIRS = DataSpec("pairs", Task.SEQUENCE_TO_SEQUENCE, Kind.TOKENS, (6,), 8, vocabulary_size=8, padding=0)
TABLE = DataSpec("iris", Task.CLASSIFICATION, Kind.VECTOR, (4,), 3)

EVERYTHING = {"dropout": 0.5, "variational": True, "zoneout": 0.2, "zoneout_cell": 0.3, "norm": "layer"}


def made(spec, seed=0, **options):
    torch.manual_seed(seed)
    return lstm(spec, **{"hidden": 5, "embedding": 4, **options})


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def tokens(*shape, low=1):
    return torch.randint(low, 8, shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("cell", "gates"), [("rnn", 1), ("gru", 3), ("lstm", 4)])
def test_parameters_are_the_closed_form(cell, gates):
    # Per layer: gates · H · (F + H + 2 biases); then the output.
    model = made(ROWS, cell=cell, hidden=128, layers=2)
    assert parameters(model) == gates * 128 * (8 + 128 + 2) + gates * 128 * (128 + 128 + 2) + 10 * 129


def test_the_default_is_torchs_lstm_and_a_linear_output():
    model = made(ROWS, layers=2)
    theirs = nn.LSTM(8, 5, 2, batch_first=True)
    theirs.load_state_dict(model.rnn.rnn.state_dict())
    images = torch.randn(3, 1, 8, 8)
    expected = F.linear(theirs(images[:, 0])[0][:, -1], model.output.weight, model.output.bias)
    torch.testing.assert_close(model(images), expected)


@pytest.mark.parametrize("readout", ["last", "mean", "max"])
def test_both_directions_are_read_out(readout):
    model = made(SERIES, bidirectional=True, readout=readout)
    x = torch.randn(3, 7, 2)
    outputs = model.rnn(x)[0]
    last = torch.cat([outputs[:, -1, :5], outputs[:, 0, 5:]], 1)
    vector = {"last": last, "mean": outputs.mean(1), "max": outputs.amax(1)}[readout]
    assert model(x).shape == (3, 3)
    torch.testing.assert_close(model(x), model.output(vector))


@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"bidirectional": True, **EVERYTHING}])
@pytest.mark.parametrize("readout", ["last", "mean", "max"])
def test_padding_has_no_influence(options, readout):
    model = made(WORDS, layers=2, readout=readout, **options).eval()
    lengths = torch.tensor([3, 6, 1])
    batch = tokens(3, 6) * (torch.arange(6) < lengths[:, None])
    together = model(F.pad(batch, (0, 2)))
    for i, length in enumerate(lengths):
        torch.testing.assert_close(together[i], model(batch[i : i + 1, :length])[0])
    torch.testing.assert_close(model(torch.zeros(1, 4, dtype=torch.long)), model(torch.zeros(1, 1, dtype=torch.long)))


def test_the_embedding_of_padding_never_learns():
    model = made(WORDS)
    model(torch.tensor([[3, 0, 0], [4, 5, 6]])).sum().backward()
    gradient = model.reader.embed.weight.grad
    assert gradient[0].abs().max() == 0 < gradient[3].abs().max()


@pytest.mark.parametrize("options", [{}, {"truncate": 2}, EVERYTHING])
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_a_language_model_is_causal_and_goes_step_by_step(cell, options):
    if cell != "lstm":
        options = {**options, "zoneout_cell": 0.0}
    model = made(TEXT, cell=cell, layers=2, **options).eval()
    text = tokens(2, 6)
    logits = model(text)
    assert logits.shape == (2, 6, 8)
    changed = text.clone()
    changed[:, 4] = (text[:, 4] + 1) % 8
    difference = (model(changed) - logits).abs().amax((0, 2))
    assert difference[:4].max() == 0 < difference[4:].min()
    state, parts = None, []
    for part in text.split([1, 3, 1, 1], dim=1):
        output, state = model.step(part, state)
        parts.append(output)
    torch.testing.assert_close(torch.cat(parts, 1), logits)


@pytest.mark.parametrize("options", [{}, {"norm": "layer"}])
def test_the_state_is_carried_from_batch_to_batch_and_gradients_are_not(options):
    model = made(TEXT, carry=True, layers=2, **options)
    text = tokens(3, 12)
    whole = model.eval()(text)
    model.train()
    first, second = model(text[:, :6]), model(text[:, 6:])
    torch.testing.assert_close(torch.cat([first, second], 1), whole)
    second.sum().backward()
    seen = model.reader.embed.weight.grad.abs().amax(1) > 0
    assert set(seen.nonzero().flatten().tolist()) == set(text[:, 6:].flatten().tolist())


def test_the_carried_state_begins_anew_for_another_batch_size_and_evaluation_leaves_it_alone():
    model = made(TEXT, carry=True)
    text = tokens(3, 6)
    fresh = model(text)
    continued = copy.deepcopy(model)(text.clone())
    assert not torch.allclose(continued, fresh)
    torch.testing.assert_close(model.eval()(text), fresh)
    torch.testing.assert_close(model.train()(text.clone()), continued)
    torch.testing.assert_close(model(text[:2]), fresh[:2])
    torch.testing.assert_close(model(text.clone()), fresh)


def test_a_text_that_begins_again_is_not_read_on_from_its_end():
    model = made(TEXT, carry=True)
    text = tokens(3, 6)
    fresh = model(text)
    for module in model.modules():
        if hasattr(module, "begin_epoch"):
            module.begin_epoch()
    torch.testing.assert_close(model(text.clone()), fresh)


def test_a_batch_seen_twice_continues_from_the_same_state():
    """As by SAM, which takes the gradients of a batch a second time elsewhere."""
    model = made(TEXT, carry=True)
    first, second = tokens(3, 12).split(6, dim=1)
    model(first)
    expected = model(second)
    torch.testing.assert_close(model(second), expected, rtol=0, atol=0)
    assert not torch.allclose(model(second.clone()), expected)


def test_the_carried_state_survives_a_checkpoint():
    model, other = made(TEXT, carry=True), made(TEXT, carry=True, seed=1)
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other(tokens(3, 6)), model(tokens(3, 6)), rtol=0, atol=0)
    file = io.BytesIO()
    torch.save(copy.deepcopy(model.state_dict()), file)
    file.seek(0)
    again = made(TEXT, carry=True, seed=2)
    again.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(again(tokens(3, 6)), model(tokens(3, 6)))


def test_tied_weights_are_one_parameter_and_start_near_the_uniform_distribution():
    model = made(TEXT, embedding=5, tie_weights=True)
    assert parameters(model) == 8 * 5 + 8 + 4 * 5 * (5 + 5 + 2)
    assert model.reader.embed.weight is model.output.weight
    loss = F.cross_entropy(model(tokens(4, 6)).flatten(0, 1), tokens(4, 6).flatten())
    assert loss.item() == pytest.approx(torch.tensor(8.0).log().item(), abs=0.3)


def test_dropout_is_of_embedded_tokens_between_layers_and_before_the_output():
    model = made(WORDS, hidden=50, embedding=50, layers=2, dropout=0.4)
    assert model.rnn.drop.p == model.drop.p == model.reader.drop.p == 0.4
    batch = tokens(2, 6)
    assert not torch.equal(model(batch), model(batch))
    model.eval()
    torch.testing.assert_close(model(batch), model(batch), rtol=0, atol=0)


def test_every_parameter_of_every_option_learns():
    model = made(WORDS, layers=2, bidirectional=True, **EVERYTHING)
    model(tokens(3, 6)).square().sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in model.parameters())


@pytest.mark.parametrize(
    ("spec", "options", "error", "words"),
    [
        (TABLE, {}, ContractError, r"model=lstm reads .* but data=iris gives vectors of shape \(4,\)"),
        (PAIRS, {}, ContractError, "data=pairs is to turn one into another: choose model=seq2seq"),
        (TEXT, {"bidirectional": True}, ContractError, "model.bidirectional=true .* data=text .* which it would see"),
        (WORDS, {"carry": True}, ContractError, "model.carry=true .* data=words is classification"),
        (ROWS, {"tie_weights": True}, ContractError, "model.tie_weights=true .* choose model.tie_weights=false"),
        (TEXT, {"tie_weights": True}, ConfigError, "model.embedding must be equal to model.hidden"),
        (WORDS, {"truncate": 3, "bidirectional": True}, ConfigError, "choose model.truncate=null"),
        (WORDS, {"cell": "gru", "zoneout_cell": 0.1}, ConfigError, "model.cell=gru does not have: use model.zoneout"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_sentence(spec, options, error, words):
    with pytest.raises(error, match=words):
        made(spec, **options)
