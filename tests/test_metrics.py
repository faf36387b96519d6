"""Metrics over ragged batches against torchmetrics and scikit-learn over all examples at once."""

import pytest
import sklearn.metrics
import torch

from dlrun import metrics
from dlrun.contracts import DataSpec, Kind, Task


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
    targets[::3, 4:] = -100
    (metric,) = metrics.for_task(spec(Task.LANGUAGE_MODELLING, 5))
    oracle = torchmetrics.classification.MulticlassAccuracy(5, average="micro", ignore_index=-100)
    expected = oracle(outputs.reshape(-1, 5), targets.reshape(-1)).item()
    assert over_batches(metric, outputs, targets) == {"accuracy": pytest.approx(expected)}


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
        "r2": pytest.approx(sklearn.metrics.r2_score(true, predicted)),
    }


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
