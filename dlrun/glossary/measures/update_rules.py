"""Whether the optimizers do what the textbook rule says: 50 steps in float64 beside the rule in NumPy."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import numpy as np
import torch

from dlrun.glossary.figures import label, panels, styles
from dlrun.glossary.measure import Measured
from dlrun.glossary.measures.common import Array, Words, furthest, hills_gradient, path, path_by_hand

LR, BETA, BETAS, EPS = 0.01, 0.9, (0.9, 0.999), 1e-8
SGD: Words = ("optimizer=sgd", f"optimizer.lr={LR}")
MOMENTUM: Words = ("optimizer=momentum", f"optimizer.lr={LR}")
ADAM: Words = ("optimizer=adam", f"optimizer.lr={LR}")
Rule = Callable[[Array, Array], Array]


def sgd_rule(lr: float = LR) -> Rule:
    """w <- w - η g."""
    return lambda w, g: w - lr * g


def momentum_rule(lr: float = LR, beta: float = BETA) -> Rule:
    """v <- β v + g, w <- w - η v."""
    v = 0.0

    def step(w: Array, g: Array) -> Array:
        nonlocal v
        v = beta * v + g  # type: ignore[assignment]
        return w - lr * v

    return step


def adam_rule(
    lr: float = LR, betas: tuple[float, float] = BETAS, *, corrected: bool = True, decay: float = 0.0, l2: float = 0.0
) -> Rule:
    """Adam; without bias correction, with weight decay (w <- w - decay w first) or with L2 (l2 w in the gradient)."""
    m, v, t = np.zeros(1), np.zeros(1), 0

    def step(w: Array, g: Array) -> Array:
        nonlocal m, v, t
        t, g = t + 1, g + l2 * w
        m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g**2
        first, second = (m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)) if corrected else (m, v)
        return np.asarray(w - decay * w - lr * first / (np.sqrt(second) + EPS))

    return step


def sgd(words: Words = SGD) -> Measured:
    """The rule; the direction; and the example's own code, which has a momentum that the rule lacks."""
    points, _ = path(words)
    with_momentum, _ = path([*words, "optimizer.momentum=0.9"])
    moves, gradients = np.diff(points, axis=0), np.array([hills_gradient(w) for w in points[:-1]])
    cosine = (moves * -gradients).sum(1) / np.linalg.norm(moves, axis=1) / np.linalg.norm(gradients, axis=1)
    rule, heavy = path_by_hand(sgd_rule()), path_by_hand(momentum_rule())
    figure, (valley, gap) = panels("SGD: the rule, and the example's code with momentum=0.9", 2)
    line = styles()
    valley.plot(*points[:, [0, 11]].T, **next(line), label="momentum=0 (the formula)")
    valley.plot(*with_momentum[:, [0, 11]].T, **next(line), label="momentum=0.9 (the code)")
    valley.plot(*points[0, [0, 11]], "k*", markersize=10, label="start")
    label(valley, "weight 1 (a = 0.5)", "weight 12 (a = 4)", "50 steps, lr 0.01")
    line = styles()
    for name, ours, hand in (("code without momentum", points, rule), ("code with momentum 0.9", with_momentum, rule)):
        gap.semilogy(np.maximum(np.abs(ours - hand).max(1), 1e-17), **next(line), label=name)
    label(gap, "step", "largest |w - w by the formula|", "distance from w ← w - η ∇L")
    return Measured(
        {
            "rule_error": furthest(points, rule),
            "cosine": float(cosine.min()),
            "code_error": furthest(with_momentum, rule),
            "code_momentum_error": furthest(with_momentum, heavy),
        },
        figure,
    )


