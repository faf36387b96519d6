"""What a user gives to a model, files and texts, as the tensors that its data set would make of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dlrun.contracts import BOS, PAD, PAD_ID, UNK, DataSpec, Kind, Task, Vocabulary
from dlrun.errors import DataError
from dlrun.inputs import IMAGE_SUFFIXES, encode_rows, encode_window, read_image, read_rows
from dlrun.text import numbering, read_text, tokenize

TEXT_SUFFIXES = (".txt", ".text", ".csv", ".tsv", ".md")


def read_inputs(given: Sequence[str], spec: DataSpec, data: Mapping[str, Any]) -> tuple[list[str], Tensor]:
    """Names and inputs of all that is given: images and folders of them, CSV files, texts and files of texts.

    Args:
        data: the run's settings of its data.

    Raises: DataError if they are not what the model reads.
    """
    if spec.kind is Kind.IMAGE:
        return read_images(given, spec)
    if spec.kind is Kind.VECTOR and spec.columns:
        return read_tables(given, spec, data)
    if spec.kind is Kind.SEQUENCE and spec.task is Task.FORECASTING and spec.columns:
        return read_series(given, spec, data)
    if spec.kind is Kind.TOKENS and spec.task is Task.CLASSIFICATION and spec.vocabulary:
        return read_classified(given, spec)
    raise DataError(
        f"data={spec.name} has {spec.kind.plural} of shape {spec.shape}, which are in no kind of file; dlrun predict "
        "reads images, CSV rows, CSV series and texts."
    )


def read_images(given: Sequence[str], spec: DataSpec) -> tuple[list[str], Tensor]:
    """Image files, and all that are in folders: (N, C, H, W) uint8."""
    paths = existing(given)
    files = [file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    files = [file for file in files if file in paths or file.suffix.lower() in IMAGE_SUFFIXES]
    if not files:
        raise DataError(f"{given[0]}: no image ({', '.join(IMAGE_SUFFIXES)}) in it.")
    return [str(file) for file in files], torch.stack([read_image(file, spec) for file in files])


def read_tables(given: Sequence[str], spec: DataSpec, data: Mapping[str, Any]) -> tuple[list[str], Tensor]:
    """Rows of CSV files, read as the training table was: (N, F) float32."""
    labels, parts = [], []
    for path in existing(given):
        if path.is_dir():
            raise DataError(f"{path} is a folder; data={spec.name} has rows of a table: give CSV files.")
        rows = read_rows(path, delimiter_of(data))
        labels += [f"{path}:{number}" for number in range(1, len(rows) + 1)]
        try:
            parts.append(encode_rows(rows, spec.columns))
        except DataError as error:
            raise DataError(f"{path}, {error}") from None
    return labels, torch.cat(parts)


def read_series(given: Sequence[str], spec: DataSpec, data: Mapping[str, Any]) -> tuple[list[str], Tensor]:
    """The last rows of CSV files, read as the training series was: (N, T, F) float32."""
    paths, forward, delimiter = existing(given), data.get("missing") == "forward", delimiter_of(data)
    windows = [encode_window(path, spec, fill_forward=forward, delimiter=delimiter) for path in paths]
    return list(map(str, paths)), torch.cat(windows)


def delimiter_of(data: Mapping[str, Any]) -> str:
    """What stands between the cells of the run's own tables; a comma where there are none."""
    delimiter = str(data.get("delimiter") or ",")
    return "\t" if delimiter in ("tab", "\\t") else delimiter


def read_classified(given: Sequence[str], spec: DataSpec) -> tuple[list[str], Tensor]:
    """Texts to classify, cut to the length that was trained on: (N, T) tokens."""
    assert spec.vocabulary is not None
    texts = read_texts(given)
    rows = [encode(text, spec.vocabulary)[: spec.shape[0]] for text in texts]
    empty = [text for text, row in zip(texts, rows, strict=True) if not row]
    if empty:
        raise DataError(f"'{shortened(empty[0])}' holds no {unit(spec.vocabulary)}; give a text.")
    return texts, filled(rows, spec)


def read_texts(given: Sequence[str]) -> list[str]:
    """What is given, but for files, whose lines are texts of their own; empty ones are left out.

    Raises: DataError for what looks like the path of a file and is none.
    """
    texts = []
    for word in given:
        if (path := as_file(word)) is not None:
            texts += [line for line in read_text(path).split("\n") if line.strip()]
        else:
            texts.append(word)
    return texts


def read_prompt(word: str) -> str:
    """What a text begins with: the whole of a file, or the word itself."""
    path = as_file(word)
    return word if path is None else read_text(path)


def as_file(word: str) -> Path | None:
    """The file that a word names, or None if it is a text.

    Raises: DataError if it looks like the path of a text file, being without spaces, and there is none.
    """
    path = Path(word)
    try:
        if path.is_file():
            return path
    except OSError:  # a text too long for a name
        return None
    if path.suffix.lower() in TEXT_SUFFIXES and not any(c.isspace() for c in word):
        raise DataError(f"{word}: there is no such file to predict from.")
    return None


def existing(given: Sequence[str]) -> list[Path]:
    """Paths that must be there."""
    for word in given:
        if not Path(word).exists():
            raise DataError(f"{word}: there is no such file or folder to predict from.")
    return list(map(Path, given))


def encode(text: str, vocabulary: Vocabulary) -> list[int]:
    """The numbers of a text's tokens. Raises: DataError for a token that is not known where UNK is not, either."""
    tokens = tokenize(text, vocabulary.level, vocabulary.lower)
    known = set(vocabulary.tokens)
    strange = [token for token in tokens if token not in known]
    if strange and UNK not in known:
        raise DataError(
            f"the model does not know the {unit(vocabulary)} '{strange[0]}', which its training text did not have; "
            f"leave it out (it knows {len(vocabulary)} {unit(vocabulary)}s)."
        )
    return numbering(vocabulary)(tokens)


def unspoken(vocabulary: Vocabulary) -> list[int]:
    """The tokens that are no text: all special ones but EOS."""
    return [number for number, token in enumerate(vocabulary.tokens[:4]) if token in (PAD, UNK, BOS)]


def filled(rows: Sequence[Sequence[int]], spec: DataSpec) -> Tensor:
    """Rows of tokens as (N, T), padded to the longest."""
    width, padding = max(map(len, rows)), PAD_ID if spec.padding is None else spec.padding
    return torch.tensor([[*row, *[padding] * (width - len(row))] for row in rows])


def unit(vocabulary: Vocabulary) -> str:
    """What a token is."""
    return "character" if vocabulary.level == "char" else "word"


def shortened(text: str) -> str:
    """The beginning of a text, for a message."""
    return text if len(text) <= 40 else f"{text[:40]}…"
