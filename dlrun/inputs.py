"""From files to model inputs: images and rows of a table, as a `DataSpec` says.

Data families read their training files with these functions and `dlrun predict` reads new ones, so both see the same
numbers. Knows nothing of training.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dlrun.contracts import Column, DataSpec, Kind
from dlrun.errors import DataError, did_you_mean

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
MISSING = frozenset({"", "na", "n/a", "nan", "null", "?"})  # case is ignored


def read_image(path: str | Path, spec: DataSpec) -> Tensor:
    """Read an image file as an input of the data that `spec` describes: resized, cropped, grey or RGB.

    Returns: uint8 of shape `spec.shape`, (C, H, W), values 0-255, not normalised.
    Raises: DataError if the file is not a readable image, or if inputs of `spec` are not grey or RGB images.
    """
    if spec.kind != Kind.IMAGE or spec.shape[0] not in (1, 3):
        raise DataError(
            f"{path}: data={spec.name} has {spec.kind.plural} of shape {spec.shape}, not grey or RGB images"
        )
    return torch.from_numpy(decode_image(path, *spec.shape))


def decode_image(
    source: str | Path | BinaryIO, channels: int, height: int, width: int, *, name: str | Path | None = None
) -> NDArray[np.uint8]:
    """Decode an image file to exactly (channels, height, width), uint8; `channels` is 1 (grey) or 3 (RGB).

    An image of another size is resized, keeping its proportions, until it just covers height x width (bilinear with
    antialiasing), and cropped to the centre: what torchvision's Resize and CenterCrop do.

    Args:
        name: what messages call `source`, where it is not the path.

    Raises: DataError naming the file if it is missing, damaged or not an image.
    """
    try:
        with Image.open(source) as image:
            # A JPEG can be decoded at 1/2, 1/4 or 1/8 of its size in a fraction of the time. It stays at least twice
            # as large as what is wanted, so that the resize below still does the antialiasing.
            image.draft(None, (2 * width, 2 * height))
            pixels = np.array(_cover(_in_colours(image, channels), height, width))
    except Exception as error:  # the decoders of PIL raise nearly anything on damaged files
        reason = "not an image of a known format" if "cannot identify" in str(error) else str(error)
        raise DataError(f"the image {name or source} cannot be read ({reason}); repair or remove it") from error
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _in_colours(image: Image.Image, channels: int) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits of grey: PIL's own conversion would clip them at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "P":  # palettes with transparency go through RGBA, as PIL asks
        image = image.convert("RGBA")
    wanted = "L" if channels == 1 else "RGB"
    return image if image.mode == wanted else image.convert(wanted)


def _cover(image: Image.Image, height: int, width: int) -> Image.Image:
    """Resize so that the shorter side fits, then crop the centre."""
    if image.size == (width, height):
        return image
    if width * image.height >= height * image.width:
        size = (width, image.height * width // image.width)
    else:
        size = (image.width * height // image.height, height)
    image = image.resize(size, Image.Resampling.BILINEAR)
    left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
    return image.crop((left, top, left + width, top + height))


@dataclass(frozen=True)
class Rows:
    """A CSV file as text: the header, the cells by row, and the line of the file on which each row ends."""

    label: str
    header: list[str]
    cells: list[list[str]]
    lines: list[int]

    def column(self, name: str) -> list[str]:
        """The cells of one column."""
        at = self.header.index(name)
        return [row[at] for row in self.cells]


def read_table(path: str | Path, delimiter: str = ",", label: str = "") -> Rows:
    """Read a CSV file with a header line; spaces around cells are dropped, empty lines skipped.

    Args:
        label: what errors call the file, such as "data.path=x.csv"; its path when empty.

    Raises: DataError if the file is missing, unreadable, empty, without rows, or not rectangular.
    """
    label = label or str(path)
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter=delimiter)
            numbered = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if row]
    except OSError as error:
        raise DataError(f"{label} cannot be read: {error.strerror or error}; give the path of a CSV file") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{label} is not a CSV file in UTF-8 ({error})") from error
    if not numbered:
        raise DataError(f"{label} is empty; its first line must name the columns")
    header = numbered[0][1]
    twice = [name for name in header if header.count(name) > 1]
    if twice:
        raise DataError(f"{label} has two columns named '{twice[0]}'; rename one in its first line")
    if len(numbered) == 1:
        raise DataError(f"{label} has a header and no rows")
    for line, row in numbered:
        if len(row) != len(header):
            raise DataError(
                f"{label}, line {line}: {len(row)} cells, but the header names {len(header)} columns; correct the line "
                f"or the delimiter, which is {delimiter!r}"
            )
    return Rows(label, header, [row for _, row in numbered[1:]], [line for line, _ in numbered[1:]])


def read_rows(path: str | Path, delimiter: str = ",") -> list[dict[str, str]]:
    """The rows of a CSV file with a header line, each a dictionary by column name.

    Raises: DataError as `read_table`.
    """
    table = read_table(path, delimiter)
    return [dict(zip(table.header, row, strict=True)) for row in table.cells]


def is_missing(cell: str) -> bool:
    """Whether a cell says that its value is not known."""
    return cell.casefold() in MISSING


def parse_numbers(cells: Sequence[str]) -> tuple[NDArray[np.float64], list[int]]:
    """Numbers of the cells (NaN for missing ones), and the positions of those that are neither number nor missing."""
    numbers = np.full(len(cells), np.nan)
    wrong = []
    for i, cell in enumerate(cells):
        try:
            numbers[i] = float(cell)
        except ValueError:
            if not is_missing(cell):
                wrong.append(i)
    infinite = np.flatnonzero(np.isinf(numbers))
    numbers[infinite] = np.nan
    return numbers, sorted([*wrong, *infinite.tolist()])


def encode_column(values: NDArray[Any], column: Column) -> NDArray[np.float32]:
    """One column as `column` says: (N,) numbers with NaN, or (N,) texts -> (N, 1) or (N, categories)."""
    if not column.categories:
        filled = np.where(np.isnan(values), column.fill, values)
        standardised: NDArray[np.float64] = (filled - column.mean) / column.std
        return standardised.astype(np.float32)[:, None]
    position = {category: i for i, category in enumerate(column.categories) if category}
    found = np.array([position.get(value, -1) for value in values], dtype=np.int64)
    return np.equal(found[:, None], np.arange(len(column.categories))).astype(np.float32)


def encode_rows(rows: Sequence[dict[str, str]], columns: Sequence[Column]) -> Tensor:
    """Encode rows of text as the training data were; columns that the model does not use are ignored.

    Returns: float32 (N, F), one feature per numeric column and one per category of the others.
    Raises: DataError naming row (from 1) and column if a column is absent or a number column holds text.
    """
    encoded = []
    for column in columns:
        for number, row in enumerate(rows, 1):
            if column.name not in row:
                hint = did_you_mean(column.name, row)
                raise DataError(f"row {number} has no column '{column.name}', which the model reads.{hint}")
        cells = [row[column.name].strip() for row in rows]
        values: NDArray[Any] = np.array(cells, dtype=object)
        if not column.categories:
            values, wrong = parse_numbers(cells)
            if wrong:
                raise DataError(
                    f"row {wrong[0] + 1}, column '{column.name}': '{cells[wrong[0]]}' is not a finite number; correct "
                    "it, or leave the cell empty if the value is missing"
                )
        encoded.append(encode_column(values, column))
    return torch.from_numpy(np.concatenate(encoded, axis=1))


def read_numbers(rows: Rows, name: str, *, fill_forward: bool = False, hint: str = "") -> NDArray[np.float64]:
    """One column of a series: (N,) finite numbers without gaps.

    Args:
        fill_forward: a missing value is the last known one before it; else it is refused.
        hint: what the refusal of a gap adds to the way out.

    Raises: DataError naming line and column.
    """
    cells = rows.column(name)
    numbers, wrong = parse_numbers(cells)
    if wrong:
        raise DataError(
            f"{rows.label}, line {rows.lines[wrong[0]]}, column '{name}': '{cells[wrong[0]]}' is not a finite number; "
            "correct it"
        )
    gaps = np.isnan(numbers)
    if gaps.any() and (not fill_forward or gaps[0]):
        before = ", and there is none before it to repeat" if fill_forward else ""
        raise DataError(
            f"{rows.label}, line {rows.lines[int(gaps.argmax())]}, column '{name}': the value is missing{before}; a "
            f"series must have one in every row: fill it in{hint}"
        )
    known = np.maximum.accumulate(np.where(gaps, 0, np.arange(len(numbers))))
    filled: NDArray[np.float64] = numbers[known]
    return filled


def encode_window(path: str | Path, spec: DataSpec, *, fill_forward: bool = False, delimiter: str = ",") -> Tensor:
    """The last rows of a CSV file as the input from which a forecasting model tells the rows after them.

    The model's output, (1, H · C), times `spec.target_std` plus `spec.target_mean` is the forecast in the series' own
    units, time first: `.view(H, C)` has a row per time step, a column per `spec.target_columns`.

    Args:
        spec: of sequences (T, F) whose features are `spec.columns`, found in the file by name; others are ignored.
        fill_forward: as in `read_numbers`, what data.missing=forward says.

    Returns: float32 (1, T, F), standardised as the training rows were.
    Raises: DataError if `spec` is of other data, a column or a value is missing, or there are fewer than T rows.
    """
    if spec.kind is not Kind.SEQUENCE or not spec.columns:
        raise DataError(f"{path}: data={spec.name} has {spec.kind.plural} of shape {spec.shape}, not rows of a series")
    rows = read_table(path, delimiter)
    for column in spec.columns:
        if column.name not in rows.header:
            hint = did_you_mean(column.name, rows.header)
            raise DataError(f"{path} has no column '{column.name}', which the model reads.{hint}")
    length = spec.shape[0]
    if len(rows.cells) < length:
        raise DataError(
            f"{path} has {len(rows.cells)} rows, but the model forecasts from the last {length} "
            f"(data.context={length}); give at least so many"
        )
    if not fill_forward:  # gaps before the window do not matter
        rows = Rows(rows.label, rows.header, rows.cells[-length:], rows.lines[-length:])
    numbers = [read_numbers(rows, column.name, fill_forward=fill_forward)[-length:] for column in spec.columns]
    return encode_series(np.stack(numbers, axis=1), spec.columns)[None]


def encode_series(values: NDArray[np.float64], columns: Sequence[Column]) -> Tensor:
    """Numbers (L, F) as float32 (L, F), each column less its mean, over its deviation."""
    encoded = [encode_column(values[:, i], column) for i, column in enumerate(columns)]
    return torch.from_numpy(np.concatenate(encoded, axis=1))
