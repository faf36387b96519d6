"""Losses against torch, formulas written out, and the promise that micro-batches add up to the big batch."""

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional as F

from dlrun import build, losses
from dlrun.contracts import Arrays, DataSpec, Kind, Splits, Task
from dlrun.errors import ContractError

K = 5
WEIGHTS = [0.5, 1.0, 2.0, 0.1, 3.0]


def spec(task, num_outputs=K):
    return DataSpec("some", task, Kind.VECTOR, (4,), num_outputs)


CLASSES, NUMBERS = spec(Task.CLASSIFICATION), spec(Task.REGRESSION, 2)


@pytest.fixture
def logits():
    torch.manual_seed(0)
    return torch.randn(16, K, dtype=torch.float64, requires_grad=True)


@pytest.fixture
def classes():
    return torch.arange(16) % K


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_cross_entropy_is_torchs(logits, classes, smoothing, weights):
    loss = losses.cross_entropy(CLASSES, label_smoothing=smoothing, class_weights=weights).double()
    expected = F.cross_entropy(
        logits,
        classes,
        weight=None if weights is None else torch.tensor(weights, dtype=torch.float64),
        label_smoothing=smoothing,
    )
    torch.testing.assert_close(loss(logits, classes), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_one_hot_targets_are_class_indices(logits, classes, smoothing, gamma, weights):
    loss = losses.cross_entropy(CLASSES, label_smoothing=smoothing, class_weights=weights, focal_gamma=gamma).double()
    soft = F.one_hot(classes, K).double()
    torch.testing.assert_close(loss(logits, soft), loss(logits, classes))


def test_soft_targets_are_torchs_and_linear(logits):
    torch.manual_seed(1)
    one, two = torch.rand(2, 16, K, dtype=torch.float64).softmax(-1)
    plain = losses.cross_entropy(CLASSES, label_smoothing=0.1)
    torch.testing.assert_close(plain(logits, one), F.cross_entropy(logits, one, label_smoothing=0.1))
    focal = losses.cross_entropy(CLASSES, label_smoothing=0.1, focal_gamma=2.0)
    mixed = focal(logits, 0.3 * one + 0.7 * two)
    torch.testing.assert_close(mixed, 0.3 * focal(logits, one) + 0.7 * focal(logits, two))


def test_focal_loss_is_the_papers_formula(logits, classes):
    p = logits.softmax(1)[torch.arange(16), classes]
    expected = -((1 - p) ** 2 * p.log()).mean()
    torch.testing.assert_close(losses.cross_entropy(CLASSES, focal_gamma=2.0)(logits, classes), expected)


@pytest.mark.parametrize("gamma", [0.1, 0.5, 2.0])
def test_focal_gradients_are_finite_for_sure_predictions(gamma):
    logits = torch.tensor([[200.0, 0, 0, 0, 0], [0, 20.0, 0, 0, 0]], requires_grad=True)
    losses.cross_entropy(CLASSES, focal_gamma=gamma)(logits, torch.tensor([0, 1])).backward()
    assert logits.grad.isfinite().all()


def test_focal_gradients_are_right(logits, classes):
    for weights in (None, WEIGHTS):
        loss = losses.cross_entropy(CLASSES, focal_gamma=1.5, label_smoothing=0.1, class_weights=weights).double()
        assert torch.autograd.gradcheck(lambda x, loss=loss: loss(x, classes), logits)


@pytest.mark.parametrize("soft", [False, True])
def test_micro_batches_weighted_by_weight_add_up_to_the_big_batch(logits, classes, soft):
    targets = F.one_hot(classes, K).double().roll(1, 0) * 0.3 + F.one_hot(classes, K) * 0.7 if soft else classes
    for options in (
        {"class_weights": WEIGHTS},
        {"focal_gamma": 2.0},
        {"class_weights": WEIGHTS, "label_smoothing": 0.2},
    ):
        loss = losses.cross_entropy(CLASSES, **options).double()
        parts = [(loss(x, y), loss.weight(y)) for x, y in zip(logits.split(7), targets.split(7), strict=True)]
        total = sum(value * weight for value, weight in parts) / sum(weight for _, weight in parts)
        torch.testing.assert_close(total, loss(logits, targets))


def test_only_losses_that_are_no_mean_over_examples_have_a_weight():
    assert not hasattr(losses.cross_entropy(CLASSES), "weight")
    assert hasattr(losses.cross_entropy(CLASSES, class_weights=WEIGHTS), "weight")


def test_balanced_weights_are_sklearns(logits):
    targets = torch.tensor([0] * 8 + [1] * 4 + [2] * 2 + [3, 4])
    weights = compute_class_weight("balanced", classes=np.arange(K), y=targets.numpy())
    loss = losses.cross_entropy(CLASSES, class_weights="balanced", class_counts=targets.bincount().tolist())
    torch.testing.assert_close(loss.class_weight, torch.tensor(weights, dtype=torch.float32))
    expected = F.cross_entropy(logits, targets, weight=torch.tensor(weights))
    torch.testing.assert_close(loss.double()(logits, targets), expected, rtol=1e-6, atol=0)


def test_sequences_of_tokens_count_each_token_and_skip_the_ignored():
    torch.manual_seed(0)
    logits, targets = torch.randn(3, 7, K), torch.randint(0, K, (3, 7))
    targets[0, 4:] = -100
    expected = F.cross_entropy(logits.reshape(-1, K), targets.reshape(-1))
    loss = losses.cross_entropy(spec(Task.SEQUENCE_TO_SEQUENCE))
    torch.testing.assert_close(loss(logits, targets), expected)
    assert loss.weight(targets).item() == 3 * 7 - 3
    language = losses.cross_entropy(spec(Task.LANGUAGE_MODELLING))
    torch.testing.assert_close(language(logits, targets), expected)
    assert language.weight(targets).item() == 3 * 7 - 3
    weighted = losses.cross_entropy(spec(Task.SEQUENCE_TO_SEQUENCE), class_weights=WEIGHTS, label_smoothing=0.1)
    flat = F.cross_entropy(
        logits.reshape(-1, K), targets.reshape(-1), weight=torch.tensor(WEIGHTS), label_smoothing=0.1
    )
    torch.testing.assert_close(weighted(logits, targets), flat)


def test_class_weights_move_with_the_module_but_stay_out_of_checkpoints():
    loss = losses.cross_entropy(CLASSES, class_weights=WEIGHTS)
    assert loss.to("meta").class_weight.device.type == "meta"
    assert loss.state_dict() == {}
    assert losses.bce(CLASSES).state_dict() == {}


def test_bce_of_classes_is_one_against_the_rest(logits, classes):
    one_hot = F.one_hot(classes, K).double()
    expected = F.binary_cross_entropy(logits.sigmoid(), one_hot)
    torch.testing.assert_close(losses.bce(CLASSES)(logits, classes), expected)
    torch.testing.assert_close(losses.bce(spec(Task.MULTILABEL))(logits, one_hot), expected)


def test_bce_positive_weight_multiplies_the_positive_terms(logits, classes):
    one_hot, p = F.one_hot(classes, K).double(), logits.sigmoid()
    expected = -(3 * one_hot * p.log() + (1 - one_hot) * (1 - p).log()).mean()
    torch.testing.assert_close(losses.bce(CLASSES, positive_weight=3.0)(logits, classes), expected)


def test_regression_losses_are_torchs_or_their_formula():
    torch.manual_seed(0)
    outputs, targets = 2 * torch.randn(2, 9, 2, dtype=torch.float64)
    error = targets - outputs
    assert torch.equal(losses.mse(NUMBERS)(outputs, targets), F.mse_loss(outputs, targets))
    assert torch.equal(losses.mae(NUMBERS)(outputs, targets), F.l1_loss(outputs, targets))
    assert torch.equal(losses.huber(NUMBERS, delta=0.7)(outputs, targets), F.huber_loss(outputs, targets, delta=0.7))
    torch.testing.assert_close(losses.quantile(NUMBERS, q=0.5)(outputs, targets), error.abs().mean() / 2)
    expected = torch.where(error > 0, 0.9 * error, -0.1 * error).mean()
    torch.testing.assert_close(losses.quantile(NUMBERS, q=0.9)(outputs, targets), expected)


def test_the_pinball_loss_is_least_at_the_quantile():
    targets = torch.arange(101.0).unsqueeze(1)
    loss = losses.quantile(NUMBERS, q=0.8)
    values = torch.stack([loss(torch.full_like(targets, guess), targets) for guess in range(101)])
    assert values.argmin().item() == 80


def test_the_perceptron_criterion_is_how_far_the_best_other_class_is_ahead(logits, classes):
    expected = [max(0, max(*row[:c], *row[c + 1 :]) - row[c]) for row, c in zip(logits.tolist(), classes, strict=True)]
    loss = losses.perceptron(CLASSES)(logits, classes)
    torch.testing.assert_close(loss, torch.tensor(expected, dtype=torch.float64).mean())
    assert torch.autograd.gradcheck(lambda x: losses.perceptron(CLASSES)(x, classes), logits)


def test_the_perceptron_criterion_leaves_a_tie():
    outputs = torch.zeros(1, 2, requires_grad=True)
    loss = losses.perceptron(CLASSES)(outputs, torch.tensor([1]))
    loss.backward()
    assert loss == 0
    assert outputs.grad.tolist() == [[1.0, -1.0]]


def test_the_perceptron_criterion_refuses_blends_and_numbers(logits):
    with pytest.raises(ContractError, match=r"loss=perceptron .*mixup and cutmix"):
        losses.perceptron(CLASSES)(logits, logits.detach().softmax(1))
    with pytest.raises(ContractError, match="loss=perceptron is for classification"):
        losses.perceptron(NUMBERS)


def test_half_precision_outputs_give_float32_losses(classes):
    logits = torch.randn(16, K).bfloat16()
    for loss in (losses.cross_entropy(CLASSES), losses.cross_entropy(CLASSES, focal_gamma=1.0), losses.bce(CLASSES)):
        assert torch.equal(loss(logits, classes), loss(logits.float(), classes))
    numbers = torch.randn(16, 2)
    value = losses.mse(NUMBERS)(torch.zeros(16, 2).half(), numbers)
    torch.testing.assert_close(value, numbers.square().mean())


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(ContractError, match=r"outputs have shape \(4, 1\) and the targets \(4,\)"):
        losses.mse(NUMBERS)(torch.zeros(4, 1), torch.zeros(4))


@pytest.mark.parametrize(
    ("task", "name"),
    [
        (Task.CLASSIFICATION, "CrossEntropy"),
        (Task.LANGUAGE_MODELLING, "TokenCrossEntropy"),
        (Task.SEQUENCE_TO_SEQUENCE, "WeightedCrossEntropy"),
        (Task.MULTILABEL, "BinaryCrossEntropy"),
        (Task.REGRESSION, "Elementwise"),
        (Task.FORECASTING, "Elementwise"),
        (Task.RECONSTRUCTION, "Elementwise"),
    ],
)
def test_auto_is_the_tasks_own(task, name):
    assert type(losses.auto(spec(task))).__name__ == name


def test_losses_that_do_not_fit_the_task_are_refused():
    with pytest.raises(
        ContractError, match=r"loss=mse is for regression .* data=some is a classification task: .*auto"
    ):
        losses.mse(CLASSES)
    with pytest.raises(ContractError, match=r"loss=cross_entropy .* regression task.* chooses mse"):
        losses.cross_entropy(NUMBERS)
    for factory in (losses.mae, losses.huber, losses.quantile):
        with pytest.raises(ContractError, match=f"loss={factory.__name__}"):
            factory(CLASSES)
    with pytest.raises(ContractError, match="loss=bce"):
        losses.bce(NUMBERS)


def test_weights_and_counts_of_the_wrong_length_are_refused():
    with pytest.raises(ContractError, match="one number for each of the 5 classes of data=some, got 2"):
        losses.cross_entropy(CLASSES, class_weights=[1.0, 2.0])
    with pytest.raises(ContractError, match=r"balanced needs the number of training examples.*class_counts is None"):
        losses.cross_entropy(CLASSES, class_weights="balanced")


def test_soft_labels_have_no_counts_and_need_none():
    soft = torch.rand(12, 3).softmax(1)
    spec = DataSpec("soft", Task.CLASSIFICATION, Kind.VECTOR, (2,), 3)
    splits = Splits(Arrays(torch.randn(12, 2), soft), spec)
    for gamma in (0.0, 2.0):
        node = {"_target_": "dlrun.losses.cross_entropy", "focal_gamma": gamma}
        loss = build.build_loss({"loss": node}, splits)
        assert torch.isfinite(loss(torch.randn(12, 3), soft))
