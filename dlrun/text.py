"""From text to numbers and back: what a token is, which there are, and how they are numbered.

Data families build vocabularies with these functions and `dlrun predict` reads new text by them, so both see the same
numbers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from dlrun.contracts import BOS, EOS, PAD, UNK, Vocabulary

SPECIAL = (PAD, UNK, BOS, EOS)
WORD = re.compile(r"\w+(?:'\w+)?|[^\w\s]")  # a word, with what an apostrophe adds to it; or a mark


def tokenize(text: str, level: Literal["char", "word"], lower: bool = False) -> list[str]:
    """The tokens of a text: its characters, or its words and marks of punctuation without the spaces between."""
    text = text.lower() if lower else text
    return list(text) if level == "char" else WORD.findall(text)


def build_vocabulary(
    texts: Iterable[str],
    level: Literal["char", "word"],
    *,
    lower: bool = False,
    special: Sequence[str] = SPECIAL,
    max_size: int | None = None,
    min_count: int = 1,
) -> Vocabulary:
    """The tokens of some texts, special ones first, then the most frequent first (equals in alphabetical order).

    Args:
        max_size: keep so many tokens at the most, special ones included; null keeps all.
        min_count: leave out tokens seen less often.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(tokenize(text, level, lower))
    known = sorted((token for token, n in counts.items() if n >= min_count), key=lambda token: (-counts[token], token))
    room = len(known) if max_size is None else max(0, max_size - len(special))
    return Vocabulary((*special, *known[:room]), level, lower)


def encoder(vocabulary: Vocabulary) -> Callable[[str], list[int]]:
    """From a text to the numbers of its tokens; unknown ones become UNK, or are left out where there is none."""
    known = {token: number for number, token in enumerate(vocabulary.tokens)}
    unknown = known.get(UNK)

    def encode(text: str) -> list[int]:
        numbers = [known.get(token, unknown) for token in tokenize(text, vocabulary.level, vocabulary.lower)]
        return [number for number in numbers if number is not None]

    return encode


def decode(numbers: Iterable[int], vocabulary: Vocabulary) -> str:
    """The text of tokens up to the first EOS, without special tokens; words are separated by spaces."""
    tokens = []
    for number in numbers:
        token = vocabulary.tokens[number]
        if token == EOS:
            break
        if token not in SPECIAL or token == UNK:
            tokens.append(token)
    return ("" if vocabulary.level == "char" else " ").join(tokens)
