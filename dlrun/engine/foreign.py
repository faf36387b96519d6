"""A map-style torch Dataset as `Examples`, so that users can bring the one they have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from dlrun.contracts import Batch, Examples, Splits
from dlrun.errors import ContractError

UNKNOWN_SIZE = 1 << 62  # bytes: never taken to fit on a device


class DatasetExamples:
    """Items (input, target) of a torch Dataset, gathered one by one; `targets` is used for stratified splits."""

    def __init__(self, dataset: Dataset[Any], index: Tensor | None = None, targets: Tensor | None = None) -> None:
        self.dataset = dataset
        self.index = torch.arange(len(dataset)) if index is None else index  # type: ignore[arg-type]
        self._targets = targets

    @property
    def targets(self) -> Tensor:
        if self._targets is None:
            known = getattr(self.dataset, "targets", None)
            items: Any = self.dataset
            every = [items[i][1] for i in range(len(items))] if known is None else known
            self._targets = torch.as_tensor(every)[self.index]
        return self._targets

    @property
    def nbytes(self) -> int:
        return UNKNOWN_SIZE

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def tensors(self) -> Sequence[Tensor]:
        return (self.targets,)  # reading every input would take as long as an epoch

    def __len__(self) -> int:
        return len(self.index)

    def take(self, index: Tensor) -> Batch:
        inputs, targets = default_collate([self.dataset[int(i)] for i in self.index[index]])
        return Batch(inputs, targets)

    def subset(self, index: Tensor) -> DatasetExamples:
        return DatasetExamples(self.dataset, self.index[index], self.targets[index])

    def to(self, device: torch.device) -> DatasetExamples:
        return self


def adapt(splits: Splits) -> Splits:
    """The splits with every torch Dataset wrapped.

    Raises: ContractError if a split is neither Examples nor a map-style Dataset.
    """
    return Splits(
        _adapt("train", splits.train),
        splits.spec,
        None if splits.val is None else _adapt("val", splits.val),
        None if splits.test is None else _adapt("test", splits.test),
        splits.fit,
    )


def _adapt(name: str, part: Any) -> Examples:
    if hasattr(part, "subset") and hasattr(part, "take"):
        return part  # type: ignore[no-any-return]
    if hasattr(part, "__getitem__") and hasattr(part, "__len__"):
        return DatasetExamples(part)
    raise ContractError(
        f"the {name} split must be dlrun.contracts.Examples or a torch Dataset with __len__ and __getitem__, "
        f"got {type(part).__name__}."
    )
