"""Metrics over ragged batches against torchmetrics and scikit-learn over all examples at once."""

import math

import pytest
import sklearn.metrics
import torch
from torch import nn
from torch.nn import functional as F

from dlrun import metrics
from dlrun.contracts import BOS_ID, EOS_ID, IGNORED, DataSpec, Kind, Task, Vocabulary
from dlrun.generation import translate
from dlrun.metrics.errors import Errors


def spec(task, num_outputs, **more):
    return DataSpec("some", task, Kind.VECTOR, (4,), num_outputs, **more)


def over_batches(metric, outputs, targets, size=7):
    metric.reset(torch.device("cpu"))
    for x, y in zip(outputs.split(size), targets.split(size), strict=True):
        metric.update(x, y)
    return metric.compute()


def test_accuracy_is_sklearns():
    torch.manual_seed(0)
    outputs, targets = torch.randn(50, 4), torch.randint(0, 4, (50,))
    (metric,) = metrics.for_task(spec(Task.CLASSIFICATION, 4))
    expected = sklearn.metrics.accuracy_score(targets, outputs.argmax(1))
    assert over_batches(metric, outputs, targets) == {"accuracy": expected}
    soft = torch.nn.functional.one_hot(targets, 4) * 0.6 + 0.1
    assert over_batches(metric, outputs, soft) == {"accuracy": expected}


def test_token_accuracy_skips_ignored_tokens():
    torchmetrics = pytest.importorskip("torchmetrics")
    torch.manual_seed(0)
    outputs, targets = torch.randn(20, 6, 5), torch.randint(0, 5, (20, 6))
    targets[::3, 4:] = IGNORED
    oracle = torchmetrics.classification.MulticlassAccuracy(5, average="micro", ignore_index=IGNORED)
    expected = oracle(outputs.reshape(-1, 5), targets.reshape(-1)).item()
    for task in (Task.LANGUAGE_MODELLING, Task.SEQUENCE_TO_SEQUENCE):
        (metric,) = metrics.for_task(spec(task, 5))
        assert over_batches(metric, outputs, targets)["token_accuracy"] == pytest.approx(expected)


def test_perplexity_is_torchmetrics_and_weighs_tokens_not_batches():
    torchmetrics = pytest.importorskip("torchmetrics")
    torch.manual_seed(0)
    outputs, targets = 2 * torch.randn(20, 6, 5), torch.randint(0, 5, (20, 6))
    targets[:9, 1:] = IGNORED
    (metric,) = metrics.for_task(spec(Task.LANGUAGE_MODELLING, 5))
    values = over_batches(metric, outputs, targets)
    expected = torchmetrics.functional.text.perplexity(outputs, targets, ignore_index=IGNORED)
    assert values["perplexity"] == pytest.approx(expected.item())
    assert values["bits_per_token"] == pytest.approx(math.log2(expected.item()))


def test_perplexity_of_knowing_nothing_is_the_number_of_tokens():
    (metric,) = metrics.for_task(spec(Task.LANGUAGE_MODELLING, 5000))
    values = over_batches(metric, torch.zeros(4, 3, 5000), torch.randint(0, 5000, (4, 3)))
    assert values["perplexity"] == pytest.approx(5000)
    assert values["bits_per_token"] * math.log(2) == pytest.approx(8.517, abs=1e-3)


def test_perplexity_of_the_impossible_is_infinite():
    outputs = torch.tensor([[[0.0, 1e4]]])
    (metric,) = metrics.for_task(spec(Task.LANGUAGE_MODELLING, 2))
    assert over_batches(metric, outputs, torch.tensor([[0]]))["perplexity"] == math.inf


@pytest.mark.parametrize(("level", "name"), [("char", "bits_per_character"), ("word", "bits_per_word")])
def test_bits_are_named_after_what_a_token_is(level, name):
    (metric,) = metrics.for_task(spec(Task.LANGUAGE_MODELLING, 2, vocabulary=Vocabulary(("a", "b"), level)))
    assert tuple(metric.names) == ("token_accuracy", "perplexity", name)


class Babbler(nn.Module):
    """A causal decoder that answers at random: its logits after a prefix depend on the source and the prefix alone."""

    def forward(self, source, shifted):
        def logits(prefix):
            generator = torch.Generator().manual_seed(hash(tuple(prefix)) % 2**31)
            return torch.randn(5, generator=generator)

        rows = zip(source.tolist(), shifted.tolist(), strict=True)
        return torch.stack([torch.stack([logits([*s, *t[: i + 1]]) for i in range(len(t))]) for s, t in rows])


