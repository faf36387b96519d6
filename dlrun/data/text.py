"""Classification of texts: one file per class, or a table of texts and labels; and a published set of film reviews."""

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch

from dlrun.contracts import DataSpec, Interval, Kind, PositiveInt, Splits, Task
from dlrun.data.tokens import Tokens, fit_classes
from dlrun.errors import DataError, did_you_mean
from dlrun.inputs import is_missing, read_table
from dlrun.text import Level, read_text, tokenize

TABLES = {".csv": ",", ".tsv": "\t"}  # delimiter by suffix
RT_POLARITY = {"negative": "rt-polarity.neg", "positive": "rt-polarity.pos"}
RT_POLARITY_SENTENCES = 5331  # in each of the files
RT_POLARITY_URL = "https://www.cs.cornell.edu/people/pabo/movie-review-data/rt-polaritydata.tar.gz"

Labelled = list[tuple[str, str]]  # texts and their classes


def text_classification(
    *,
    path: str | dict[str, str],
    text: str,
    label: str,
    delimiter: str | None,
    test_path: str | dict[str, str] | None,
    level: Literal["word", "char"],
    lower: bool,
    max_vocabulary: Annotated[int, Interval(3)] | None,
    min_count: PositiveInt,
    max_length: PositiveInt | None,
) -> Splits:
    """Texts and their classes, each text a sequence of words or characters, numbered by the training texts.

    Args:
        path: {class: file} or a folder with a file CLASS.txt per class, one text per line (empty lines are skipped);
            or a table, .csv or .tsv, with a header line.
        text, label: the table's columns.
        delimiter: between the cells of the table; None: a tab in .tsv, else a comma.
        test_path: texts of the test set, in any of these forms; None: carved from those of `path`.
        level: what a token is: "word" (or mark of punctuation) or "char".
        lower: take capitals as small letters.
        max_vocabulary: so many of the most frequent tokens at the most, two special ones counted; None: all.
        min_count: tokens seen less often in the training texts are unknown, as new ones will be.
        max_length: tokens kept of a text, from its beginning; None: as many as the longest training text has.

    Returns: tokens padded with 0 at their end; classes in the order of the mapping, or by number or alphabet.
    Raises: DataError naming the file, and the line where there is one.
    """
    labelled = _read(path, "data.path", text, label, delimiter)
    classes = tuple(map(str, path)) if isinstance(path, dict) else _in_order({name for _, name in labelled})
    splits = _splits("text_classification", labelled, classes, level, lower, max_vocabulary, min_count, max_length)
    if test_path is not None:
        splits.test = _tokens(
            _read(test_path, "data.test_path", text, label, delimiter), classes, level, lower, "data.test_path"
        )
    return splits


def rt_polarity(
    *,
    root: str,
    level: Literal["word", "char"],
    lower: bool,
    max_vocabulary: Annotated[int, Interval(3)] | None,
    min_count: PositiveInt,
    max_length: PositiveInt | None,
) -> Splits:
    """5,331 negative and 5,331 positive sentences from film reviews, in small letters, words separated by spaces.

    Args:
        root: the folder that holds rt-polarity/, and in it rt-polarity.neg and rt-polarity.pos: in Windows-1252, as
            they were published, or in UTF-8, as most copies are.

    The others are those of `text_classification`.
    Raises: DataError if the files are absent or not those of the source.
    Source: Pang & Lee 2005, Seeing Stars (arXiv:cs/0506075), sentence polarity dataset v1.0.
    """
    folder = Path(root).expanduser().absolute() / "rt-polarity"
    labelled: Labelled = []
    for name, file in RT_POLARITY.items():
        lines = _lines(_published(folder / file))
        if len(lines) != RT_POLARITY_SENTENCES:
            raise DataError(
                f"data.root: {folder / file} has {len(lines):,} sentences, but the published file has "
                f"{RT_POLARITY_SENTENCES:,}; copy it again from {RT_POLARITY_URL}"
            )
        labelled += [(line, name) for line in lines]
    return _splits(
        "rt_polarity", labelled, tuple(RT_POLARITY), level, lower, max_vocabulary, min_count, max_length
    )  # fmt: skip


def _published(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"data=rt_polarity is not there: {path} cannot be read ({error.strerror}); put rt-polarity.neg and "
            f"rt-polarity.pos of {RT_POLARITY_URL} into {path.parent}, or set data.root (or the environment variable "
            "DLRUN_DATA) to the folder that holds rt-polarity/"
        ) from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace")


