"""From text to numbers and back: what a token is, which there are, and how they are numbered.

Data families build vocabularies with these functions and `dlrun predict` reads new text by them, so both see the same
numbers.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import Literal

from dlrun.contracts import BOS, EOS, PAD, UNK, Vocabulary
from dlrun.errors import DataError

Level = Literal["char", "word"]

SPECIAL = (PAD, UNK, BOS, EOS)
WORD = re.compile(r"\w+(?:['\u2019]\w+)*|[^\w\s]")  # a word, with what apostrophes add to it; or a mark
NO_SPACE_BEFORE = frozenset(".,;:!?…%)]}»”-\u2010")
NO_SPACE_AFTER = frozenset("¿¡([{«“-\u2010")


def read_text(path: str | Path, label: str = "") -> str:
    """The whole of a text file in UTF-8, line ends as "\\n", without a byte order mark.

    Args:
        label: what errors call the file, such as "data.path=x.txt"; its path when empty.

    Raises: DataError if it is missing, unreadable, not UTF-8 (it names the line), or empty.
    """
    label = label or str(path)
    try:
        content = Path(path).expanduser().read_bytes()
    except OSError as error:
        raise DataError(f"{label} cannot be read: {error.strerror or error}; give the path of a text file") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, byte = content.count(b"\n", 0, error.start) + 1, content[error.start]
        raise DataError(
            f"{label}, line {line}: byte 0x{byte:02x} is not UTF-8; save the file in UTF-8 "
            "(iconv -f latin1 -t utf-8, if it is in Latin-1)"
        ) from error
    if not text.strip():
        raise DataError(f"{label} is empty; it must hold text")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def tokenize(text: str, level: Level, lower: bool = False) -> list[str]:
    """The tokens of a text: its characters, or its words and marks of punctuation without the spaces between.

    An accented letter is one character, however the text composes it (Unicode's form NFC).
    """
    text = unicodedata.normalize("NFC", text.lower() if lower else text)
    return list(text) if level == "char" else WORD.findall(text)


def build_vocabulary(
    texts: Iterable[Sequence[str]],
    level: Level,
    *,
    lower: bool = False,
    special: Sequence[str] = SPECIAL,
    max_size: int | None = None,
    min_count: int = 1,
) -> Vocabulary:
    """The tokens of some texts, special ones first, then the most frequent first (equals in alphabetical order).

    Args:
        texts: each the tokens that `tokenize` gave with this `level` and `lower`.
        max_size: keep so many tokens at the most, special ones included; None keeps all.
        min_count: leave out tokens seen less often.
    """
    counts = Counter(chain.from_iterable(texts))
    known = sorted((token for token, n in counts.items() if n >= min_count), key=lambda token: (-counts[token], token))
    room = len(known) if max_size is None else max(0, max_size - len(special))
    return Vocabulary((*special, *known[:room]), level, lower)


def numbering(vocabulary: Vocabulary) -> Callable[[Iterable[str]], list[int]]:
    """From tokens to their numbers; unknown ones become UNK, or are left out where there is none."""
    known = {token: number for number, token in enumerate(vocabulary.tokens)}
    unknown = known.get(UNK)

    def number(tokens: Iterable[str]) -> list[int]:
        if unknown is None:
            return [known[token] for token in tokens if token in known]
        return [known.get(token, unknown) for token in tokens]

    return number


def encoder(vocabulary: Vocabulary) -> Callable[[str], list[int]]:
    """From a text to the numbers of its tokens; unknown ones become UNK, or are left out where there is none."""
    number = numbering(vocabulary)
    return lambda text: number(tokenize(text, vocabulary.level, vocabulary.lower))


def decode(numbers: Iterable[int], vocabulary: Vocabulary) -> str:
    """The text of tokens up to the first EOS, without special tokens but UNK.

    Words are separated by spaces, but for those that print does not have: none before a full stop, none around a
    hyphen. What spaces, line ends and straight quotes there were is not known.
    """
    tokens = []
    for number in numbers:
        token = vocabulary.tokens[number]
        if token == EOS:
            break
        if token not in SPECIAL or token == UNK:
            tokens.append(token)
    return "".join(tokens) if vocabulary.level == "char" else _spaced(tokens)


def _spaced(words: Sequence[str]) -> str:
    pieces = list(words[:1])
    for before, word in pairwise(words):
        touching = before in NO_SPACE_AFTER or word in NO_SPACE_BEFORE
        pieces.append(word if touching else f" {word}")
    return "".join(pieces)