def table(sgd: Words = SGD, momentum: Words = MOMENTUM, adam: Words = ADAM) -> Measured:
    """The table of update rules, row by row; its row of Adam has no update."""
    rows: dict[str, tuple[Words, Rule]] = {
        "sgd": (sgd, sgd_rule()),
        "momentum": (momentum, momentum_rule()),
        "adam": (adam, adam_rule()),
        "adam_uncorrected": (adam, adam_rule(corrected=False)),
    }
    figure, (axes,) = panels("Update rules: distance of the optimizer from the rule in NumPy, float64")
    numbers, line = {}, styles()
    for name, (words, rule) in rows.items():
        ours, hand = path(words)[0], path_by_hand(rule)
        numbers[f"{name}_error"] = furthest(ours, hand)
        shown = {"adam_uncorrected": "Adam against its row read as m / (√v + ε)"}.get(name, name)
        axes.semilogy(np.maximum(np.abs(ours - hand).max(1), 1e-18), **next(line), label=shown)
    axes.axhline(1e-12, color="0.5", linewidth=0.8)
    axes.annotate("tolerance", (50, 1e-12), ha="right", va="bottom", fontsize=8, color="0.4")
    label(axes, "step", "largest |w - w by the rule|")
    return Measured({**numbers, **moments(adam)}, figure)


def moments(words: Words = ADAM) -> dict[str, float]:
    """How far Adam's state is from the two averages of the table's row."""
    points, made = path(words)
    state = next(iter(made.state.values()))
    m = v = np.zeros_like(points[0])
    for g in map(hills_gradient, points[:-1]):
        m, v = BETAS[0] * m + (1 - BETAS[0]) * g, BETAS[1] * v + (1 - BETAS[1]) * g**2
    return {
        "first_moment_error": furthest(state["exp_avg"].numpy().reshape(-1), m),
        "second_moment_error": furthest(state["exp_avg_sq"].numpy().reshape(-1), v),
    }


def adam(words: Words = ADAM, make: Callable[..., torch.optim.Optimizer] = torch.optim.Adam) -> Measured:
    """Its two parents, the step of each parameter on its own, and the usual settings."""
    points, made = path(words)
    state = next(iter(made.state.values()))
    gradients = [hills_gradient(w) for w in points[:-1]]
    heavy, square = np.zeros_like(points[0]), np.zeros_like(points[0])
    for g in gradients:
        heavy = BETA * heavy + g
        square = 0.999 * square + 0.001 * g**2
    scales = 10.0 ** np.linspace(-3, 3, 12)
    sizes = {name: _sizes(chosen, scales) for name, chosen in {"adam": words, "sgd": SGD}.items()}
    figure, (axes,) = panels("Adam: the step hardly depends on the size of the gradient")
    line = styles(marker=True)
    for name, shown in (("sgd", "SGD"), ("adam", "Adam")):
        axes.loglog(scales, sizes[name], **next(line), label=shown)
    axes.axhline(LR, color="0.5", linewidth=0.8)
    axes.annotate("lr", (scales[0], LR), va="bottom", fontsize=8, color="0.4")
    label(axes, "gradient of the parameter", "|change of the parameter| in the first step")
    usual = {name: p.default for name, p in inspect.signature(make).parameters.items()}
    return Measured(
        {
            "momentum_error": furthest(state["exp_avg"].numpy().reshape(-1), (1 - BETA) * heavy),
            "rmsprop_error": furthest(state["exp_avg_sq"].numpy().reshape(-1), square),
            "adam_spread": float(sizes["adam"].max() / sizes["adam"].min()),
            "sgd_spread": float(sizes["sgd"].max() / sizes["sgd"].min()),
            "beta1": usual["betas"][0],
            "beta2": usual["betas"][1],
            "eps": usual["eps"],
        },
        figure,
    )


def _sizes(words: Words, scales: Array) -> Array:
    """How far the first step goes along each coordinate, where the gradients are `scales`."""
    slopes = torch.tensor(scales)
    points, _ = path(words, np.zeros(12), 1, lambda w: (slopes * w).sum())
    return np.asarray(np.abs(points[1] - points[0]))
