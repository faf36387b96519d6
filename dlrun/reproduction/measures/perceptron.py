"""Rosenblatt's perceptron by hand, beside scikit-learn's and dlrun's; and where a line is not enough."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.linear_model import Perceptron

from dlrun import build
from dlrun.contracts import Batch, DataSpec, Kind, Task
from dlrun.glossary.figures import label, panels, styles
from dlrun.glossary.measure import Measured
from dlrun.glossary.measures.common import Array, config
from dlrun.reproduction.measures.common import examples

EPOCHS = 50


def by_hand(x: Array, signs: Array, epochs: int = EPOCHS) -> tuple[Array, list[int]]:
    """Rosenblatt's rule in NumPy: a mistake adds its example, times its class of ±1, to the weights.

    Args:
        x: (N, 2); the bias is learnt as the weight of a third input that is always 1.

    Returns: weights and bias after every epoch, (epochs + 1, 3), and the mistakes in each epoch.
    """
    w, path, mistakes = np.zeros(3), [np.zeros(3)], []
    extended = np.column_stack([x, np.ones(len(x))])
    for _ in range(epochs):
        wrong = 0
        for example, sign in zip(extended, signs, strict=True):
            if sign * (w @ example) <= 0:
                w = w + sign * example
                wrong += 1
        path.append(w)
        mistakes.append(wrong)
    return np.array(path), mistakes


def by_dlrun(x: Array, signs: Array, epochs: int = EPOCHS) -> Array:
    """dlrun's model=perceptron with loss=perceptron and optimizer=sgd, over the examples in the same order."""
    spec = DataSpec("points", Task.CLASSIFICATION, Kind.VECTOR, (2,), num_outputs=2)
    words = config("model=perceptron", "loss=perceptron", "optimizer=sgd", "optimizer.lr=1", "data=xor")
    model = build.build_model(words, spec).double()
    splits = build.build_data(words)
    loss, optimizer = build.build_loss(words, splits), build.build_optimizer(words, model)
    batch = Batch(torch.tensor(x), torch.tensor(signs > 0).long())
    for _ in range(epochs):
        for one in batch.split(1):
            optimizer.zero_grad()
            loss(model(one.inputs), one.targets).backward()
            optimizer.step()
    weights = [p.detach().numpy().reshape(-1) for p in model.parameters()]
    return np.concatenate(weights)


def separable(count: int = 100, margin: float = 0.3) -> tuple[Array, Array]:
    """Points on two sides of a line, none nearer to it than `margin`."""
    random = np.random.default_rng(0)
    points = random.uniform(-2, 2, (4 * count, 2))
    score = points @ np.array([0.8, 0.6]) + 0.3
    kept = np.abs(score) >= margin
    return points[kept][:count], np.sign(score[kept][:count])


def novikoff(x: Array, signs: Array, w: Array) -> float:
    """(R / margin)²: no more mistakes can be made where `w` separates; Novikoff 1962."""
    extended = np.column_stack([x, np.ones(len(x))])
    margin = (signs * (extended @ w)).min() / np.linalg.norm(w)
    return float((np.linalg.norm(extended, axis=1).max() / margin) ** 2)


def accuracy(x: Array, signs: Array, w: Array) -> float:
    """The share of points on the right side."""
    return float((signs * (x @ w[:2] + w[2]) > 0).mean())


def measure() -> Measured:
    """Three perceptrons on the same points, the bound on its mistakes, and XOR and moons."""
    x, signs = separable()
    path, mistakes = by_hand(x, signs)
    library = Perceptron(penalty=None, eta0=1.0, shuffle=False, max_iter=EPOCHS, tol=None).fit(x, signs)
    learnt = np.array([*library.coef_[0], library.intercept_[0]])
    figure, axes = panels("The perceptron by hand: w ← w + y x where it is wrong", 3, width=3.6, height=3.4)
    draw(axes[0], x, signs, path[-1], "separable: 0 mistakes")
    numbers = {
        "library_error": float(np.abs(learnt - path[-1]).max()),
        "dlrun_error": float(np.abs(by_dlrun(x, signs) - path[-1]).max()),
        "mistakes": float(sum(mistakes)),
        "last_mistakes": float(mistakes[-1]),
        "bound": novikoff(x, signs, np.array([0.8, 0.6, 0.3])),
    }
    numbers["of_bound"] = numbers["mistakes"] / numbers["bound"]
    curves, line = axes[2], styles(marker=True)
    curves.plot(np.arange(1, 21), 100 * np.array(mistakes[:20]) / len(x), **next(line), label="separable")
    for name in ("xor", "moons"):
        inputs, targets = examples(f"data={name}", *([] if name == "xor" else ["data.noise=0.1"]))
        points, classes = inputs.double().numpy(), np.where(targets.numpy() == 1, 1.0, -1.0)
        steps, wrong = by_hand(points, classes)
        best = max(steps, key=lambda w, p=points, c=classes: accuracy(p, c, w))  # type: ignore[misc]
        numbers |= {f"{name}_best": accuracy(points, classes, best), f"{name}_mistakes": float(min(wrong))}
        curves.plot(np.arange(1, 21), 100 * np.array(wrong[:20]) / len(points), **next(line), label=name)
        if name == "xor":
            draw(axes[1], points, classes, best, f"XOR: the best of {EPOCHS} epochs, {100 * numbers['xor_best']:.0f} %")
    label(curves, "epoch", "mistakes in the epoch (% of examples)", "it ends only where a line can do it")
    return Measured(numbers, figure)


def draw(axes: Any, x: Array, signs: Array, w: Array, title: str) -> None:
    """Points by class, and the line at which the perceptron changes its mind."""
    for sign, color, marker in ((1, "#0072B2", "o"), (-1, "#D55E00", "x")):
        axes.scatter(*x[signs == sign].T, s=10, color=color, marker=marker, linewidth=0.8, label=f"class {sign:+d}")
    low, high = x.min(0) - 0.3, x.max(0) + 0.3
    along = np.linspace(low[0], high[0], 2)
    axes.plot(along, -(w[0] * along + w[2]) / w[1], "k-", linewidth=1.4, label="w · x + b = 0")
    axes.set_xlim(low[0], high[0])
    axes.set_ylim(low[1], high[1])
    label(axes, "first feature", "second feature", title)
