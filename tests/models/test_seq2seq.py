"""Encoder and decoder against the papers' equations in plain loops; masks, weights, generation, scheduled sampling."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dlrun.contracts import BOS_ID, DataSpec, Kind, Task
from dlrun.errors import ConfigError, ContractError
from dlrun.layers.alignment import BahdanauAttention, LuongAttention
from dlrun.models.seq2seq import seq2seq

PAIRS = DataSpec(
    "pairs", Task.SEQUENCE_TO_SEQUENCE, Kind.TOKENS, (6,), 9, vocabulary_size=12, padding=0, target_length=5
)
TEXT = DataSpec("text", Task.LANGUAGE_MODELLING, Kind.TOKENS, (6,), 8, vocabulary_size=8)
ATTENTIONS = ["none", "luong", "bahdanau"]


def made(seed=0, **options):
    torch.manual_seed(seed)
    return seq2seq(PAIRS, **{"hidden": 6, "embedding": 4, "layers": 2, **options})


def batch(lengths=(3, 6, 1), target=5):
    generator = torch.Generator().manual_seed(0)
    source = torch.randint(4, 12, (len(lengths), max(lengths)), generator=generator)
    source *= torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    shifted = torch.randint(4, 9, (len(lengths), target), generator=generator)
    shifted[:, 0] = BOS_ID
    return source, shifted


def encoded(model, source):
    """Outputs and last states of torch's layer for one source without padding, both directions of a layer joined."""
    x = model.encoder.embed(source)
    outputs, (h, c) = model.encoder.rnn.rnn(x)
    return outputs[0], *(part.view(2, -1, 1, 3).transpose(1, 2).reshape(2, 1, 6) for part in (h, c))


def softmax(scores):
    exponentials = [score.exp() for score in scores]
    return [e / sum(exponentials) for e in exponentials]


@pytest.mark.parametrize("score", ["dot", "general"])
def test_luong_is_the_papers(score):
    """Luong et al. 2015: a_t = softmax(h_t · W v_s), c_t = Σ a v, logits = W_s tanh(W_c [c_t; h_t])."""
    model = made(score=score)
    source, shifted = batch((6,))
    values, h, c = encoded(model, source)
    logits, weights = model(source, shifted)[0], model.attention_weights(source, shifted)[0]
    key = model.decoder.attention.key.weight if score == "general" else torch.eye(6)
    for t in range(5):
        token = model.decoder.embed(shifted[:, t : t + 1])
        output, (h, c) = model.decoder.rnn.rnn(token, (h, c))
        query = output[0, 0]
        alignment = softmax([query @ key @ v for v in values])
        context = sum(a * v for a, v in zip(alignment, values, strict=True))
        joined = (model.decoder.join.weight @ torch.cat([context, query])).tanh()
        torch.testing.assert_close(torch.stack(alignment), weights[t])
        torch.testing.assert_close(model.decoder.output(joined), logits[t])


def test_bahdanau_is_the_papers():
    """Bahdanau et al. 2014: the state before the step scores a · tanh(W s + U v), and the step reads what it saw."""
    model = made(attention="bahdanau")
    source, shifted = batch((6,))
    values, h, c = encoded(model, source)
    logits, weights = model(source, shifted)[0], model.attention_weights(source, shifted)[0]
    a, w, u = (getattr(model.decoder.attention, name).weight for name in ("score", "query", "key"))
    for t in range(5):
        alignment = softmax([a[0] @ (w @ h[-1, 0] + u @ v).tanh() for v in values])
        context = sum(a * v for a, v in zip(alignment, values, strict=True))
        token = model.decoder.embed(shifted[0, t])
        output, (h, c) = model.decoder.rnn.rnn(torch.cat([token, context])[None, None], (h, c))
        joined = (model.decoder.join.weight @ torch.cat([context, output[0, 0]])).tanh()
        torch.testing.assert_close(torch.stack(alignment), weights[t])
        torch.testing.assert_close(model.decoder.output(joined), logits[t])


def test_without_attention_the_state_is_all_that_is_known():
    model = made(attention="none", bidirectional=False)
    source, shifted = batch((6, 6))
    encoder, decoder = (nn.LSTM(4, 6, 2, batch_first=True) for _ in range(2))
    encoder.load_state_dict(model.encoder.rnn.rnn.state_dict())
    decoder.load_state_dict(model.decoder.rnn.rnn.state_dict())
    _, state = encoder(model.encoder.embed(source))
    outputs, _ = decoder(model.decoder.embed(shifted), state)
    torch.testing.assert_close(model(source, shifted), model.decoder.output(outputs))


