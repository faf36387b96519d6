"""Tables: a CSV file with a header line, one column of which is to be predicted from the others.

What a column is (numbers or text) is a property of the file; every statistic (median, mean, standard deviation, the
set of categories) comes from the training split alone, through `Splits.fit`.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlrun.contracts import Arrays, Batch, Column, DataSpec, Kind, Splits, Task
from dlrun.errors import DataError, did_you_mean
from dlrun.inputs import Rows, encode_column, is_missing, parse_numbers, read_table

MAX_CATEGORIES = 100  # of a text column nobody called categorical: more is probably a name, a date or free text
MAX_CLASSES = 20  # different whole numbers in a target column that task=auto still takes for class labels


@dataclass
class Table:
    """Rows before encoding: per column (N,) float64 with NaN for missing, or (N,) texts with "" for missing."""

    columns: dict[str, NDArray[Any]]
    targets: Tensor

    @property
    def nbytes(self) -> int:
        return self.targets.nbytes + sum(values.nbytes for values in self.columns.values())

    @property
    def device(self) -> torch.device:
        return self.targets.device

    def tensors(self) -> Sequence[Tensor]:
        raise TypeError("a Table must be encoded by Splits.fit before it can be fingerprinted")

    def __len__(self) -> int:
        return len(self.targets)

    def subset(self, index: Tensor) -> "Table":
        rows = index.numpy()
        return Table({name: values[rows] for name, values in self.columns.items()}, self.targets[index])

    def take(self, index: Tensor) -> Batch:
        raise TypeError("a Table must be encoded by Splits.fit before batches can be taken")

    def to(self, device: torch.device) -> "Table":
        raise TypeError("a Table must be encoded by Splits.fit before it can be moved to a device")


def csv(
    *,
    path: str,
    target: str,
    task: Literal["auto", "classification", "regression"],
    drop: Sequence[str],
    categorical: Sequence[str],
    test_path: str | None,
    delimiter: str,
) -> Splits:
    """Read a table; numbers are imputed with the median and standardised, texts become one 0/1 feature per category.

    Args:
        path: the CSV file; its first line names the columns.
        target: the column to predict. Classes are ordered by number or alphabet, regression targets keep their units.
        task: "auto" is classification if the target holds text or at most 20 different whole numbers.
        drop: columns to leave out.
        categorical: number columns to read as categories, and text columns of more than 100 different values to keep.
        test_path: a second file with the same columns for the test set; without it, one is carved from the first.
        delimiter: between cells; "tab" for a tab.

    Empty cells, NA, N/A, NaN, null and ? are missing values.
    Raises: DataError naming file, line and column.
    """
    if len(delimiter := {"tab": "\t", "\\t": "\t"}.get(delimiter, delimiter)) != 1:
        raise DataError(f"data.delimiter must be one character or 'tab', got '{delimiter}'")
    rows = read_table(path, delimiter, f"data.path={path}")
    if len(rows.cells) == 1:
        raise DataError(f"{rows.label} has one row; learning and testing need more")
    _check_names(rows, target, drop, categorical)
    names = [name for name in rows.header if name != target and name not in drop]
    if not names:
        raise DataError(f"{rows.label} has no column left to predict data.target={target} from; it has only {target}")
    kinds = {name: name in categorical or _is_text(rows, name) for name in names}

    labels = _class_names(rows, target, task)
    train = _table(rows, kinds, target, labels)
    problem = Task.CLASSIFICATION if labels else Task.REGRESSION
    spec = DataSpec("csv", problem, Kind.VECTOR, (len(names),), len(labels) or 1, labels)
    test = None
    if test_path is not None:
        test_rows = read_table(test_path, delimiter, f"data.test_path={test_path}")
        for name in [*names, target]:
            _require(test_rows, name, f"{rows.label} has it")
        test = _table(test_rows, kinds, target, labels)
    return Splits(train, spec, test=test, fit=partial(fit_columns, spec))


def fit_columns(spec: DataSpec, train: Table) -> tuple[DataSpec, Callable[[Table], Arrays]]:
    """The encoding learnt from the training split, and the function that encodes any split with it.

    Returns: `spec` with its columns and the shape (features,); a function from a table to inputs float32 (N, features).
    """
    columns = tuple(fit_column(name, values) for name, values in train.columns.items())
    width = sum(len(column.categories) or 1 for column in columns)
    return replace(spec, columns=columns, shape=(width,)), partial(_encode, columns)


def fit_column(name: str, values: NDArray[Any]) -> Column:
    """How to encode one column, from its training values: median, then mean and (population) std after imputation."""
    if values.dtype == object:
        # ("",) matches nothing, but keeps a column that is wholly missing here from being read as numbers.
        return Column(name, categories=tuple(sorted(set(values) - {""})) or ("",))
    known = values[~np.isnan(values)]
    if len(known) == 0:
        return Column(name)
    fill = float(np.median(known))
    filled = np.where(np.isnan(values), fill, values)
    std = float(filled.std()) if filled.min() < filled.max() else 1.0  # of equal values: 0, but for rounding
    return Column(name, fill=fill, mean=float(filled.mean()), std=std)


def _encode(columns: Sequence[Column], table: Table) -> Arrays:
    features = [encode_column(table.columns[column.name], column) for column in columns]
    return Arrays(torch.from_numpy(np.concatenate(features, axis=1)), table.targets)


def _check_names(rows: Rows, target: str, drop: Sequence[str], categorical: Sequence[str]) -> None:
    _require(rows, target, f"data.target={target}")
    for key, names in (("data.drop", drop), ("data.categorical", categorical)):
        for name in names:
            _require(rows, name, f"{key} names it")
            if name == target:
                raise DataError(f"{key} must not name the column of data.target={target}")


def _require(rows: Rows, name: str, because: str) -> None:
    if name not in rows.header:
        hint = did_you_mean(name, rows.header)
        raise DataError(f"{rows.label} has no column '{name}' ({because}); it has {', '.join(rows.header)}.{hint}")


def _is_text(rows: Rows, name: str) -> bool:
    """Whether a column holds categories. A column of numbers with a few texts in it is taken for a mistake.

    Raises: DataError for that, for a column without values, and for one with too many different texts.
    """
    cells = rows.column(name)
    numbers, wrong = parse_numbers(cells)
    count = int((~np.isnan(numbers)).sum())
    if count + len(wrong) == 0:
        raise DataError(f"{rows.label}, column '{name}' has no values; leave it out with data.drop=[{name}]")
    if wrong and count >= len(wrong):
        raise _text_among_numbers(rows, name, wrong)
    if (different := len(set(cells))) > MAX_CATEGORIES and wrong:
        raise DataError(
            f"{rows.label}, column '{name}' holds {different} different texts, more than {MAX_CATEGORIES}; leave it "
            f"out with data.drop=[{name}], or keep each as a category with data.categorical=[{name}]"
        )
    return bool(wrong)


def _text_among_numbers(rows: Rows, name: str, wrong: list[int]) -> DataError:
    more = f" and {len(wrong) - 1} more cells like it" if len(wrong) > 1 else ""
    return DataError(
        f"{rows.label}, line {rows.lines[wrong[0]]}, column '{name}': '{rows.column(name)[wrong[0]]}'{more} in a "
        "column of numbers is not a finite number; correct it (an empty cell means missing), leave the column out with "
        f"data.drop=[{name}], or read it as categories with data.categorical=[{name}]"
    )


def _table(rows: Rows, kinds: dict[str, bool], target: str, labels: tuple[str, ...]) -> Table:
    columns: dict[str, NDArray[Any]] = {}
    for name, is_text in kinds.items():
        cells = rows.column(name)
        if is_text:
            columns[name] = np.array(["" if is_missing(cell) else cell for cell in cells], dtype=object)
        else:
            columns[name], wrong = parse_numbers(cells)
            if wrong:
                raise _text_among_numbers(rows, name, wrong)
    return Table(columns, _targets(rows, target, labels))


def _class_names(rows: Rows, target: str, task: str) -> tuple[str, ...]:
    """The classes in order, or () for a regression.

    Raises: DataError if a target is missing, if there is one class, or a class with a single example.
    """
    cells = rows.column(target)
    for line, cell in zip(rows.lines, cells, strict=True):
        if is_missing(cell):
            raise DataError(f"{rows.label}, line {line}: data.target={target} is missing; remove such rows")
    numbers, wrong = parse_numbers(cells)
    counts = Counter(cells)
    few_whole_numbers = not wrong and len(counts) <= MAX_CLASSES and bool((numbers == numbers.round()).all())
    if task == "regression" or (task == "auto" and not wrong and not few_whole_numbers):
        if wrong:
            raise DataError(
                f"{rows.label}, line {rows.lines[wrong[0]]}: data.target={target} is '{cells[wrong[0]]}', not a finite "
                "number; correct it, or choose data.task=classification"
            )
        return ()
    if len(counts) == 1:
        raise DataError(f"{rows.label}: data.target={target} has one class only, '{cells[0]}'; two are needed")
    alone = [label for label, count in counts.items() if count == 1]
    if alone:
        raise DataError(
            f"{rows.label}: class '{alone[0]}' of data.target={target} has a single example, which cannot be both "
            "learnt and tested; add examples or remove it (or choose data.task=regression if the target is a quantity)"
        )
    return tuple(sorted(counts, key=str if wrong else float))


def _targets(rows: Rows, target: str, labels: tuple[str, ...]) -> Tensor:
    """Class indices (N,) int64 if there are labels, else values (N, 1) float32."""
    cells = rows.column(target)
    if not labels:
        numbers, _ = parse_numbers(cells)
        if np.isnan(numbers).any():
            at = int(np.isnan(numbers).argmax())
            raise DataError(f"{rows.label}, line {rows.lines[at]}: data.target={target} is '{cells[at]}', not a number")
        return torch.from_numpy(numbers).float().unsqueeze(1)
    position = {label: i for i, label in enumerate(labels)}
    for line, cell in zip(rows.lines, cells, strict=True):
        if cell not in position:
            raise DataError(
                f"{rows.label}, line {line}: data.target={target} is '{cell}', a class that data.path does not have "
                f"({', '.join(labels[:10])}); remove the row or add such rows to data.path"
            )
    return torch.tensor([position[cell] for cell in cells])
