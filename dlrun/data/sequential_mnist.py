"""MNIST read pixel by pixel. Pixels stay bytes in memory and become numbers when a batch is gathered."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dlrun.contracts import Arrays, Batch, DataSpec, Kind, NonNegativeInt, Splits, Task
from dlrun.data.vision import mnist


@dataclass
class Pixels:
    """Sequences of bytes: batches are (B, T, 1) float32, (byte / 255 - mean) / std.

    Attributes:
        values: (N, T) uint8.
        targets: (N,) classes.
    """

    values: Tensor
    targets: Tensor
    mean: float = 0.0
    std: float = 1.0

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + self.targets.nbytes

    @property
    def device(self) -> torch.device:
        return self.values.device

    def tensors(self) -> Sequence[Tensor]:
        return self.values, self.targets

    def __len__(self) -> int:
        return len(self.values)

    def take(self, index: Tensor) -> Batch:
        values = self.values.index_select(0, index).float()
        return Batch(values.div_(255 * self.std).sub_(self.mean / self.std).unsqueeze(2), self.targets[index])

    def subset(self, index: Tensor) -> "Pixels":
        return replace(self, values=self.values[index], targets=self.targets[index])

    def to(self, device: torch.device) -> "Pixels":
        return replace(self, values=self.values.to(device), targets=self.targets.to(device))


def sequential_mnist(
    *, root: str, download: bool, permutation_seed: NonNegativeInt | None, normalize: bool = True
) -> Splits:
    """60,000 + 10,000 digits as sequences of 784 pixels, (784, 1), row by row from the top left.

    Args:
        root, download: as of data=mnist.
        permutation_seed: null, or what makes the one order in which the pixels of every image are read.
        normalize: by the training split's mean and standard deviation over all pixels; else they are in [0, 1].

    Source: Le et al. 2015 (arXiv:1504.00941).
    """
    splits = mnist(root=root, download=download)
    train, test = _pixels(splits.train, permutation_seed), _pixels(splits.test, permutation_seed)
    spec = DataSpec(
        "sequential_mnist", Task.CLASSIFICATION, Kind.SEQUENCE, (784, 1), 10, class_names=splits.spec.class_names
    )

    def fit(train: Pixels) -> tuple[DataSpec, Callable[[Pixels], Pixels]]:
        if not normalize:
            return spec, lambda pixels: pixels
        mean, std = _statistics(train.values)
        return replace(spec, mean=(mean,), std=(std,)), lambda pixels: replace(pixels, mean=mean, std=std)

    return Splits(train, spec, test=test, fit=fit)


def _pixels(images: Any, permutation_seed: int | None) -> Pixels:
    assert isinstance(images, Arrays)
    values = images.inputs.flatten(1)
    if permutation_seed is not None:
        values = values[:, torch.randperm(values.shape[1], generator=torch.Generator().manual_seed(permutation_seed))]
    return Pixels(values, images.targets)


def _statistics(values: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of bytes on the scale [0, 1], exact: there are only 256 values to count."""
    counts = torch.bincount(values.flatten(), minlength=256).double()
    levels = torch.arange(256, dtype=torch.float64) / 255
    mean = (counts @ levels) / counts.sum()
    return mean.item(), ((counts @ (levels - mean).square()) / counts.sum()).sqrt().item()
