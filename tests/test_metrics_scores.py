"""Scores of a classification against scikit-learn, the textbook's own code, and closed forms."""

import ast
import math
from pathlib import Path

import pytest
import sklearn.metrics
import torch
from torch.nn import functional as F

import dlrun
from dlrun import build
from dlrun.config import schema
from dlrun.contracts import DataSpec, Kind, Task
from dlrun.errors import ConfigError
from dlrun.metrics import SCORES, Scores
from dlrun.metrics.answers import Answers
from dlrun.metrics.calibration import reliability

K = 7


def data(num_classes=K, task=Task.CLASSIFICATION):
    return DataSpec("some", task, Kind.VECTOR, (4,), num_classes)


@pytest.fixture(scope="module")
def sample():
    """Logits that are right about half the time, and targets among which class 6 is missing."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(0, K - 1, (300,), generator=generator)
    outputs = 2 * torch.randn(300, K, generator=generator) + 3 * F.one_hot(targets, K)
    return outputs, targets


@pytest.fixture(scope="module")
def values(sample):
    """All scores, collected in batches of 64, beside p and the answers."""
    metric = build.build_scores(data(), list(SCORES))
    metric.reset(torch.device("cpu"))
    for outputs, targets in zip(sample[0].split(64), sample[1].split(64), strict=True):
        metric.update(outputs, targets)
    return metric.compute()


def test_a_user_can_name_exactly_the_scores_there_are():
    assert schema.Score.__args__ == tuple(SCORES)


def test_precision_recall_and_f1_are_sklearns(sample, values):
    outputs, targets = sample
    for average in ("macro", "micro"):
        expected = sklearn.metrics.precision_recall_fscore_support(
            targets, outputs.argmax(-1), average=average, zero_division=0
        )
        for name, value in zip(("precision", "recall", "f1"), expected[:3], strict=True):
            assert values[f"{name}_{average}"] == pytest.approx(value), (name, average)


def test_micro_averages_are_the_accuracy(sample, values):
    accuracy = sklearn.metrics.accuracy_score(sample[1], sample[0].argmax(-1))
    assert values["precision_micro"] == values["recall_micro"] == values["f1_micro"] == pytest.approx(accuracy)


def test_top_k_is_sklearns(sample, values):
    for k in (2, 5):
        expected = sklearn.metrics.top_k_accuracy_score(sample[1], sample[0], k=k, labels=range(K))
        assert values[f"top{k}"] == pytest.approx(expected)


def test_areas_are_the_mean_of_sklearns_over_the_classes_that_occur(sample, values):
    outputs, targets = sample
    p = outputs.softmax(-1)
    for name, score in (
        ("auroc", sklearn.metrics.roc_auc_score),
        ("average_precision", sklearn.metrics.average_precision_score),
    ):
        each = [score(targets == k, p[:, k]) for k in range(K - 1)]
        assert values[name] == pytest.approx(sum(each) / len(each), abs=1e-6), name


def test_brier_and_nll_are_sklearns(sample, values):
    outputs, targets = sample
    p, truth = outputs.double().softmax(-1).numpy(), F.one_hot(targets, K).numpy()
    assert values["brier"] == pytest.approx(((p - truth) ** 2).sum(-1).mean(), rel=1e-5)
    assert values["nll"] == pytest.approx(sklearn.metrics.log_loss(targets, p, labels=range(K)), rel=1e-5)


def test_the_textbooks_cross_entropy():
    logits = torch.tensor([[2.0, 0.5, -1.0], [0.1, -0.2, 0.5]])
    assert Answers(logits, torch.tensor([0, 2])).nll() == pytest.approx(0.5073, abs=5e-5)


def textbook_ece(probs, labels, n_bins=15):
    """The textbook's, word for word, of the probability of a statement and whether it holds."""
    bin_boundaries = torch.linspace(0, 1, n_bins + 1)
    ece_val = 0.0
    for i in range(n_bins):
        mask = (probs > bin_boundaries[i]) & (probs <= bin_boundaries[i + 1])
        if mask.sum() == 0:
            continue
        acc = (labels[mask] == 1).float().mean()
        conf = probs[mask].mean()
        ece_val += (mask.float().mean()) * torch.abs(acc - conf)
    return ece_val.item()


