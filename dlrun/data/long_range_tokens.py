"""Tasks on made-up tokens that need a long memory, and nothing else."""

from typing import Annotated

import numpy as np
import torch

from dlrun.contracts import (
    IGNORED,
    PAD,
    PAD_ID,
    Arrays,
    DataSpec,
    Interval,
    Kind,
    PositiveInt,
    Splits,
    Task,
    Vocabulary,
)
from dlrun.errors import DataError
from dlrun.examples import Padded

SYMBOLS, BLANK, MARK = 8, 8, 9  # the tokens of copy_memory: 0 ... 7 to remember, one for waiting, one for "now"


def copy_memory(*, samples: PositiveInt, delay: PositiveInt, items: PositiveInt, seed: int) -> Splits:
    """Read some symbols, wait, and say them again.

    An example is `items` symbols out of 8, `delay` - 1 blanks, a mark, and blanks again, `items` of them; at these the
    symbols are to be said, in their order. Nothing else counts, so that the loss of a model without memory, which can
    only guess, is ln 8 = 2.079 at best and its accuracy 1/8.

    Args:
        delay: T of the source: steps from the last symbol to the mark.
        seed: makes the data.

    Returns: inputs (delay + 2 items,) in 0 ... 9; targets of the same shape, `IGNORED` but for the last `items`.
    Source: Arjovsky, Shah & Bengio 2016, sec. 4.1 (arXiv:1511.06464), whose loss counts the blanks, too; after
    Hochreiter & Schmidhuber 1997 (doi:10.1162/neco.1997.9.8.1735).
    """
    length = delay + 2 * items
    symbols = torch.randint(SYMBOLS, (samples, items), generator=torch.Generator().manual_seed(seed))
    inputs = torch.full((samples, length), BLANK)
    inputs[:, :items] = symbols
    inputs[:, items + delay - 1] = MARK
    targets = torch.full((samples, length), IGNORED)
    targets[:, -items:] = symbols
    tokens = Vocabulary((*map(str, range(SYMBOLS)), "_", "!"))
    spec = DataSpec(
        "copy_memory",
        Task.LANGUAGE_MODELLING,
        Kind.TOKENS,
        (length,),
        len(tokens),
        vocabulary_size=len(tokens),
        vocabulary=tokens,
    )
    return Splits(Arrays(inputs, targets), spec)


def parity(
    *, samples: PositiveInt, min_length: PositiveInt, max_length: Annotated[int, Interval(1, 62)], seed: int
) -> Splits:
    """Is the number of ones in a sequence of bits odd? Every bit counts, so that guessing by parts is of no use.

    Half of the sequences are of either class, or nearly so: the loss of a guess is ln 2 = 0.693. Lengths are uniform
    from `min_length` to `max_length`; where they differ there can be a curriculum (data.order=curriculum).

    Args:
        samples: different sequences, and so examples: none is in two splits.
        seed: makes the data.

    Returns: tokens padded with 0 at their end, a bit b being token b + 1.
    Raises: DataError if there are fewer than 2 `samples` sequences of these lengths.
    Source: Minsky & Papert 1969, Perceptrons; as a task for recurrent networks, Hochreiter & Schmidhuber 1997.
    """
    if min_length > max_length:
        raise DataError(f"data.min_length={min_length} is more than data.max_length={max_length}")
    possible = 2 ** (max_length + 1) - 2**min_length
    if 2 * samples > possible:
        raise DataError(
            f"data.samples must be at most half of the {possible:,} sequences of {min_length} to {max_length} bits, so "
            f"that all are different, got {samples:,}"
        )
    lengths, bits = _different_sequences(samples, min_length, max_length, np.random.default_rng(seed))
    ones = (bits[:, None] >> np.arange(max_length)) & 1
    inside = np.arange(max_length) < lengths[:, None]
    inputs = torch.from_numpy(np.where(inside, ones + 1, PAD_ID))
    targets = torch.from_numpy((ones * inside).sum(1) % 2)
    tokens = Vocabulary((PAD, "0", "1"))
    spec = DataSpec(
        "parity",
        Task.CLASSIFICATION,
        Kind.TOKENS,
        (max_length,),
        2,
        ("even", "odd"),
        vocabulary_size=len(tokens),
        padding=PAD_ID,
        vocabulary=tokens,
    )
    return Splits(Padded(inputs.to(torch.int32), targets, torch.from_numpy(lengths)), spec)


def _different_sequences(
    count: int, shortest: int, longest: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Lengths (count,) and bits (count,) int64, the first bit lowest; drawn again until all are different."""
    drawn = np.empty((0, 2), np.int64)
    while len(drawn) < count:
        lengths = rng.integers(shortest, longest, size=count, endpoint=True)
        bits = rng.integers(0, 2**lengths)
        drawn = np.concatenate([drawn, np.stack([lengths, bits], axis=1)])
        drawn = drawn[np.sort(np.unique(drawn, axis=0, return_index=True)[1])]
    return drawn[:count, 0], drawn[:count, 1]
