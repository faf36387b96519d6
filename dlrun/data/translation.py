"""Translation: pairs of texts, one the translation of the other."""

from typing import Annotated, Literal

import torch

from dlrun.contracts import Interval, PositiveInt, Splits
from dlrun.data.pairs import Levels, pair_splits, tokenized
from dlrun.data.tokens import Tokens
from dlrun.errors import DataError
from dlrun.text import read_text


def translation(
    *,
    path: str,
    test_path: str | None,
    reverse: bool,
    source_level: Literal["word", "char"],
    target_level: Literal["word", "char"],
    lower: bool,
    max_vocabulary: Annotated[int, Interval(5)] | None,
    min_count: PositiveInt,
    max_length: PositiveInt | None,
) -> Splits:
    """Lines of source, tab, target; each side has a vocabulary of its own, from the training pairs.

    Args:
        path: the file, UTF-8. Columns after the second are ignored, so are empty lines and repetitions of a pair.
        test_path: pairs for the test set; None: carved from those of `path`.
        reverse: translate from the second column to the first.
        source_level, target_level: what a token is: "word" (or mark of punctuation) or "char".
        lower: take capitals as small letters, on both sides.
        max_vocabulary: so many of the most frequent tokens of a side at the most, special ones counted; None: all.
        min_count: tokens seen less often in the training pairs are unknown, as new ones will be.
        max_length: pairs with more tokens on a side are left out; None: none is.

    A source with several translations may be in several splits with one each.
    Raises: DataError naming the file and the line.
    """
    levels: Levels = (source_level, target_level)
    train = _short(tokenized(read_pairs(path, "data.path", reverse), levels, lower), max_length, f"data.path={path}")
    test = None
    if test_path is not None:
        test = tokenized(read_pairs(test_path, "data.test_path", reverse), levels, lower)
        test = _short(test, max_length, f"data.test_path={test_path}")
    return pair_splits(
        "translation", train, test, levels, lower=lower, max_vocabulary=max_vocabulary, min_count=min_count
    )


def _short(pairs: Tokens, max_length: int | None, label: str) -> Tokens:
    """The pairs whose sides both have at most `max_length` tokens."""
    if max_length is None:
        return pairs
    sides = zip(pairs.texts, pairs.targets, strict=True)
    kept = [i for i, (source, target) in enumerate(sides) if max(len(source), len(target)) <= max_length]
    if not kept:
        raise DataError(f"{label} has no pair of at most data.max_length={max_length} tokens on each side; allow more")
    return pairs.subset(torch.tensor(kept))


def read_pairs(path: str, key: str, reverse: bool) -> list[tuple[str, str]]:
    """The different pairs of a tab-separated file, in its order.

    Raises: DataError naming the line that has no tab or an empty side.
    """
    pairs: dict[tuple[str, str], None] = {}
    for number, line in enumerate(read_text(path, f"{key}={path}").split("\n"), 1):
        if not line.strip():
            continue
        cells = [cell.strip() for cell in line.split("\t")]
        if len(cells) < 2:
            raise DataError(f"{key}={path}, line {number}: there is no tab; a line must be source, tab, target")
        if not cells[0] or not cells[1]:
            side = "second" if cells[0] else "first"
            raise DataError(f"{key}={path}, line {number}: the {side} column is empty; complete or remove the line")
        pairs[(cells[1], cells[0]) if reverse else (cells[0], cells[1])] = None
    return list(pairs)
