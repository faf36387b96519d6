"""Descent on a parabola, where everything is known: momentum against the condition number, and which rates diverge."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.optimize import brentq

from dlrun.glossary.figures import label, panels, styles
from dlrun.glossary.measure import Measured
from dlrun.glossary.measures.common import Array, Words, furthest, path, path_by_hand, slope
from dlrun.glossary.measures.update_rules import MOMENTUM, momentum_rule

CONDITIONS = (10.0, 30.0, 100.0, 300.0)
PRECISION = 1e-6
LIMIT = 3000  # steps
BETA = 0.9
STEEP = (1.05, 1.2, 1.35, 1.5, 1.65, 1.8, 1.85, 1.9, 1.94, 1.96, 1.98)  # lr times curvature; plain descent zigzags


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
    """The rule; steps against κ; swing and reversals along a steep direction, by rate; noise left in the weights."""
    plain = [steps_needed(k, momentum=False) for k in CONDITIONS]
    heavy = [steps_needed(k, momentum=True) for k in CONDITIONS]
    figure, (race, steep) = panels("Momentum on a parabola", 2)
    line = styles(marker=True)
    for name, steps, power in (("gradient descent", plain, "κ"), ("with momentum", heavy, "√κ")):
        race.loglog(CONDITIONS, steps, **next(line), label=f"{name} (∝ {power})")
    label(race, "condition number κ", "steps to a millionth", "the best lr and β for each")
    line = styles(marker=True)
    for beta in (0.9, 0.5):
        steep.semilogy(STEEP, [swing_ratio(rate, beta) for rate in STEEP], **next(line), label=f"β = {beta}")
    steep.axhline(1, color="0.4", linewidth=0.8)
    steep.annotate("as without momentum", (STEEP[0], 1), va="bottom", fontsize=8, color="0.4")
    label(steep, "lr · curvature (2: plain descent diverges)", "Σ |w|, over that without momentum", "the same lr")
    return Measured(
        {
            **rule(words),
            "sgd_power": slope(CONDITIONS, [float(n) for n in plain]),
            "momentum_power": slope(CONDITIONS, [float(n) for n in heavy]),
            "sgd_steps": float(plain[-1]),
            "momentum_steps": float(heavy[-1]),
            **oscillations(),
        },
        figure,
    )


def oscillations(beta: float = BETA) -> dict[str, float]:
    """Swing by the rate, where it is as large as without momentum, how often w turns, and the noise that w has."""
    turns = {b: turning(descend(np.ones(1), 1.5, b, 60)) for b in (0.0, beta)}
    noise = {pair: weight_noise(*pair) for pair in ((0.01, 0.0), (0.01 / (1 - beta), 0.0), (0.01, beta))}
    return {
        "swing_low": swing_ratio(1.5, beta),
        "swing_high": swing_ratio(1.98, beta),
        "swing_half": swing_ratio(1.5, 0.5),
        "swing_half_high": swing_ratio(1.98, 0.5),
        "crossing": crossing(beta),
        "reversals": turns[beta] / turns[0.0],
        "noise_same_lr": noise[0.01, beta] / noise[0.01, 0.0],
        "noise_same_step": noise[0.01, beta] / noise[0.01 / (1 - beta), 0.0],
    }


def swing_ratio(rate: float, beta: float, steps: int = 1000) -> float:
    """Σ |w| with momentum over that without, from w = 1, where lr times curvature is `rate`, below 2."""
    with_it, without = (float(np.abs(descend(np.ones(1), rate, b, steps)).sum()) for b in (beta, 0.0))
    return with_it / without


def crossing(beta: float) -> float:
    """The rate, in (1.5, 1.98), where both swing the same; NaN if they do nowhere there."""
    low, high = (math.log(swing_ratio(rate, beta)) for rate in (1.5, 1.98))
    if low * high >= 0:
        return math.nan
    return float(brentq(lambda rate: math.log(swing_ratio(rate, beta)), 1.5, 1.98, xtol=1e-3))


def turning(points: Array) -> float:
    """The share of steps in which w changes its sign."""
    return float((np.diff(np.sign(points[:, 0])) != 0).mean())


def weight_noise(lr: float, beta: float, steps: int = 4000, count: int = 200) -> float:
    """The variance that `count` weights settle at on w² / 2 under gradients with noise of variance 1, torch's SGD."""
    random = torch.Generator().manual_seed(0)
    w = torch.zeros(count, dtype=torch.float64, requires_grad=True)
    made = torch.optim.SGD([w], lr=lr, momentum=beta)
    squares = 0.0
    for step in range(steps):
        w.grad = w.detach() + torch.randn(count, generator=random, dtype=torch.float64)
        made.step()
        squares += float(w.detach().square().mean()) if step >= steps // 4 else 0.0
    return squares / (steps - steps // 4)


def rule(words: Words = MOMENTUM) -> dict[str, float]:
    """How far 50 steps in float64 are from the rule in NumPy."""
    return {"rule_error": furthest(path(words)[0], path_by_hand(momentum_rule()))}