def test_exact_match_under_teacher_forcing_is_that_of_greedy_decoding():
    model, length = Babbler(), 4
    source = torch.arange(60).view(30, 2)
    said = translate(model, source, max_tokens=length)
    targets = torch.full((30, length), IGNORED)
    shifted = torch.zeros(30, length, dtype=torch.long)
    for row, tokens in enumerate(said.tolist()):
        answer = tokens[: tokens.index(EOS_ID) + 1] if EOS_ID in tokens else tokens
        if row % 3 == 0:  # another target than what the model says
            answer[row % len(answer)] = (answer[row % len(answer)] + 1) % 5
        if row % 3 == 1 and EOS_ID in answer:  # one that goes on longer
            answer = [*answer[:-1], 4, EOS_ID][:length]
        targets[row, : len(answer)] = torch.tensor(answer)
        shifted[row, : len(answer)] = torch.tensor([BOS_ID, *answer[:-1]])
    (metric,) = metrics.for_task(spec(Task.SEQUENCE_TO_SEQUENCE, 5))
    forced = over_batches(metric, model(source, shifted), targets)["exact_match"]
    decoded = [
        all(t in (IGNORED, s) for s, t in zip(one, other, strict=True))
        for one, other in zip(said.tolist(), targets.tolist(), strict=True)
    ]
    assert 0.2 < forced < 0.9
    assert forced == sum(decoded) / len(decoded)


def test_label_metrics_are_sklearns():
    torch.manual_seed(0)
    outputs, targets = torch.randn(50, 6), (torch.rand(50, 6) < 0.3).float()
    (metric,) = metrics.for_task(spec(Task.MULTILABEL, 6))
    predicted = outputs > 0
    assert over_batches(metric, outputs, targets) == {
        "accuracy": pytest.approx(1 - sklearn.metrics.hamming_loss(targets, predicted)),
        "f1": pytest.approx(sklearn.metrics.f1_score(targets, predicted, average="micro")),
    }


@pytest.mark.parametrize("outputs_count", [1, 3])
def test_regression_metrics_are_sklearns_in_the_targets_own_units(outputs_count):
    torch.manual_seed(0)
    mean, std = (100.0, -2.0, 0.0)[:outputs_count], (25.0, 0.5, 1.0)[:outputs_count]
    targets = torch.randn(50, outputs_count) + 0.3
    outputs = targets + 0.4 * torch.randn(50, outputs_count)
    (metric,) = metrics.for_task(spec(Task.REGRESSION, outputs_count, target_mean=mean, target_std=std))
    true = (targets.double() * torch.tensor(std) + torch.tensor(mean)).numpy()
    predicted = (outputs.double() * torch.tensor(std) + torch.tensor(mean)).numpy()
    assert over_batches(metric, outputs, targets) == {
        "mae": pytest.approx(sklearn.metrics.mean_absolute_error(true, predicted)),
        "rmse": pytest.approx(sklearn.metrics.root_mean_squared_error(true, predicted)),
        "mape": pytest.approx(100 * sklearn.metrics.mean_absolute_percentage_error(true, predicted)),
        "smape": pytest.approx((200 * abs(predicted - true) / (abs(predicted) + abs(true))).mean()),
        "r2": pytest.approx(sklearn.metrics.r2_score(true, predicted)),
    }


