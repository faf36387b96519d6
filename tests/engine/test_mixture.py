"""Mean predictions and their disagreement against sums written out; temperature; dropout that acts alone."""

import dataclasses
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dlrun.contracts import IGNORED, DataSpec, Kind, Task
from dlrun.engine.calibration import HOTTEST, fit_temperature
from dlrun.engine.dropout import dropout_active
from dlrun.engine.mixture import Mixture
from dlrun.engine.units import own_units, standardised


def spec(task, outputs, **more):
    return DataSpec("some", task, Kind.VECTOR, (4,), outputs, **more)


def test_classes_are_mixed_by_probability():
    torch.manual_seed(0)
    members = list(torch.randn(3, 6, 4))
    mixture = Mixture([spec(Task.CLASSIFICATION, 4)] * 3)
    mixed = torch.cat([mixture([m[a:b] for m in members], torch.zeros(b - a)) for a, b in ((0, 4), (4, 6))])
    p = torch.stack([m.softmax(-1) for m in members])
    assert torch.allclose(mixed.exp(), p.mean(0), atol=1e-6)
    assert torch.allclose(F.log_softmax(mixed, -1), mixed, atol=1e-6)
    entropy = -(p.mean(0) * p.mean(0).log()).sum(-1).mean()
    expected = -(p * p.log()).sum(-1).mean()
    values = mixture.result()
    assert values["entropy"] == pytest.approx(entropy.item(), rel=1e-5)
    assert values["mutual_information"] == pytest.approx((entropy - expected).item(), rel=1e-4)


def test_members_that_agree_have_no_mutual_information_and_sure_ones_that_do_not_have_all_of_it():
    mixture = Mixture([spec(Task.CLASSIFICATION, 2)] * 2)
    same = torch.tensor([[3.0, 1.0]])
    mixture([same, same], torch.zeros(1))
    assert mixture.result()["mutual_information"] == pytest.approx(0, abs=1e-6)
    mixture = Mixture([spec(Task.CLASSIFICATION, 2)] * 2)
    mixture([torch.tensor([[500.0, -500.0]]), torch.tensor([[-500.0, 500.0]])], torch.zeros(1))
    assert mixture.result() == {name: pytest.approx(math.log(2)) for name in ("entropy", "mutual_information")}


def test_ignored_tokens_do_not_disagree():
    torch.manual_seed(0)
    members, targets = list(torch.randn(2, 1, 3, 5)), torch.tensor([[1, 4, IGNORED]])
    all_three, two = (Mixture([spec(Task.LANGUAGE_MODELLING, 5)] * 2) for _ in range(2))
    all_three(members, targets)
    two([m[:, :2] for m in members], targets[:, :2])
    assert all_three.result() == pytest.approx(two.result())


def test_labels_are_mixed_by_probability():
    members = list(torch.randn(2, 6, 3))
    mixed = Mixture([spec(Task.MULTILABEL, 3)] * 2)(members, torch.zeros(6))
    assert torch.allclose(mixed.sigmoid(), torch.stack(members).sigmoid().mean(0), atol=1e-6)


def test_numbers_are_mixed_in_their_own_units():
    one = spec(Task.REGRESSION, 1, target_mean=(10.0,), target_std=(2.0,))
    other = dataclasses.replace(one, target_mean=(11.0,), target_std=(4.0,))
    mixture = Mixture([one, other])
    mixed = mixture([torch.tensor([[1.0]]), torch.tensor([[1.0]])], torch.zeros(1, 1))  # 12 and 15
    assert own_units(mixed, one).item() == pytest.approx(13.5)
    assert mixture.result() == {"spread": pytest.approx(1.5)}


def test_units_of_a_forecast_are_those_of_its_columns_time_first():
    series = spec(Task.FORECASTING, 6, target_mean=(1.0, 2.0), target_std=(10.0, 20.0))
    values = own_units(torch.ones(1, 6), series)
    assert values.tolist() == [[11.0, 22.0] * 3]
    assert torch.equal(standardised(values, series), torch.ones(1, 6))
    assert torch.equal(own_units(torch.ones(1, 6), spec(Task.FORECASTING, 6)), torch.ones(1, 6))


def test_the_temperature_that_was_put_in_is_found():
    torch.manual_seed(0)
    logits = 2 * torch.randn(20_000, 5)
    targets = torch.multinomial(logits.softmax(-1), 1).squeeze(1)
    for temperature in (0.05, 1.0, 20.0):
        assert fit_temperature(temperature * logits, targets) == pytest.approx(temperature, rel=0.05)


def test_the_fitted_temperature_has_the_least_loss():
    torch.manual_seed(0)
    logits, targets = torch.randn(200, 4), torch.randint(0, 4, (200,))
    logits[torch.arange(200), targets] += 1
    best = fit_temperature(logits, targets)
    losses = [F.cross_entropy(logits.double() / t, targets).item() for t in (best, 0.999 * best, 1.001 * best)]
    assert losses[0] < min(losses[1:])


def test_a_temperature_without_a_best_is_a_limit():
    logits = torch.eye(3) * 4
    assert fit_temperature(logits, torch.arange(3)) == pytest.approx(1 / HOTTEST)
    assert fit_temperature(logits, torch.tensor([1, 2, 0])) == pytest.approx(HOTTEST)


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.dropout = 0.5


def test_only_what_drops_something_is_switched():
    rnn, still = nn.LSTM(3, 3, 2, dropout=0.4), nn.LSTM(3, 3)
    model = nn.Sequential(
        nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Dropout(0.0), rnn, still, Own()
    ).eval()
    with dropout_active(model) as count:
        assert count == 3
        assert [module.training for module in model] == [False, False, True, False, True, False, True]
    assert not any(module.training for module in model.modules())
    with dropout_active(nn.Sequential(nn.Linear(2, 2)).eval()) as count:
        assert count == 0


def test_dropout_acts_within():
    model = nn.Sequential(nn.Dropout(0.5)).eval()
    x = torch.ones(1000)
    with dropout_active(model):
        assert set(model(x).tolist()) == {0.0, 2.0}
    assert torch.equal(model(x), x)


def test_dropout_acts_in_torchs_fused_layers_too():
    model = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.5, batch_first=True).eval()
    x = torch.randn(2, 3, 8)
    with torch.inference_mode():
        with dropout_active(model) as count:
            assert count == 4
            assert not torch.equal(model(x), model(x))
        assert torch.equal(model(x), model(x))
    assert torch.backends.mha.get_fastpath_enabled()
