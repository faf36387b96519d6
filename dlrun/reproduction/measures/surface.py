"""Descents on a surface with a narrow and a wide valley: what noise and momentum find, starting in the narrow one."""

from __future__ import annotations

from typing import Any

import numpy as np

from dlrun.glossary.figures import label, panels
from dlrun.glossary.measure import Measured
from dlrun.glossary.measures.common import Array

NARROW, WIDE = -1.5, 1.5  # where the valleys are along x; a ridge at about -1 between them
DEPTHS, WIDTHS = (0.9, 1.6), (0.35, 1.2)
LR, STEPS, RUNS = 0.05, 2000, 400
RIDGE = -0.95


def height(x: Array, y: Array) -> Array:
    """A bowl with two Gaussian valleys: a narrow, shallow one on the left, a wide, deep one on the right."""
    value = 0.05 * x**2 + 0.25 * y**2
    for at, depth, width in zip((NARROW, WIDE), DEPTHS, WIDTHS, strict=True):
        value = value - depth * np.exp(-((x - at) ** 2 + y**2) / (2 * width**2))
    return np.asarray(value)


def gradient(points: Array) -> Array:
    """Of `height`, by hand; (n, 2) to (n, 2)."""
    x, y = points.T
    found = np.stack([0.1 * x, 0.5 * y], 1)
    for at, depth, width in zip((NARROW, WIDE), DEPTHS, WIDTHS, strict=True):
        bump = depth * np.exp(-((x - at) ** 2 + y**2) / (2 * width**2)) / width**2
        found += np.stack([(x - at) * bump, y * bump], 1)
    return np.asarray(found)


def descend(
    start: tuple[float, float], *, noise: float = 0.0, momentum: float = 0.0, runs: int = 1, lr: float = LR
) -> Array:
    """Paths of SGD whose gradients carry Gaussian noise, as those of batches do; it fades over the last third.

    Returns: (STEPS + 1, runs, 2).
    """
    random = np.random.default_rng(0)
    points = np.tile(np.array(start), (runs, 1))
    velocity, path = np.zeros_like(points), [points]
    for step in range(STEPS):
        left = min(1.0, 3 * (1 - step / STEPS))
        drawn = gradient(points) + noise * left * random.standard_normal(points.shape)
        velocity = momentum * velocity + drawn
        points = points - lr * velocity
        path.append(points)
    return np.array(path)


def crossed(path: Array) -> float:
    """The share of runs that end on the right of the ridge."""
    return float((path[-1, :, 0] > RIDGE).mean())


def noise_left(momentum: float, runs: int = 4000, steps: int = 200) -> float:
    """Variance of the averaged gradient (1 - β) v over that of a gradient, where gradients are noise alone."""
    random = np.random.default_rng(1)
    v = np.zeros(runs)
    for _ in range(steps):
        v = momentum * v + random.standard_normal(runs)
    return float(((1 - momentum) * v).var())


def measure() -> Measured:
    """Shares of runs that leave the narrow valley by noise, and descents over its ridge by momentum."""
    narrow = (NARROW - 0.15, 0.2)
    far = (-3.2, 0.3)
    exact = descend(narrow)
    levels = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0)
    noisy = {level: descend(narrow, noise=level, runs=RUNS) for level in levels}
    back = descend((WIDE, 0.2), noise=4.0, runs=RUNS)
    rolling = {beta: descend(far, momentum=beta) for beta in (0.0, 0.9)}
    matched = descend(far, lr=LR / (1 - 0.9))
    figure, axes = panels("Two valleys: what noise and momentum find", 3, width=4.2, height=3.6)
    picture(
        axes[0], exact[:, 0], noisy[4.0], "from the narrow valley, batches' noise off and on", ("no noise", "noise")
    )
    picture(axes[1], rolling[0.0][:, 0], rolling[0.9], "from far left", ("plain", "momentum 0.9"))
    axes[2].plot(levels, [100 * crossed(noisy[level]) for level in levels], "o-", color="#0072B2", label="left narrow")
    label(axes[2], "standard deviation of the gradient's noise", f"of {RUNS} runs (%)", "ended in the wide valley")
    return Measured(
        {
            "exact_crossed": crossed(exact),
            "noise_crossed": crossed(noisy[4.0]),
            "little_crossed": crossed(noisy[1.0]),
            "back": 1 - crossed(back),
            "plain_far": crossed(rolling[0.0]),
            "momentum_far": crossed(rolling[0.9]),
            "matched_far": crossed(matched),
            "averaged": noise_left(0.9),
        },
        figure,
    )


def picture(axes: Any, plain: Array, other: Array, title: str, names: tuple[str, str]) -> None:
    """Height lines with two paths: one, and of others the first that crosses."""
    x, y = np.meshgrid(np.linspace(-3.6, 3.6, 160), np.linspace(-1.8, 1.8, 100))
    axes.contourf(x, y, height(x, y), levels=18, cmap="Greys_r", alpha=0.55)
    chosen = int(np.argmax(other[-1, :, 0] > RIDGE))
    axes.plot(*other[::2, chosen].T, color="#D55E00", linewidth=0.7, label=names[1])
    axes.plot(*plain.T, color="#0072B2", linewidth=2.2, linestyle="--", label=names[0])
    axes.plot(*plain[0], "k^", markersize=7, label="start")
    axes.plot(*plain[-1], "o", color="#0072B2", markersize=7)
    axes.plot(*other[-1, chosen], "s", color="#D55E00", markersize=7)
    axes.set_xlim(-3.6, 3.6)
    axes.set_ylim(-1.8, 1.8)
    label(axes, "first weight", "second weight", title)
