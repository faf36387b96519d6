"""Language modelling: predict each token of a long text from those before it in a window."""

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor

from dlrun.contracts import PAD, UNK, DataSpec, Interval, Kind, PositiveInt, Splits, Task, Vocabulary
from dlrun.errors import DataError
from dlrun.examples import TextWindows
from dlrun.text import build_vocabulary, numbering, read_text, tokenize

HeldOut = Literal["turns", "shared"]
Share = Annotated[float, Interval(0, 1, open_low=True, open_high=True)]

ROUNDING = 1e-9  # of fractions, below which nothing is meant by it

SHAKESPEARE_CHARACTERS = 1_115_394
SHAKESPEARE_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"


def language(
    *,
    path: str,
    level: Literal["char", "word"],
    lower: bool,
    max_vocabulary: Annotated[int, Interval(3)] | None,
    min_count: PositiveInt,
    context: PositiveInt,
    stride: PositiveInt | None,
    val_fraction: Share = 0.05,
    test_fraction: Share = 0.05,
    held_out: HeldOut = "turns",
) -> Splits:
    """Any text file, in windows of `context` tokens.

    Training reads the beginning of the text. Its end is held out, and the windows there go by turns to validation and
    test: passages of a text differ so much that two halves of the end could not be compared, nor with the whole of it.

    Args:
        path: the file, UTF-8.
        level: what a token is: "char", or "word" (or mark of punctuation; spaces and line ends are lost).
        lower: take capitals as small letters.
        max_vocabulary: so many of the most frequent tokens at the most; None: all.
        min_count: tokens seen less often in the training part are unknown.
        context: tokens a model sees at once.
        stride: from the beginning of one training window to that of the next; None: `context`, so that an epoch reads
            every token once; 1: windows begin everywhere.
        val_fraction, test_fraction: shares of the text that are held out.
        held_out: turns, as above; shared: every window there is for validation and for test, which then is not
            independent of the choices made by validation. nanoGPT validates so and has no test.

    The vocabulary is that of the training part. It has special tokens (PAD and UNK) only if the text has tokens that
    are not in it. Held-out windows never overlap.
    Raises: DataError if the file cannot be read or is too short, or no token occurs `min_count` times.
    """
    tokens = tokenize(read_text(path, f"data.path={path}"), level, lower)
    train = tokens[: _trained_on(len(tokens), val_fraction, test_fraction)]
    vocabulary = build_vocabulary([train], level, lower=lower, special=(), max_size=max_vocabulary, min_count=min_count)
    if not set(tokens) <= set(vocabulary.tokens):
        special = (PAD, UNK)
        vocabulary = build_vocabulary(
            [train], level, lower=lower, special=special, max_size=max_vocabulary, min_count=min_count
        )
        if train and len(vocabulary) == len(special):
            raise DataError(
                f"no token of the {len(train):,} trained on occurs data.min_count={min_count} times; lower it, or give "
                "a longer text"
            )
    numbers = torch.from_numpy(np.array(numbering(vocabulary)(tokens), np.int32))
    return windows(
        "language", numbers, len(vocabulary), context, stride, val_fraction, test_fraction, held_out, vocabulary
    )


