"""Recurrent layers against torch.nn's own, and against the papers' equations written out slowly."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from dlrun.layers.recurrent import MODULES, Recurrent, initialise
from dlrun.layers.recurrent_stepped import SteppedRecurrent, zoneout

CELLS = ["rnn", "gru", "lstm"]
KINDS = [Recurrent, SteppedRecurrent]
PLAIN = {"forget_bias": None, "recurrent_init": "uniform"}


def stepped(cell, features, hidden, layers=1, **options):
    torch.manual_seed(0)
    return SteppedRecurrent(cell, features, hidden, layers, **options).double()


def numbers(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def state_for(cell, batch, rows, hidden):
    return tuple(numbers(batch, rows, hidden) for _ in range(2 if cell == "lstm" else 1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_with_torchs_weights_it_is_torchs_module(kind, cell, bidirectional):
    theirs = MODULES[cell](3, 4, 2, batch_first=True, bidirectional=bidirectional).double()
    ours = kind(cell, 3, 4, 2, bidirectional=bidirectional).double()
    ours.rnn.load_state_dict(theirs.state_dict())
    x, state = numbers(5, 6, 3), state_for(cell, 5, 4 if bidirectional else 2, 4)
    given = tuple(part.transpose(0, 1).contiguous() for part in state)
    expected, after = theirs(x, given if cell == "lstm" else given[0])
    outputs, ours_after = ours(x, state)
    torch.testing.assert_close(outputs, expected)
    for part, their_part in zip(ours_after, after if cell == "lstm" else (after,), strict=True):
        torch.testing.assert_close(part.transpose(0, 1), their_part)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_dropout_between_layers_is_torchs_and_draws_from_the_generator_that_is_saved(cell, bidirectional, padded):
    torch.manual_seed(0)
    theirs = MODULES[cell](3, 4, 3, batch_first=True, bidirectional=bidirectional, dropout=0.5).double()
    torch.manual_seed(0)
    ours = Recurrent(cell, 3, 4, 3, bidirectional=bidirectional, dropout=0.5, **PLAIN).double()
    torch.testing.assert_close(list(ours.parameters()), list(theirs.parameters()), rtol=0, atol=0)
    assert not any(module.dropout for module in ours.modules() if isinstance(module, nn.RNNBase))

    x, lengths = numbers(5, 6, 3), torch.tensor([6, 2, 6, 5, 1]) if padded else None
    state = state_for(cell, 5, 6 if bidirectional else 3, 4)
    given = tuple(part.transpose(0, 1).contiguous() for part in state)
    batch = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False) if padded else x
    torch.manual_seed(1)
    expected, after = theirs(batch, given if cell == "lstm" else given[0])
    expected = pad_packed_sequence(expected, batch_first=True)[0] if padded else expected
    torch.manual_seed(1)
    outputs, ours_after = ours(x, state, lengths)
    torch.testing.assert_close(outputs, expected, rtol=0, atol=0)
    for part, their_part in zip(ours_after, after if cell == "lstm" else (after,), strict=True):
        torch.testing.assert_close(part.transpose(0, 1), their_part, rtol=0, atol=0)
    assert not torch.equal(ours(x, state, lengths)[0], outputs)  # another mask
    torch.testing.assert_close(ours.eval()(x)[0], theirs.eval()(x)[0])


@pytest.mark.parametrize("cell", CELLS)
def test_hand_written_cells_equal_torchs_in_float32(cell):
    torch.manual_seed(0)
    theirs, ours = Recurrent(cell, 8, 16, 2), SteppedRecurrent(cell, 8, 16, 2)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(4, 20, 8)
    torch.testing.assert_close(ours(x)[0], theirs(x)[0], atol=1e-6, rtol=0)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("norm", [False, True])
def test_gradients_of_hand_written_cells(cell, norm):
    rnn = stepped(cell, 2, 3, norm=norm, bidirectional=True, zoneout=0.3, zoneout_cell=0.2).eval()
    names, weights = zip(*rnn.named_parameters(), strict=True)

    def results(x, *values):
        arguments = (x, None, torch.tensor([2, 3]))
        outputs, state = torch.func.functional_call(rnn, dict(zip(names, values, strict=True)), arguments)
        return outputs, *state

    assert torch.autograd.gradcheck(results, (numbers(2, 3, 2).requires_grad_(), *weights), fast_mode=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_padded_sequences_are_as_each_alone(kind, cell, bidirectional):
    torch.manual_seed(0)
    rnn = kind(cell, 3, 4, 2, bidirectional=bidirectional).double()
    x, lengths = numbers(4, 6, 3), torch.tensor([3, 6, 1, 4])
    outputs, state = rnn(x, None, lengths)
    for i, length in enumerate(lengths):
        alone, last = rnn(x[i : i + 1, :length])
        torch.testing.assert_close(outputs[i, :length], alone[0])
        for part, expected in zip(state, last, strict=True):
            torch.testing.assert_close(part[i], expected[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cell", CELLS)
def test_step_by_step_is_all_at_once(kind, cell):
    torch.manual_seed(0)
    rnn = kind(cell, 3, 4, 2).double()
    x = numbers(2, 5, 3)
    expected, last = rnn(x)
    state, outputs = None, []
    for part in x.split([1, 2, 1, 1], dim=1):
        output, state = rnn(part, state)
        outputs.append(output)
    torch.testing.assert_close(torch.cat(outputs, 1), expected)
    torch.testing.assert_close(state, last)


@pytest.mark.parametrize("cell", CELLS)
def test_truncation_stops_gradients_and_changes_no_output(cell):
    torch.manual_seed(0)
    whole, cut = Recurrent(cell, 3, 4, 2).double(), Recurrent(cell, 3, 4, 2, truncate=3).double()
    by_hand = SteppedRecurrent(cell, 3, 4, 2, truncate=3).double()
    for rnn in (cut, by_hand):
        rnn.load_state_dict(whole.state_dict())
    gradients = []
    for rnn in (whole, cut, by_hand):
        x = numbers(2, 8, 3).requires_grad_()
        outputs, _ = rnn(x)
        torch.testing.assert_close(outputs, whole(x)[0])
        outputs[:, 7].sum().backward()
        gradients.append(x.grad)
    assert gradients[0][:, 0].abs().min() > 0
    for gradient in gradients[1:]:
        assert gradient[:, :6].abs().max() == 0 < gradient[:, 6:].abs().min()
    torch.testing.assert_close(gradients[1], gradients[2])
    weights = [[p.grad for p in rnn.parameters()] for rnn in (cut, by_hand)]
    torch.testing.assert_close(*weights)


def test_forget_gates_start_at_exactly_the_bias():
    rnn = Recurrent("lstm", 3, 4, 2, bidirectional=True, forget_bias=1.0).rnn
    for _, _, bias_x, bias_h in rnn.all_weights:
        assert torch.equal((bias_x + bias_h)[4:8], torch.ones(4))
        assert (bias_x + bias_h)[:4].abs().max() < 1


@pytest.mark.parametrize(("cell", "gates"), [("rnn", 1), ("gru", 3), ("lstm", 4)])
def test_recurrent_matrices_are_orthogonal_gate_by_gate(cell, gates):
    rnn = Recurrent(cell, 3, 5, 2).rnn
    for weight in (rnn.weight_hh_l0, rnn.weight_hh_l1):
        for gate in weight.view(gates, 5, 5):
            torch.testing.assert_close(gate @ gate.T, torch.eye(5), atol=1e-6, rtol=0)


@pytest.mark.parametrize("cell", CELLS)
def test_torchs_initialisation_can_be_kept(cell):
    rnn = MODULES[cell](3, 4)
    before = [p.clone() for p in rnn.parameters()]
    initialise(rnn, None, "uniform")
    torch.testing.assert_close(list(rnn.parameters()), before, rtol=0, atol=0)


def test_zoneout_keeps_the_share_p_and_evaluation_is_its_mean():
    torch.manual_seed(0)
    new, old = torch.ones(100_000), torch.zeros(100_000)
    drawn = zoneout(new, old, 0.3, training=True)
    assert set(drawn.tolist()) == {0.0, 1.0}
    assert drawn.mean() == pytest.approx(0.7, abs=6 * 0.0015)  # six standard deviations
    torch.testing.assert_close(zoneout(new, old, 0.3, training=False), torch.full((100_000,), 0.7))


@pytest.mark.parametrize("cell", CELLS)
def test_zoneout_of_a_step_has_evaluations_mean(cell):
    rnn = stepped(cell, 2, 3, zoneout=0.4)
    x, state = numbers(1, 1, 2).expand(40_000, 1, 2), tuple(s.expand(40_000, 1, 3) for s in state_for(cell, 1, 1, 3))
    trained, _ = rnn.train()(x, state)
    expected, _ = rnn.eval()(x[:1], state and tuple(part[:1] for part in state))
    spread = trained.std(0).clamp(min=1e-3) / 200
    assert ((trained.mean(0) - expected[0]).abs() / spread).max() < 6  # fails by chance once in 10^8


def test_zoneout_of_the_cell_leaves_the_gates_alone():
    """With all of c kept, c never changes, and h' = o · tanh(c') is that of the new c."""
    rnn = stepped("lstm", 2, 3, zoneout_cell=1 - 1e-12).train()
    state = state_for("lstm", 2, 1, 3)
    expected, _ = stepped("lstm", 2, 3)(numbers(2, 1, 2), state)
    outputs, (_, c) = rnn(numbers(2, 1, 2), state)
    torch.testing.assert_close(outputs, expected)
    torch.testing.assert_close(c, state[1])


def layer_norm(values, gain, bias):
    mean = sum(values) / len(values)
    variance = sum((v - mean) ** 2 for v in values) / len(values)
    return torch.stack([(v - mean) / (variance + 1e-5) ** 0.5 for v in values]) * gain + bias


def randomise(rnn):
    for name, parameter in rnn.named_parameters():
        if "norm" in name:
            nn.init.normal_(parameter)


def test_layer_norm_lstm_is_the_papers():
    """Ba et al. 2016, eq. 20 to 22, for one sequence and one number at a time."""
    rnn = stepped("lstm", 2, 3, norm=True)
    randomise(rnn)
    w_x, w_h, b_x, b_h = rnn.rnn.all_weights[0]
    cell, x = rnn.scans[0].cell, numbers(1, 4, 2)
    h = c = torch.zeros(3, dtype=torch.float64)
    outputs, _ = rnn(x)
    for t in range(4):
        gates = layer_norm(w_h @ h, cell.norm_hidden.norms[0].weight, b_h)
        gates = gates + layer_norm(w_x @ x[0, t], cell.norm_inputs.norms[0].weight, b_x)
        i, f, g, o = gates.view(4, 3)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * layer_norm(c, cell.norm_cell.weight, cell.norm_cell.bias).tanh()
        torch.testing.assert_close(outputs[0, t], h)


def test_layer_norm_gru_is_the_papers():
    """Ba et al. 2016, eq. 25 to 27: reset and update together, the new state apart."""
    rnn = stepped("gru", 2, 3, norm=True)
    randomise(rnn)
    w_x, w_h, b_x, b_h = rnn.rnn.all_weights[0]
    cell, x = rnn.scans[0].cell, numbers(1, 4, 2)
    (gx, gx_new), (gh, gh_new) = ([norm.weight for norm in n.norms] for n in (cell.norm_inputs, cell.norm_hidden))
    h = torch.zeros(3, dtype=torch.float64)
    outputs, _ = rnn(x)
    for t in range(4):
        reads, recalls = w_x @ x[0, t], w_h @ h
        r, z = (layer_norm(reads[:6], gx, b_x[:6]) + layer_norm(recalls[:6], gh, b_h[:6])).sigmoid().view(2, 3)
        new = layer_norm(reads[6:], gx_new, b_x[6:]) + r * layer_norm(recalls[6:], gh_new, b_h[6:])
        h = (1 - z) * new.tanh() + z * h
        torch.testing.assert_close(outputs[0, t], h)


def test_the_recurrent_mask_is_one_for_all_time_steps():
    """h' = tanh(mask · h) from h = 1: a unit is zero after the first step or never."""
    rnn = stepped("rnn", 2, 200, dropout=0.5, variational=True)
    w_x, w_h, b_x, b_h = rnn.rnn.all_weights[0]
    with torch.no_grad():
        w_h.copy_(torch.eye(200))
        for parameter in (w_x, b_x, b_h):
            parameter.zero_()
    start = (torch.ones(3, 1, 200, dtype=torch.float64),)
    outputs, _ = rnn.train()(numbers(3, 10, 2), start)
    dropped = outputs == 0
    assert torch.equal(dropped, dropped[:, :1].expand_as(dropped))
    assert not torch.equal(dropped[0], dropped[1])
    assert dropped[:, 0].double().mean() == pytest.approx(0.5, abs=0.12)  # six standard deviations
    kept = outputs[:, 0][~dropped[:, 0]]
    torch.testing.assert_close(kept, torch.full_like(kept, 2.0).tanh())
    assert (rnn.eval()(numbers(3, 10, 2), start)[0] != 0).all()


def test_variational_dropout_between_layers_has_one_mask_too():
    rnn = stepped("rnn", 2, 50, 2, dropout=0.5, variational=True)
    seen = []
    rnn.drop.register_forward_hook(lambda module, inputs, output: seen.append(output))
    rnn.train()(numbers(2, 6, 2))
    assert len(seen) == 1
    dropped = seen[0] == 0
    assert torch.equal(dropped, dropped[:, :1].expand_as(dropped))
    assert 20 < dropped[:, 0].sum() < 80


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cell", CELLS)
def test_it_trains_under_autocast(kind, cell):
    torch.manual_seed(0)
    rnn = kind(cell, 3, 4, 2, bidirectional=True)
    with torch.autocast("cpu", torch.bfloat16):
        x = F.linear(torch.randn(2, 5, 6), torch.randn(3, 6))
        outputs, state = rnn(x, None, torch.tensor([5, 2]))
        again, _ = rnn(x, state)
        (outputs.sum() + again.sum()).backward()
    assert all(p.grad.isfinite().all() for p in rnn.parameters())
    torch.testing.assert_close(outputs[0].float(), rnn(x[:1].float())[0][0], atol=0.05, rtol=0.05)