def test_ece_is_the_textbooks_and_torchmetrics(sample, values):
    torchmetrics = pytest.importorskip("torchmetrics")
    outputs, targets = sample
    confidence, answer = outputs.softmax(-1).max(-1)
    assert values["ece"] == pytest.approx(textbook_ece(confidence, (answer == targets).float()), abs=1e-6)
    oracle = torchmetrics.functional.classification.multiclass_calibration_error(
        outputs.softmax(-1), targets, K, n_bins=15
    )
    assert values["ece"] == pytest.approx(oracle.item(), abs=1e-6)


def test_a_certainty_of_one_is_in_the_last_bin():
    sure = torch.tensor([1.0, 1.0, 0.95, 0.0])
    bins = reliability(sure, torch.tensor([True, False, True, False]), bins=10)
    assert bins.counts.tolist() == [1] + [0] * 8 + [3]
    assert bins.accuracy[-1] == pytest.approx(2 / 3)
    assert bins.error == pytest.approx(abs(2 - 2.95) / 4)


def test_calibration_of_answers_that_keep_their_promises():
    torch.manual_seed(0)
    confidence = torch.rand(200_000)
    assert reliability(confidence, torch.rand(200_000) < confidence).error < 0.01


def test_the_confusion_matrix_is_sklearns(sample):
    outputs, targets = sample
    expected = sklearn.metrics.confusion_matrix(targets, outputs.argmax(-1), labels=range(K))
    assert torch.equal(Answers(outputs, targets).confusion, torch.from_numpy(expected))


def test_one_class_alone_has_no_curve():
    metric = Scores(["auroc", "average_precision"])
    metric.reset(torch.device("cpu"))
    metric.update(torch.randn(5, 3), torch.zeros(5, dtype=torch.int64))
    values = metric.compute()
    assert math.isnan(values["auroc"])
    assert values["average_precision"] == pytest.approx(1.0)


def test_nothing_seen_is_no_error():
    metric = build.build_scores(data(), list(SCORES))
    metric.reset(torch.device("cpu"))
    assert all(math.isnan(value) for value in metric.compute().values())


def test_a_chosen_score_can_be_monitored():
    assert build.choose_monitor(data(), "val/ece", ["ece"]) == ("val/ece", False)
    assert build.choose_monitor(data(), "val/f1_macro", ["auroc", "f1_macro"]) == ("val/f1_macro", True)
    assert [name for metric in build.build_metrics(data(), ["auroc"]) for name in metric.names] == ["accuracy", "auroc"]


@pytest.mark.parametrize(
    ("spec", "monitor", "scores", "needles"),
    [
        (data(), "val/ece", [], ["val/accuracy", "'val/ece'", "trainer.metrics=[ece]"]),
        (data(5), None, ["ece", "top5"], ["top5", "5 classes", "top2"]),
        (data(1, Task.REGRESSION), None, ["auroc"], ["auroc", "regression", "trainer.metrics=[]"]),
    ],
)
def test_scores_that_cannot_be_had_are_refused(spec, monitor, scores, needles):
    with pytest.raises(ConfigError) as error:
        build.choose_monitor(spec, monitor, scores)
    assert all(needle in str(error.value) for needle in needles), error.value


def test_torchmetrics_is_loaded_only_to_score():
    for path in Path(dlrun.__file__).parent.rglob("*.py"):
        outermost = ast.parse(path.read_text()).body
        imports = [ast.unparse(node) for node in outermost if isinstance(node, ast.Import | ast.ImportFrom)]
        assert not any(name in line for line in imports for name in ("torchmetrics", "sacrebleu")), path
