"""Sets of examples beside `Arrays`: padded sequences, pairs of them, and windows that share one long series or text.

All hold tensors, gather batches by index, and move to a device as a whole, as `dlrun.contracts.Examples` says.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dlrun.contracts import Arrays, Batch, DataSpec, Examples, Kind, Task
from dlrun.errors import ConfigError


@dataclass
class MappedImages:
    """Images in a file of bytes that is mapped into memory: of it only what is asked for is read, and nothing copied.

    A split of them is a list of places in the file, and a process that loads data maps the file itself.

    Attributes:
        file: images one after the other, uint8.
        size: channels, height and width of each.
        index: (N,), their places in the file.
        targets: (N,).
    """

    file: str
    size: tuple[int, int, int]
    index: Tensor
    targets: Tensor

    def __post_init__(self) -> None:
        nbytes = os.path.getsize(self.file)
        # Private mapping: pages are shared and loaded on demand, but what is written stays in this process.
        mapped = torch.from_file(self.file, shared=False, size=nbytes, dtype=torch.uint8)
        self._images = mapped.view(-1, *self.size)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_images"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.__post_init__()

    @property
    def inputs(self) -> Tensor:
        """All of them, (N, C, H, W): the file itself if it is in order, else a copy."""
        total = len(self._images)
        whole = len(self.index) == total and torch.equal(self.index, torch.arange(total))
        return self._images if whole else self._images.index_select(0, self.index)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.index), *self.size)

    @property
    def dtype(self) -> torch.dtype:
        return torch.uint8

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) + self.targets.nbytes

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def tensors(self) -> Sequence[Tensor]:
        return self.inputs, self.targets

    def split(self, count: int) -> Iterator[Tensor]:
        """The images in parts of so many."""
        return (self._images.index_select(0, part) for part in self.index.split(count))

    def __len__(self) -> int:
        return len(self.index)

    def take(self, index: Tensor) -> Batch:
        return Batch(self._images.index_select(0, self.index[index]), self.targets.index_select(0, index))

    def subset(self, index: Tensor) -> MappedImages:
        return replace(self, index=self.index[index], targets=self.targets[index])

    def to(self, device: torch.device) -> Arrays:
        """In memory: on a GPU a copy, on the CPU one if they are a part of the file."""
        return Arrays(self.inputs.to(device), self.targets.to(device))


@dataclass
class Padded:
    """Sequences of different lengths, filled up at the end: inputs (N, T, ...), targets (N, ...), lengths (N,).

    Tokens may be kept in any integer type; batches have them in int64. The lengths stay on the CPU, where batches are
    put together: to cut a batch to its longest example must not wait for the device.
    """

    inputs: Tensor
    targets: Tensor
    lengths: Tensor

    @property
    def nbytes(self) -> int:
        return self.inputs.nbytes + self.targets.nbytes

    @property
    def device(self) -> torch.device:
        return self.inputs.device

    def tensors(self) -> Sequence[Tensor]:
        return self.inputs, self.targets, self.lengths

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, index: Tensor) -> Batch:
        inputs = self.inputs.index_select(0, index)
        inputs = inputs if inputs.is_floating_point() else inputs.long()
        return Batch(inputs, self.targets.index_select(0, index))

    def trim(self, batch: Batch, longest: Sequence[int]) -> Batch:
        assert isinstance(batch.inputs, Tensor)
        return Batch(batch.inputs[:, : max(1, longest[0])], batch.targets)

    def subset(self, index: Tensor) -> Padded:
        return Padded(self.inputs[index], self.targets[index], self.lengths[index.cpu()])

    def to(self, device: torch.device) -> Padded:
        return Padded(self.inputs.to(device), self.targets.to(device), self.lengths)


@dataclass
class Pairs:
    """Sources and targets of a sequence-to-sequence task, both padded tokens.

    Attributes:
        sources: (N, S).
        shifted: (N, T), BOS and then the target without its end: what has been said before each token.
        targets: (N, T), the target and EOS, filled up with `IGNORED`.
        lengths: (N, 2), of source and target, on the CPU.
    """

    sources: Tensor
    shifted: Tensor
    targets: Tensor
    lengths: Tensor

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in (self.sources, self.shifted, self.targets))

    @property
    def device(self) -> torch.device:
        return self.sources.device

    def tensors(self) -> Sequence[Tensor]:
        return self.sources, self.shifted, self.targets, self.lengths

    def __len__(self) -> int:
        return len(self.sources)

    def take(self, index: Tensor) -> Batch:
        sources, shifted, targets = (x.index_select(0, index).long() for x in self.tensors()[:3])
        return Batch((sources, shifted), targets)

    def trim(self, batch: Batch, longest: Sequence[int]) -> Batch:
        source, target = (max(1, length) for length in longest)
        return Batch((batch.inputs[0][:, :source], batch.inputs[1][:, :target]), batch.targets[:, :target])

    def subset(self, index: Tensor) -> Pairs:
        return Pairs(self.sources[index], self.shifted[index], self.targets[index], self.lengths[index.cpu()])

    def to(self, device: torch.device) -> Pairs:
        return Pairs(self.sources.to(device), self.shifted.to(device), self.targets.to(device), self.lengths)


@dataclass
class TextWindows:
    """Windows into one long text: inputs (T,) tokens, targets (T,) the token after each.

    Attributes:
        text: (L,) tokens of any integer type; all windows share it.
        starts: (N,) where each window begins, at most L - T - 1.
        length: T.
    """

    text: Tensor
    starts: Tensor
    length: int

    @property
    def nbytes(self) -> int:
        return self.text.nbytes + self.starts.nbytes

    @property
    def device(self) -> torch.device:
        return self.text.device

    def tensors(self) -> Sequence[Tensor]:
        return self.text, self.starts

    def __len__(self) -> int:
        return len(self.starts)

    def take(self, index: Tensor) -> Batch:
        offsets = torch.arange(self.length + 1, device=self.device)
        tokens = self.text[self.starts.index_select(0, index)[:, None] + offsets].long()
        return Batch(tokens[:, :-1], tokens[:, 1:].contiguous())

    def subset(self, index: Tensor) -> TextWindows:
        return replace(self, starts=self.starts[index])

    def to(self, device: torch.device) -> TextWindows:
        return replace(self, text=self.text.to(device), starts=self.starts.to(device))


@dataclass
class SeriesWindows:
    """Windows into one long series: inputs (T, F), targets the values of some columns in the `horizon` steps after.

    Attributes:
        series: (L, F) float; all windows share it.
        starts: (N,) where each window begins, at most L - T - horizon.
        length: T.
        horizon: H, time steps to forecast.
        columns: (C,) which columns; a batch's targets are (B, H · C), time first.
    """

    series: Tensor
    starts: Tensor
    length: int
    horizon: int
    columns: Tensor

    @property
    def nbytes(self) -> int:
        return self.series.nbytes + self.starts.nbytes

    @property
    def device(self) -> torch.device:
        return self.series.device

    def tensors(self) -> Sequence[Tensor]:
        return self.series, self.starts

    def __len__(self) -> int:
        return len(self.starts)

    def take(self, index: Tensor) -> Batch:
        starts = self.starts.index_select(0, index)[:, None]
        inputs = self.series[starts + torch.arange(self.length, device=self.device)]
        after = self.series[starts + torch.arange(self.length, self.length + self.horizon, device=self.device)]
        return Batch(inputs, after.index_select(2, self.columns).flatten(1))

    def subset(self, index: Tensor) -> SeriesWindows:
        return replace(self, starts=self.starts[index])

    def to(self, device: torch.device) -> SeriesWindows:
        return replace(
            self, series=self.series.to(device), starts=self.starts.to(device), columns=self.columns.to(device)
        )


@dataclass
class Mirrored:
    """Images with their mirror images, left and right: index i is the image, and i + N its mirror image.

    They are N examples all the same. `both` holds the 2 N of them, so that a batch is one gather.
    """

    both: Arrays

    @property
    def nbytes(self) -> int:
        return self.both.nbytes

    @property
    def device(self) -> torch.device:
        return self.both.device

    def tensors(self) -> Sequence[Tensor]:
        return self.both.tensors()

    def __len__(self) -> int:
        return len(self.both) // 2

    def take(self, index: Tensor) -> Batch:
        return self.both.take(index)

    def subset(self, index: Tensor) -> Mirrored:
        return Mirrored(self.both.subset(torch.cat([index, index + len(self)])))

    def to(self, device: torch.device) -> Mirrored:
        return Mirrored(self.both.to(device))


def with_mirror_images(examples: Examples, spec: DataSpec) -> Mirrored:
    """Images beside their mirror images, for `data.alternating_flip`; twice the memory.

    Raises: ConfigError if they are no images, or have to be reconstructed, or are not held in one tensor.
    """
    if spec.kind is not Kind.IMAGE or spec.task is Task.RECONSTRUCTION or not isinstance(examples, Arrays):
        what = f"{spec.kind.plural} for {spec.task.value.replace('_', ' ')}"
        raise ConfigError(
            f"data.alternating_flip=true mirrors images that are held in one tensor and not to be reconstructed, and "
            f"data={spec.name} gives {what}: leave it out, or take augment=flip where that fits."
        )
    inputs = torch.cat([examples.inputs, examples.inputs.flip(3)])
    return Mirrored(Arrays(inputs, torch.cat([examples.targets, examples.targets])))
