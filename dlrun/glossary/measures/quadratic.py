"""Descent on a parabola, where everything is known: momentum against the condition number, and which rates diverge."""

from __future__ import annotations

import math

import numpy as np
import torch

from dlrun.glossary.figures import label, panels, styles
from dlrun.glossary.measure import Measured
from dlrun.glossary.measures.common import Array, Words, furthest, path, path_by_hand, slope
from dlrun.glossary.measures.update_rules import MOMENTUM, momentum_rule

CONDITIONS = (10.0, 30.0, 100.0, 300.0)
PRECISION = 1e-6
LIMIT = 3000  # steps


def descend(curvatures: Array, lr: float, beta: float, steps: int) -> Array:
    """Where torch's SGD goes on Σ c w² / 2 from (1, …, 1)."""
    w = torch.ones(len(curvatures), dtype=torch.float64, requires_grad=True)
    made = torch.optim.SGD([w], lr=lr, momentum=beta)
    c = torch.tensor(curvatures)
    points = [w.detach().numpy().copy()]
    for _ in range(steps):
        w.grad = c * w.detach()
        made.step()
        points.append(w.detach().numpy().copy())
        if not 1e-12 < np.abs(points[-1]).max() < 1e12:
            break
    return np.array(points)


def steps_needed(condition: float, *, momentum: bool) -> int:
    """Steps until ‖w‖ has fallen to a millionth, with the best learning rate (and β) for curvatures 1 and κ."""
    root = math.sqrt(condition)
    if momentum:
        lr, beta = (2 / (1 + root)) ** 2, ((root - 1) / (root + 1)) ** 2
    else:
        lr, beta = 2 / (1 + condition), 0.0
    points = descend(np.array([1.0, condition]), lr, beta, LIMIT)
    sizes = np.linalg.norm(points, axis=1) / np.linalg.norm(points[0])
    late = np.nonzero(sizes > PRECISION)[0]
    return int(late[-1]) + 1


def momentum(words: Words = MOMENTUM) -> Measured:
    """The rule; steps against κ; reversals and swing in a narrow valley; noise in the direction."""
    plain = [steps_needed(k, momentum=False) for k in CONDITIONS]
    heavy = [steps_needed(k, momentum=True) for k in CONDITIONS]
    valley = np.array([0.02, 1.0])
    paths = {name: descend(valley, 1.8, b, 60) for name, b in (("sgd", 0.0), ("momentum", 0.9))}
    reversals = {name: float((np.diff(np.sign(points[:, 1])) != 0).mean()) for name, points in paths.items()}
    swing = {name: float(np.abs(points[:, 1]).sum()) for name, points in paths.items()}
    figure, (race, zigzag) = panels("Momentum on a parabola", 2)
    line = styles(marker=True)
    for name, steps, power in (("gradient descent", plain, "κ"), ("with momentum", heavy, "√κ")):
        race.loglog(CONDITIONS, steps, **next(line), label=f"{name} (∝ {power})")
    label(race, "condition number κ", "steps to a millionth", "the best lr and β for each")
    line = styles()
    for name, shown in (("sgd", "β = 0"), ("momentum", "β = 0.9")):
        zigzag.plot(paths[name][:, 1], **next(line), label=shown)
    label(zigzag, "step", "position along the steep direction", "lr 1.8 / largest curvature")
    return Measured(
        {
            **rule(words),
            "sgd_power": slope(CONDITIONS, [float(n) for n in plain]),
            "momentum_power": slope(CONDITIONS, [float(n) for n in heavy]),
            "sgd_steps": float(plain[-1]),
            "momentum_steps": float(heavy[-1]),
            "reversals": reversals["momentum"] / reversals["sgd"],
            "swing": swing["momentum"] / swing["sgd"],
            "noise": noise_left(0.9),
        },
        figure,
    )


def rule(words: Words = MOMENTUM) -> dict[str, float]:
    """How far 50 steps in float64 are from the rule in NumPy."""
    return {"rule_error": furthest(path(words)[0], path_by_hand(momentum_rule()))}


def noise_left(beta: float, steps: int = 20_000) -> float:
    """Variance of v (1 - β) over that of the gradient when the gradient is nothing but noise; (1 - β) / (1 + β)."""
    noise = np.random.default_rng(0).standard_normal(steps)
    v, total = 0.0, []
    for g in noise:
        v = beta * v + g
        total.append(v * (1 - beta))
    return float(np.var(total) / np.var(noise))
