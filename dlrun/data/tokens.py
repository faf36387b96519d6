"""Texts cut into tokens that have no numbers yet: `Splits.fit` numbers them by the vocabulary of the training split."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor

from dlrun.contracts import PAD, PAD_ID, UNK, UNK_ID, DataSpec, Vocabulary
from dlrun.errors import DataError
from dlrun.examples import Padded
from dlrun.text import Level, build_vocabulary, numbering


@dataclass
class Tokens:
    """N texts as lists of tokens, and what belongs to each: a class, or another such text.

    `targets` are (N,) int64 or N lists. They can be split, and no more: `fit_classes` and `fit_pairs` make examples.
    """

    texts: list[list[str]]
    targets: Tensor | list[list[str]]

    def __len__(self) -> int:
        return len(self.texts)

    def subset(self, index: Tensor) -> "Tokens":
        rows, targets = index.tolist(), self.targets
        chosen = targets[index] if isinstance(targets, Tensor) else [targets[row] for row in rows]
        return Tokens([self.texts[row] for row in rows], chosen)

    @property
    def nbytes(self) -> int:
        return sum(map(len, self.texts))

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def tensors(self) -> NoReturn:
        raise TypeError("tokens must be numbered by Splits.fit before they can be fingerprinted")

    def take(self, index: Tensor) -> NoReturn:
        raise TypeError("tokens must be numbered by Splits.fit before batches can be taken")

    def to(self, device: torch.device) -> NoReturn:
        raise TypeError("tokens must be numbered by Splits.fit before they can be moved to a device")


def fit_classes(
    spec: DataSpec,
    train: Tokens,
    *,
    level: Level,
    lower: bool,
    max_vocabulary: int | None,
    min_count: int,
    max_length: int | None,
) -> tuple[DataSpec, Callable[[Tokens], Padded]]:
    """The vocabulary of the training texts, and the function that numbers any texts by it.

    Args:
        max_vocabulary: of the most frequent tokens, PAD and UNK among them.
        min_count: tokens seen less often are UNK, so that UNK is learnt, too.
        max_length: tokens kept of a text, from its beginning; None: as many as the longest training text has.

    Returns: `spec` with vocabulary and shape (T,); a function from texts to `Padded`, T at the most.
    Raises: DataError if no token occurs `min_count` times.
    """
    vocabulary = learnt_vocabulary(train.texts, level, lower, (PAD, UNK), max_vocabulary, min_count)
    width = min(max(map(len, train.texts)), max_length or 1 << 30)
    spec = replace(spec, shape=(width,), vocabulary_size=len(vocabulary), padding=PAD_ID, vocabulary=vocabulary)
    number = numbering(vocabulary)

    def encode(part: Tokens) -> Padded:
        assert isinstance(part.targets, Tensor)
        numbers = [number(text[:width]) or [UNK_ID] for text in part.texts]
        return Padded(fill_up(numbers, width, PAD_ID), part.targets, lengths_of(numbers))

    return spec, encode


def fill_up(rows: Sequence[Sequence[int]], width: int, filling: int) -> Tensor:
    """Rows of at most `width` numbers as one tensor (N, width) int32, shorter ones filled up at their end."""
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    table = np.full((len(rows), width), filling, np.int32)
    table[np.arange(width) < lengths[:, None]] = np.fromiter(chain.from_iterable(rows), np.int32, lengths.sum())
    return torch.from_numpy(table)


def lengths_of(rows: Iterable[Sequence[int]]) -> Tensor:
    """Of N rows, (N,) int64."""
    return torch.tensor([len(row) for row in rows], dtype=torch.int64)


def learnt_vocabulary(
    texts: list[list[str]],
    level: Level,
    lower: bool,
    special: Sequence[str],
    max_vocabulary: int | None,
    min_count: int,
) -> Vocabulary:
    """`build_vocabulary` of the training texts.

    Raises: DataError if no token occurs `min_count` times.
    """
    vocabulary = build_vocabulary(
        texts, level, lower=lower, special=special, max_size=max_vocabulary, min_count=min_count
    )
    if len(vocabulary) == len(special):
        raise DataError(
            f"no token of the {len(texts):,} training texts occurs data.min_count={min_count} times; lower it, or give "
            "more text"
        )
    return vocabulary
