"""Numbers in words and in digits: a translation that is generated, so attention can be shown without any files."""

import random
from collections.abc import Callable
from itertools import pairwise
from typing import Annotated, Literal

from dlrun.contracts import Interval, PositiveInt, Splits
from dlrun.data.pairs import Levels, pair_splits, tokenized
from dlrun.data.spelling import english, spanish
from dlrun.errors import DataError
from dlrun.text import Level

Language = Literal["spanish", "english", "digits"]

SPELL: dict[Language, Callable[[int], str]] = {"spanish": spanish, "english": english, "digits": str}


def number_words(
    *,
    source: Language,
    target: Language,
    maximum: Annotated[int, Interval(9, 999_999_999_999)],
    count: PositiveInt,
    seed: int,
) -> Splits:
    """Translate whole numbers between Spanish words, English words and digits: "dos mil quinientos" is "2500".

    Args:
        source, target: what is read and what is written. Tokens are words (and hyphens) or single digits.
        maximum: the largest number that may occur; the least is 0.
        count: different numbers, and so examples: a number is in one split only.
        seed: chooses the numbers.

    Numbers of every length are equally frequent, as far as there are so many of them.
    Raises: DataError if `source` is `target`, or if there are fewer numbers than `count`.
    """
    if source == target:
        raise DataError(f"data.source and data.target are both {source}; one must be another of {', '.join(SPELL)}")
    if count > maximum + 1:
        raise DataError(
            f"data.count={count:,} is more than the {maximum + 1:,} numbers from 0 to data.maximum; lower one or raise "
            "the other"
        )
    pairs = [(SPELL[source](number), SPELL[target](number)) for number in draw(count, maximum, seed)]
    levels: Levels = (_level(source), _level(target))
    return pair_splits("number_words", tokenized(pairs, levels), None, levels)


def draw(count: int, maximum: int, seed: int) -> list[int]:
    """`count` different numbers in 0 ... `maximum`, in random order, equally many of each number of digits if possible.

    Where there are not so many, all are drawn, and the other lengths share the rest.
    """
    rng = random.Random(seed)
    bounds = [0, *(10**digits for digits in range(1, len(str(maximum)))), maximum + 1]
    bands = sorted((range(low, high) for low, high in pairwise(bounds)), key=len)
    drawn: list[int] = []
    for i, band in enumerate(bands):  # the smallest first, which may have fewer than their share
        share = min(len(band), (count - len(drawn)) // (len(bands) - i))
        drawn += rng.sample(band, share)
    rng.shuffle(drawn)
    return drawn


def _level(language: Language) -> Level:
    return "char" if language == "digits" else "word"
