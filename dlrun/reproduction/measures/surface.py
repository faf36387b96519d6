"""Descents on a surface with a narrow and a wide valley: what noise and momentum find, starting in the narrow one."""

from __future__ import annotations

from typing import Any

import numpy as np

from dlrun.glossary.figures import label, panels, styles
from dlrun.glossary.measure import Measured
from dlrun.glossary.measures.common import Array

NARROW, WIDE = -1.5, 1.5  # where the valleys are along x; a ridge at about -1 between them
WIDTHS = (0.35, 1.2)
Depths = tuple[float, float]
SHALLOW, EQUAL, DEEP = (0.9, 1.6), (1.6, 1.6), (2.4, 1.6)  # of the narrow valley and of the wide one
LR, STEPS, RUNS = 0.05, 2000, 400
RIDGE = -0.95
IN_NARROW, IN_WIDE = (NARROW - 0.15, 0.2), (WIDE, 0.2)
LEVELS = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0)


def height(x: Array, y: Array, depths: Depths = SHALLOW) -> Array:
    """A bowl with two Gaussian valleys: a narrow one on the left, a wide one on the right."""
    value = 0.05 * x**2 + 0.25 * y**2
    for at, depth, width in zip((NARROW, WIDE), depths, WIDTHS, strict=True):
        value = value - depth * np.exp(-((x - at) ** 2 + y**2) / (2 * width**2))
    return np.asarray(value)


def gradient(points: Array, depths: Depths = SHALLOW) -> Array:
    """Of `height`, by hand; (n, 2) to (n, 2)."""
    x, y = points.T
    found = np.stack([0.1 * x, 0.5 * y], 1)
    for at, depth, width in zip((NARROW, WIDE), depths, WIDTHS, strict=True):
        bump = depth * np.exp(-((x - at) ** 2 + y**2) / (2 * width**2)) / width**2
        found += np.stack([(x - at) * bump, y * bump], 1)
    return np.asarray(found)


def descend(
    start: tuple[float, float],
    *,
    depths: Depths = SHALLOW,
    noise: float = 0.0,
    momentum: float = 0.0,
    runs: int = 1,
    lr: float = LR,
) -> Array:
    """Paths of SGD whose gradients carry Gaussian noise, as those of batches do; it fades over the last third.

    Returns: (STEPS + 1, runs, 2).
    """
    random = np.random.default_rng(0)
    points = np.tile(np.array(start), (runs, 1))
    velocity, path = np.zeros_like(points), [points]
    for step in range(STEPS):
        left = min(1.0, 3 * (1 - step / STEPS))
        drawn = gradient(points, depths) + noise * left * random.standard_normal(points.shape)
        velocity = momentum * velocity + drawn
        points = points - lr * velocity
        path.append(points)
    return np.array(path)


def crossed(path: Array) -> float:
    """The share of runs that end on the right of the ridge."""
    return float((path[-1, :, 0] > RIDGE).mean())


def exchange(depths: Depths) -> tuple[Array, Array]:
    """Shares that change valley, by noise: of runs from the narrow one and of runs from the wide one."""
    leave = [crossed(descend(IN_NARROW, depths=depths, noise=level, runs=RUNS)) for level in LEVELS]
    enter = [1 - crossed(descend(IN_WIDE, depths=depths, noise=level, runs=RUNS)) for level in LEVELS]
    return np.array(leave), np.array(enter)


def noise_left(momentum: float, lr: float, runs: int = 4000, steps: int = 1000) -> tuple[float, float]:
    """Variances that noisy gradients leave on a parabola, w² / 2: of one step over lr / (1 - β), and of the weight.

    PyTorch's rule, v ← β v + g and w ← w - lr v, so that lr / (1 - β) is what a steady gradient moves w by.
    """
    random = np.random.default_rng(1)
    v, w = np.zeros(runs), np.zeros(runs)
    for _ in range(steps):
        v = momentum * v + w + random.standard_normal(runs)
        w = w - lr * v
    return float(((1 - momentum) * v).var()), float(w.var())


def smoothing(momentum: float = 0.9, lr: float = 0.01) -> dict[str, float]:
    """Variances with momentum over those without: of a step and of the weight where steps reach equally far, and of the
    weight at an equal learning rate."""
    step, weight = noise_left(momentum, lr)
    plain_step, plain_weight = noise_left(0.0, lr / (1 - momentum))
    _, same_lr = noise_left(0.0, lr)
    return {"step_noise": step / plain_step, "weight_noise": weight / plain_weight, "same_lr_noise": weight / same_lr}


def measure() -> Measured:
    """Shares of runs that leave each valley by noise, for three depths, and descents over the ridge by momentum."""
    far = (-3.2, 0.3)
    exact = descend(IN_NARROW)
    noisy = descend(IN_NARROW, noise=4.0, runs=RUNS)
    rolling = {beta: descend(far, momentum=beta) for beta in (0.0, 0.9)}
    matched = descend(far, lr=LR / (1 - 0.9))
    numbers = {
        "exact_crossed": crossed(exact),
        "plain_far": crossed(rolling[0.0]),
        "momentum_far": crossed(rolling[0.9]),
        "matched_far": crossed(matched),
        **smoothing(),
    }
    figure, axes = panels("Two valleys: what noise and momentum find", 3, width=4.4, height=3.8)
    names = ("no noise", "noise (a run that crosses)")
    picture(axes[0], exact[:, 0], noisy, "from the narrow valley; noise fades over the last third", names)
    picture(axes[1], rolling[0.0][:, 0], rolling[0.9], "from far left", ("plain", "momentum 0.9"))
    line = styles(marker=True)
    for name, depths, shown in (
        ("shallow", SHALLOW, "shallower"),
        ("equal", EQUAL, "as deep"),
        ("deep", DEEP, "deeper"),
    ):
        leave, enter = exchange(depths)
        best = int(np.argmax(leave - enter))
        numbers |= {
            f"{name}_leave": float(leave[best]),
            f"{name}_enter": float(enter[best]),
            f"{name}_at": LEVELS[best],
        }
        style = next(line)
        axes[2].plot(LEVELS, 100 * leave, **style, label=f"{shown}, leave it")
        axes[2].plot(
            LEVELS, 100 * enter, **{**style, "linewidth": 0.7, "fillstyle": "none"}, label=f"{shown}, leave wide"
        )
    label(
        axes[2],
        "standard deviation of the gradient's noise",
        f"of {RUNS} runs (%)",
        "changed valley, by the narrow one's depth",
    )
    return Measured(numbers, figure)


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