def tinyshakespeare(
    *,
    root: str,
    context: PositiveInt,
    stride: PositiveInt | None,
    val_fraction: Share = 0.05,
    test_fraction: Share = 0.05,
    held_out: HeldOut = "turns",
) -> Splits:
    """1,115,394 characters of Shakespeare's plays, 65 different ones.

    Args:
        root: the folder that holds tinyshakespeare.txt.
        context, stride, val_fraction, test_fraction, held_out: as for `language`. With fractions of 0.05 training reads
            the first 1,003,854 characters, as nanoGPT does, and validation and test have half each of nanoGPT's
            validation set, or with held_out=shared all of it.

    Raises: DataError if the file is absent or another.
    Source: Karpathy 2015, The Unreasonable Effectiveness of Recurrent Neural Networks.
    """
    path = Path(root).expanduser().absolute() / "tinyshakespeare.txt"
    if not path.is_file():
        raise DataError(
            f"data=tinyshakespeare is not there: there is no {path}; save {SHAKESPEARE_URL} under that name, or set "
            "data.root (or the environment variable DLRUN_DATA) to the folder that holds tinyshakespeare.txt"
        )
    text = read_text(path, f"data.root: {path}")
    if len(text) != SHAKESPEARE_CHARACTERS:
        raise DataError(
            f"data.root: {path} has {len(text):,} characters, but the published file has "
            f"{SHAKESPEARE_CHARACTERS:,}; save {SHAKESPEARE_URL} again, or read yours with data=language"
        )
    vocabulary = build_vocabulary([text], "char", special=())
    numbers = torch.from_numpy(np.array(numbering(vocabulary)(text), np.int32))
    return windows(
        "tinyshakespeare", numbers, len(vocabulary), context, stride, val_fraction, test_fraction, held_out, vocabulary
    )


def random_tokens(
    *,
    tokens: PositiveInt,
    vocabulary_size: PositiveInt,
    context: PositiveInt,
    seed: int,
    val_fraction: Share = 0.05,
    test_fraction: Share = 0.05,
    held_out: HeldOut = "turns",
) -> Splits:
    """A text of independent, equally frequent tokens: no model predicts it better than ln(vocabulary_size) nats.

    A loss below that on held-out text shows a model that sees the tokens it is to predict; one far below it in training
    shows how much a model can learn by heart.

    Args:
        tokens: length of the text.
        context, val_fraction, test_fraction, held_out: as for `language`.
        seed: makes the data.
    """
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randint(vocabulary_size, (tokens,), dtype=torch.int32, generator=generator)
    return windows(
        "random_tokens", numbers, vocabulary_size, context, None, val_fraction, test_fraction, held_out, None
    )


def windows(
    name: str,
    numbers: Tensor,
    vocabulary_size: int,
    context: int,
    stride: int | None,
    val_fraction: float,
    test_fraction: float,
    held_out: HeldOut,
    vocabulary: Vocabulary | None,
) -> Splits:
    """The splits of a text (L,) of token numbers: training windows from its beginning, the others from its end.

    Raises: DataError if there are too few windows.
    """
    begin = _trained_on(len(numbers), val_fraction, test_fraction)
    train, rest = numbers[:begin], numbers[begin:]
    starts, held = _starts(len(train), context, stride or context), _starts(len(rest), context, context)
    # Evenly spread: window k is for the test where the test's share of k windows passes a whole number.
    due = torch.arange(len(held) + 1, dtype=torch.float64) * (test_fraction / (val_fraction + test_fraction))
    is_test = (due + ROUNDING).floor().diff() > 0
    val, test = (held, held) if held_out == "shared" else (held[~is_test], held[is_test])
    if len(starts) < 3 or len(val) == 0 or len(test) == 0:
        raise DataError(
            f"data={name}: {len(numbers):,} tokens make {len(starts)} windows of data.context={context} for training, "
            f"{len(val)} for validation and {len(test)} for test, but 3, 1 and 1 are needed; give a longer text, a "
            "shorter context, or other data.val_fraction and data.test_fraction"
        )
    spec = DataSpec(
        name,
        Task.LANGUAGE_MODELLING,
        Kind.TOKENS,
        (context,),
        vocabulary_size,
        vocabulary_size=vocabulary_size,
        vocabulary=vocabulary,
    )
    return Splits(
        TextWindows(train, starts, context),
        spec,
        val=TextWindows(rest, val, context),
        test=TextWindows(rest, test, context),
    )


def _trained_on(length: int, val_fraction: float, test_fraction: float) -> int:
    return max(0, int(length * (1 - (val_fraction + test_fraction))))


def _starts(length: int, context: int, stride: int) -> Tensor:
    """Where windows begin in a text of that length; after each there is one token more, to predict."""
    return torch.arange(0, max(0, length - context), stride)
