"""Data made by a formula: as many as wanted, with the noise one chooses.

`seed` here makes the data; the run's own seed never changes them. Inputs are float32 (N, features).
scikit-learn, which takes 1.2 s to load, is imported by those that need it.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray

from dlrun.contracts import (
    Arrays,
    DataSpec,
    Kind,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Probability,
    Splits,
    Task,
)


def moons(*, samples: PositiveInt, noise: NonNegativeFloat, seed: int) -> Splits:
    """Two interleaving half circles of radius 1; `noise` is the standard deviation of each coordinate's error."""
    from sklearn import datasets

    return _classes("moons", *datasets.make_moons(samples, noise=noise, random_state=seed), classes=2)


def circles(*, samples: PositiveInt, noise: NonNegativeFloat, factor: Probability, seed: int) -> Splits:
    """Two circles of radius 1 and `factor`; `noise` is the standard deviation of each coordinate's error."""
    from sklearn import datasets

    made = datasets.make_circles(samples, noise=noise, factor=factor, random_state=seed)
    return _classes("circles", *made, classes=2)


def spirals(
    *, samples: PositiveInt, classes: PositiveInt, turns: PositiveFloat, noise: NonNegativeFloat, seed: int
) -> Splits:
    """`classes` Archimedean spirals that wind `turns` times around the origin and end at radius 1.

    Point t in [0, 1] of arm k lies at radius t and angle 2 pi (turns t + k / classes); `noise` is the standard
    deviation of the error then added to each coordinate.
    Source: Lang & Witbrock 1988, Learning to Tell Two Spirals Apart.
    """
    rng = np.random.default_rng(seed)
    labels = np.arange(samples) % classes
    radius = rng.uniform(size=samples)
    angle = 2 * math.pi * (turns * radius + labels / classes)
    points = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return _classes("spirals", points + noise * rng.standard_normal(points.shape), labels, classes=classes)


def xor(*, samples: PositiveInt, noise: NonNegativeFloat, seed: int) -> Splits:
    """Points uniform in [-1, 1]^2, of class 1 where the signs of their coordinates differ: no line separates them.

    `noise` is the standard deviation of the error added to each coordinate after the class is given.
    """
    rng = np.random.default_rng(seed)
    points = rng.uniform(-1, 1, size=(samples, 2))
    labels = (points[:, 0] > 0) ^ (points[:, 1] > 0)
    return _classes("xor", points + noise * rng.standard_normal(points.shape), labels, classes=2)


def blobs(
    *, samples: PositiveInt, classes: PositiveInt, features: PositiveInt, noise: NonNegativeFloat, seed: int
) -> Splits:
    """One isotropic Gaussian of standard deviation `noise` per class, centred uniformly in [-10, 10]^features."""
    from sklearn import datasets

    made = datasets.make_blobs(samples, n_features=features, centers=classes, cluster_std=noise, random_state=seed)
    return _classes("blobs", made[0], made[1], classes=classes)


def linear(
    *, samples: PositiveInt, features: PositiveInt, outputs: PositiveInt, noise: NonNegativeFloat, seed: int
) -> Splits:
    """Regression y = x W + b + noise e, with x, W, b and e standard normal; targets float32 (N, outputs).

    The best possible mean squared error is noise².
    """
    rng = np.random.default_rng(seed)
    weight, bias = rng.standard_normal((features, outputs)), rng.standard_normal(outputs)
    inputs = rng.standard_normal((samples, features))
    targets = inputs @ weight + bias + noise * rng.standard_normal((samples, outputs))
    spec = DataSpec("linear", Task.REGRESSION, Kind.VECTOR, (features,), outputs)
    return Splits(Arrays(torch.from_numpy(inputs).float(), torch.from_numpy(targets).float()), spec)


def _classes(
    name: str, points: NDArray[np.floating], labels: NDArray[np.integer | np.bool_], *, classes: int
) -> Splits:
    names = tuple(str(label) for label in range(classes))
    spec = DataSpec(name, Task.CLASSIFICATION, Kind.VECTOR, points.shape[1:], classes, names)
    return Splits(Arrays(torch.from_numpy(points).float(), torch.from_numpy(labels).long()), spec)