def column(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


def test_known_percentage_errors():
    days, a, b = column(0, 100, 200), column(5, 90, 210), column(0, 120, 190)
    metric = Errors((1.0,), relative=True)
    assert over_batches(metric, a, days)["smape"] == pytest.approx(71.80, abs=0.005)
    assert over_batches(metric, b, days)["smape"] == pytest.approx(11.66, abs=0.005)
    sales, forecast = column(100, 200, 0, 50, 5), column(110, 190, 10, 55, 4)
    assert over_batches(metric, forecast, sales)["mape"] == pytest.approx(11.25)  # the day of 0 left out
    assert math.isnan(over_batches(metric, days, 0 * days)["mape"])
    assert over_batches(metric, column(2.5e-9), column(2e-9))["mape"] == pytest.approx(25)  # small is not zero


def test_known_mean_squared_error_and_r2():
    metric = Errors((1.0,))
    assert over_batches(metric, column(2.5, 0.0, 2.1), column(3.0, -0.5, 2.0))["rmse"] ** 2 == pytest.approx(0.17)
    values = over_batches(metric, column(3.0, -0.1, 2.0, 1.7), column(2.5, 0.0, 2.1, 1.8))
    assert values["r2"] == pytest.approx(0.9235, abs=5e-5)


def test_a_zero_that_was_standardised_is_still_a_zero():
    days, forecast, mean, std = column(0, 100, 200), column(5, 90, 210), 70.1, 81.3
    metric = Errors((std,), (mean,), relative=True)
    values = over_batches(metric, ((forecast - mean) / std).float(), ((days - mean) / std).float())
    assert values["smape"] == pytest.approx(71.80, abs=0.005)
    assert values["mape"] == pytest.approx(100 * (10 / 100 + 10 / 200) / 2, rel=1e-5)


def test_r2_keeps_its_digits_far_from_zero():
    torch.manual_seed(0)
    targets = torch.randn(1000, 1, dtype=torch.float64) + 1e4
    outputs = targets + 0.5 * torch.randn(1000, 1, dtype=torch.float64)
    (metric,) = metrics.for_task(spec(Task.REGRESSION, 1))
    expected = sklearn.metrics.r2_score(targets, outputs)
    assert over_batches(metric, outputs, targets, 64)["r2"] == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("error", [0.0, 0.1])
def test_r2_of_a_constant_target_is_sklearns(error):
    targets = torch.full((9, 1), 0.1)
    (metric,) = metrics.for_task(spec(Task.REGRESSION, 1))
    value = over_batches(metric, targets + error, targets)["r2"]
    assert value == sklearn.metrics.r2_score(targets, targets + error) == float(error == 0)


def test_forecasts_of_any_shape_count_every_number():
    torch.manual_seed(0)
    outputs, targets = torch.randn(2, 12, 5, 3)
    (metric,) = metrics.for_task(spec(Task.FORECASTING, 15, target_std=(2.0,)))
    result = over_batches(metric, outputs, targets)
    assert result["mae"] == pytest.approx(2 * (outputs - targets).abs().mean().item())
    assert result["rmse"] == pytest.approx(2 * (outputs - targets).square().mean().sqrt().item())


def test_the_perplexity_of_a_half_precision_model_is_summed_in_full():
    torch.manual_seed(0)
    outputs, targets = torch.randn(4, 6, 50).bfloat16(), torch.randint(0, 50, (4, 6))
    (metric,) = metrics.for_task(spec(Task.LANGUAGE_MODELLING, 50))
    expected = F.cross_entropy(outputs.float().reshape(-1, 50), targets.reshape(-1)).exp().item()
    assert over_batches(metric, outputs, targets, 1)["perplexity"] == pytest.approx(expected)


def test_reset_forgets_and_nothing_seen_is_no_error():
    for task in Task:
        for metric in metrics.for_task(spec(task, 3)):
            metric.reset(torch.device("cpu"))
            before = metric.compute()
            assert tuple(before) == tuple(metric.names) == tuple(metric.higher_is_better)
            metric.totals += 1
            metric.reset(torch.device("cpu"))
            assert str(metric.compute()) == str(before)


def test_outputs_that_need_gradients_leave_no_graph_behind():
    outputs = torch.randn(8, 3, requires_grad=True)
    for task, targets in (
        (Task.CLASSIFICATION, torch.zeros(8, dtype=torch.int64)),
        (Task.REGRESSION, torch.zeros(8, 3)),
    ):
        for metric in metrics.for_task(spec(task, 3)):
            over_batches(metric, outputs, targets)
            assert not metric.totals.requires_grad


def test_training_leaves_percentages_out():
    (metric,) = metrics.for_task(spec(Task.REGRESSION, 3), training=True)
    assert tuple(metric.names) == ("mae", "rmse", "r2")
    assert set(over_batches(metric, *torch.randn(2, 8, 3))) == set(metric.names)


def test_totals_of_two_processes_add_up():
    torch.manual_seed(0)
    outputs, targets = torch.randn(2, 20, 2)
    whole, half, other = (metrics.for_task(spec(Task.REGRESSION, 2))[0] for _ in range(3))
    expected = over_batches(whole, outputs, targets)
    over_batches(half, outputs[:11], targets[:11])
    over_batches(other, outputs[11:], targets[11:])
    half.totals += other.totals
    assert half.compute() == pytest.approx(expected)


def test_update_never_reads_a_value_from_the_device(monkeypatch):
    def refuse(*_):
        raise AssertionError("a host read")

    outputs = torch.randn(8, 3)
    targets = {
        Task.CLASSIFICATION: torch.zeros(8, dtype=torch.int64),
        Task.MULTILABEL: torch.zeros(8, 3),
        Task.REGRESSION: torch.zeros(8, 3),
        Task.LANGUAGE_MODELLING: torch.zeros(8, dtype=torch.int64),
        Task.SEQUENCE_TO_SEQUENCE: torch.zeros(8, dtype=torch.int64),
        Task.FORECASTING: torch.zeros(8, 3),
    }
    for name in ("item", "tolist", "__bool__", "__float__", "__int__", "nonzero"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    for task, target in targets.items():
        for metric in metrics.for_task(spec(task, 3)):
            metric.reset(torch.device("cpu"))
            metric.update(outputs, target)


def test_each_monitored_metric_exists():
    assert set(metrics.MONITOR) == set(Task)
    for task, name in metrics.MONITOR.items():
        assert name == "loss" or any(name in metric.names for metric in metrics.for_task(spec(task, 3)))