def _splits(
    name: str,
    labelled: Labelled,
    classes: tuple[str, ...],
    level: Level,
    lower: bool,
    max_vocabulary: int | None,
    min_count: int,
    max_length: int | None,
) -> Splits:
    counts = Counter(name for _, name in labelled)
    if len(classes) < 2:
        only = f"one class only, '{classes[0]}'" if classes else "no classes"
        raise DataError(f"data.path has {only}; two or more are needed")
    for label, count in counts.items():
        if count < 2:
            raise DataError(f"data.path: class '{label}' has a single text; give more of them or leave it out")
    spec = DataSpec(name, Task.CLASSIFICATION, Kind.TOKENS, (), len(classes), classes)
    options: dict[str, Any] = {
        "level": level,
        "lower": lower,
        "max_vocabulary": max_vocabulary,
        "min_count": min_count,
        "max_length": max_length,
    }
    return Splits(
        _tokens(labelled, classes, level, lower, "data.path"), spec, fit=partial(fit_classes, spec, **options)
    )


def _tokens(labelled: Labelled, classes: tuple[str, ...], level: Level, lower: bool, key: str) -> Tokens:
    number = {name: i for i, name in enumerate(classes)}
    for _, name in labelled:
        if name not in number:
            raise DataError(
                f"{key} has the class '{name}', which data.path does not have ({', '.join(classes)})."
                f"{did_you_mean(name, classes)}"
            )
    targets = torch.tensor([number[name] for _, name in labelled])
    return Tokens([tokenize(text, level, lower) for text, _ in labelled], targets)


def _read(path: str | dict[str, str], key: str, text: str, label: str, delimiter: str | None) -> Labelled:
    if not isinstance(path, str):
        return _read_files({str(name): Path(file) for name, file in path.items()}, key)
    place = Path(path).expanduser()
    if place.is_dir():
        files = {file.stem: file for file in sorted(place.glob("*.txt"))}
        if len(files) < 2:
            raise DataError(f"{key}={path} holds {len(files)} .txt files; two or more are needed, one per class")
        return _read_files(files, key)
    if not place.exists():
        raise DataError(
            f"{key}={path} does not exist; give a table (.csv, .tsv), a folder with CLASS.txt files, "
            "or {class: file, class: file}"
        )
    if place.suffix.lower() not in TABLES and delimiter is None:
        raise DataError(
            f"{key}={path} is neither a folder nor a table (.csv, .tsv); to read one file per class, write "
            f"'{key}={{class: file, class: file}}'"
        )
    return _read_columns(place, f"{key}={path}", text, label, delimiter or TABLES[place.suffix.lower()])


def _read_files(files: dict[str, Path], key: str) -> Labelled:
    return [(line, name) for name, file in files.items() for line in _lines(read_text(file, f"{key}: {file}"))]


def _lines(content: str) -> list[str]:
    # Not splitlines(), for which characters inside a sentence end a line, too.
    return [line for line in content.split("\n") if line.strip()]


def _read_columns(path: Path, title: str, text: str, label: str, delimiter: str) -> Labelled:
    if len(delimiter := {"tab": "\t", "\\t": "\t"}.get(delimiter, delimiter)) != 1:
        raise DataError(f"data.delimiter must be one character or 'tab', got '{delimiter}'")
    rows = read_table(path, delimiter, title)
    for key, name in (("text", text), ("label", label)):
        if name not in rows.header:
            raise DataError(
                f"{title} has no column '{name}' (data.{key}={name}); it has {', '.join(rows.header)}."
                f"{did_you_mean(name, rows.header)}"
            )
    labelled = list(zip(rows.column(text), rows.column(label), strict=True))
    for line, (content, name) in zip(rows.lines, labelled, strict=True):
        if not content or is_missing(name):
            missing = f"data.label={label}" if content else f"data.text={text}"
            raise DataError(f"{title}, line {line}: {missing} is missing; remove such rows")
    return labelled


def _in_order(names: set[str]) -> tuple[str, ...]:
    """Classes by number where all are numbers, else by alphabet."""
    # Sorted twice: 1 and 01 are equal as numbers, and the order of a set is another in each process.
    return tuple(sorted(sorted(names), key=int if all(name.isdecimal() for name in names) else str))
