"""The perceptron against Rosenblatt's rule as textbooks write it, and the logistic neuron against the sigmoid."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from dlrun import losses
from dlrun.contracts import DataSpec, Kind, Task
from dlrun.errors import ContractError
from dlrun.models.perceptron import perceptron, straight_through

PLANE = DataSpec("points", Task.CLASSIFICATION, Kind.VECTOR, (2,), 2)
THREE = DataSpec("three", Task.CLASSIFICATION, Kind.VECTOR, (2,), 3)
POINTS = [[2, 3], [1, 5], [2, 1], [3, 2], [4, 4], [5, 5]]
LABELS = [1, 1, 0, 0, 1, 1]
XOR = [[0, 0], [0, 1], [1, 0], [1, 1]], [0, 1, 1, 0]


def rosenblatt(points, labels, lr, epochs, dtype, weight=(0, 0), bias=0):
    """The textbook's loop: mistakes of each epoch, then weights and bias."""
    w, b, mistakes = np.array(weight, dtype), dtype(bias), []
    for _ in range(epochs):
        mistakes.append(0)
        for x, label in zip(np.array(points, dtype), labels, strict=True):
            t = 2 * label - 1
            if t * (np.dot(w, x) + b) <= 0:
                w, b = w + dtype(lr) * t * x, b + dtype(lr) * t
                mistakes[-1] += 1
    return mistakes, w, b


def train(model, points, labels, lr, epochs):
    """SGD, one example at a time, with loss=perceptron: mistakes of each epoch."""
    weight = model.neurons.weight
    loss, optimizer = losses.perceptron(PLANE), torch.optim.SGD(model.parameters(), lr=lr)
    mistakes = []
    for _ in range(epochs):
        mistakes.append(0)
        for x, label in zip(torch.tensor(points, dtype=weight.dtype), torch.tensor(labels), strict=True):
            optimizer.zero_grad()
            loss(model(x[None]), label[None]).backward()
            mistakes[-1] += bool(weight.grad.any() or model.neurons.bias.grad.any())
            optimizer.step()
    return mistakes


@pytest.mark.parametrize("activation", ["step", "logistic"])
def test_sgd_on_the_criterion_is_rosenblatts_rule(activation):
    """The textbook's example in its own float64: 4, 3, 1, 0 mistakes."""
    model = perceptron(PLANE, activation=activation).double()
    mistakes, w, b = rosenblatt(POINTS, LABELS, 0.1, 5, np.float64)
    assert train(model, POINTS, LABELS, 0.1, 5) == mistakes == [4, 3, 1, 0, 0]
    assert model.neurons.weight.detach().numpy().ravel() == pytest.approx(w, rel=1e-12)
    assert model.neurons.bias.item() == pytest.approx(b, rel=1e-12)


def test_without_rounding_the_example_takes_an_epoch_more():
    """A point comes to lie on the line itself; with lr=1 all numbers are whole, and it counts as a mistake."""
    model = perceptron(PLANE)
    assert train(model, POINTS, LABELS, 1.0, 6) == [4, 3, 3, 1, 0, 0]
    assert model.neurons.weight.tolist() == [[-3.0, 5.0]]
    assert model.neurons.bias.tolist() == [-3.0]


@pytest.mark.parametrize("seed", range(3))
def test_xor_is_never_learnt(seed):
    torch.manual_seed(seed)
    model = perceptron(PLANE)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    assert min(train(model, *XOR, 0.1, 40)) >= 1


def test_the_loss_of_the_step_is_the_share_of_mistakes():
    torch.manual_seed(0)
    model, x, y = perceptron(THREE), torch.randn(50, 2), torch.arange(50) % 3
    torch.nn.init.normal_(model.neurons.weight)
    mistakes = (model(x).argmax(1) != y).float().mean()
    assert 0 < mistakes < 1
    torch.testing.assert_close(losses.perceptron(THREE)(model(x), y), mistakes)


def test_more_classes_are_kesslers_rule():
    """A mistake adds x to the right neuron and takes it from the one that fired; nothing else changes."""
    torch.manual_seed(0)
    model = perceptron(THREE)
    torch.nn.init.normal_(model.neurons.weight)
    x = torch.randn(1, 2)
    fired = int(model(x).argmax())
    right = (fired + 1) % 3
    losses.perceptron(THREE)(model(x), torch.tensor([right])).backward()
    expected = torch.zeros(3, 2)
    expected[right], expected[fired] = -x[0], x[0]
    torch.testing.assert_close(model.neurons.weight.grad, expected)


def test_the_step_gives_one_to_the_largest_and_shares_it_among_equals():
    a = torch.tensor([[0.3, -2.0, 0.1], [1.0, 1.0, 0.0]], requires_grad=True)
    y = straight_through(a)
    assert y.tolist() == [[1, 0, 0], [0.5, 0.5, 0]]
    slope = torch.tensor([[1.0, 2, 3], [4, 5, 6]])
    y.backward(slope)
    assert torch.equal(a.grad, slope)


def test_the_logistic_neuron_is_the_sigmoid():
    torch.manual_seed(0)
    model = perceptron(PLANE, activation="logistic")
    torch.nn.init.normal_(model.neurons.weight)
    torch.nn.init.normal_(model.neurons.bias)
    x, y = torch.randn(20, 2), torch.arange(20) % 2
    a = x @ model.neurons.weight[0] + model.neurons.bias
    torch.testing.assert_close(model(x).softmax(1)[:, 1], a.sigmoid())
    loss = losses.cross_entropy(PLANE)(model(x), y)
    torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(a, y.float()))
    assert sum(p.numel() for p in model.parameters()) == 3


def test_data_without_classes_are_refused():
    numbers = DataSpec("diabetes", Task.REGRESSION, Kind.VECTOR, (10,), 1)
    with pytest.raises(ContractError, match=r"data=diabetes is a regression task: model=linear"):
        perceptron(numbers)
    with pytest.raises(ContractError, match="model=perceptron reads"):
        perceptron(DataSpec("text", Task.CLASSIFICATION, Kind.TOKENS, (9,), 2, vocabulary_size=12))