def test_parameters_are_the_closed_form():
    # Two embeddings; two directions of half the width; the decoder; W of the score; W_c; the output.
    model = seq2seq(PAIRS, hidden=128, embedding=64)
    encoder, decoder = 2 * 4 * 64 * (64 + 64 + 2), 4 * 128 * (64 + 128 + 2)
    expected = 64 * (12 + 9) + encoder + decoder + 128 * 128 + 256 * 128 + 9 * 129
    assert sum(p.numel() for p in model.parameters()) == expected


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_padding_has_no_influence(cell, attention, bidirectional):
    model = made(cell=cell, attention=attention, bidirectional=bidirectional)
    source, shifted = batch((3, 6, 1))
    together = model(F.pad(source, (0, 2)), shifted)
    for i, length in enumerate((3, 6, 1)):
        torch.testing.assert_close(together[i], model(source[i : i + 1, :length], shifted[i : i + 1])[0])


@pytest.mark.parametrize("attention", ["luong", "bahdanau"])
def test_weights_sum_to_one_and_ignore_padding(attention):
    model = made(attention=attention)
    source, shifted = batch((3, 6, 1))
    weights = model.attention_weights(source, shifted)
    assert weights.shape == (3, 5, 6)
    torch.testing.assert_close(weights.sum(2), torch.ones(3, 5))
    assert weights[0, :, 3:].abs().max() == weights[2, :, 1:].abs().max() == 0
    assert weights[1].min() > 0


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_step_by_step_is_all_at_once_and_causal(cell, attention):
    model = made(cell=cell, attention=attention)
    source, shifted = batch()
    expected = model(source, shifted)
    state, parts = model.begin(source), []
    for part in shifted.split([1, 2, 1, 1], dim=1):
        logits, state = model.step(part, state)
        parts.append(logits)
    torch.testing.assert_close(torch.cat(parts, 1), expected)
    changed = shifted.clone()
    changed[:, 3] = 4 + (shifted[:, 3] - 3) % 5
    difference = (model(source, changed) - expected).abs().amax((0, 2))
    assert difference[:3].max() == 0 < difference[3:].min()


@pytest.mark.parametrize("attention", ["luong", "bahdanau"])
def test_gradients_of_attention(attention):
    torch.manual_seed(0)
    module = (LuongAttention(3, "general") if attention == "luong" else BahdanauAttention(3)).double()
    ignored = torch.tensor([[False, False, True], [False, False, False]])

    def attend(queries, values):
        return module(queries, module.remember(values, ignored))

    shapes = (torch.randn(2, n, 3, dtype=torch.float64, requires_grad=True) for n in (2, 3))
    assert torch.autograd.gradcheck(attend, tuple(shapes), fast_mode=True)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_every_parameter_learns_with_its_own_words_too(attention):
    model = made(attention=attention, dropout=0.2, teacher_forcing=0.5)
    model(*batch()).square().sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_without_teacher_forcing_it_trains_on_what_it_would_say(attention):
    model = made(attention=attention, teacher_forcing=0.0).train()
    source, shifted = batch()
    logits = model(source, shifted)
    tokens, state = shifted[:, :1], model.begin(source)
    for t in range(5):
        expected, state = model.step(tokens, state)
        torch.testing.assert_close(logits[:, t : t + 1], expected)
        tokens = expected.argmax(2)
    torch.testing.assert_close(model.eval()(source, shifted), made(attention=attention)(source, shifted))


def fed(model, source, shifted):
    """What the decoder reads in one training batch, (B, T)."""
    read = []
    hook = model.decoder.register_forward_pre_hook(lambda module, arguments: read.append(arguments[0]))
    model(source, shifted)
    hook.remove()
    return torch.cat(read, 1)


def test_teacher_forcing_falls_linearly_over_the_sampling_steps():
    model = made(attention="none", teacher_forcing=0.2, sampling_steps=4)
    with torch.no_grad():
        model.decoder.output.bias[7] = 100  # what it says itself
    source, shifted = torch.full((400, 2), 5), torch.full((400, 26), 4)
    for expected in (1.0, 0.8, 0.6, 0.4, 0.2, 0.2):
        read = fed(model, source, shifted)
        assert (read[:, 0] == 4).all()
        assert set(read.unique().tolist()) <= {4, 7}
        # Of 10,000 draws, six standard deviations.
        assert (read[:, 1:] == 4).double().mean().item() == pytest.approx(expected, abs=0.03)
    assert model.state_dict()["forwards"] == 6
    again = made(attention="none", teacher_forcing=0.2, sampling_steps=40)
    again.load_state_dict(model.state_dict())
    assert (fed(again, source, shifted)[:, 1:] == 4).double().mean().item() == pytest.approx(1 - 0.8 * 6 / 40, abs=0.03)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_it_trains_under_autocast(attention):
    model = made(attention=attention, teacher_forcing=0.5)
    with torch.autocast("cpu", torch.bfloat16):
        model(*batch()).float().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_what_does_not_fit_is_refused_with_a_sentence():
    with pytest.raises(ContractError, match="the task of data=text is language_modelling: choose another model"):
        seq2seq(TEXT)
    with pytest.raises(ConfigError, match=r"model.hidden must be even .* got 5"):
        made(hidden=5)
    with pytest.raises(ConfigError, match=r"model.attention=none has no weights to look at"):
        made(attention="none").attention_weights(*batch())
