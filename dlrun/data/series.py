"""Time series: columns of a CSV file, of which windows are to be continued."""

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Literal

import numpy as np
import torch

from dlrun.contracts import (
    Column,
    DataSpec,
    Kind,
    NonNegativeInt,
    PositiveInt,
    Splits,
    Task,
)
from dlrun.data.scale import fit_scale
from dlrun.errors import DataError, did_you_mean
from dlrun.examples import SeriesWindows
from dlrun.inputs import Rows, parse_numbers, read_numbers, read_table


def series(
    *,
    name: str = "series",
    path: str,
    columns: Sequence[str] | None,
    targets: Sequence[str] | None,
    time: str | None,
    context: PositiveInt,
    horizon: PositiveInt,
    stride: PositiveInt,
    rows: PositiveInt | None,
    season: NonNegativeInt,
    missing: Literal["refuse", "forward"],
    delimiter: str,
    val_fraction: float = 0.1,
    test_fraction: float = 0.2,
    normalize: bool = True,
) -> Splits:
    """Windows of `context` rows as inputs (T, F), the next `horizon` of the targets as outputs (H · C).

    Outputs stand time first. The rows are split in their order: training, validation, test, the latter two with
    `val_fraction` and `test_fraction` of all rows. What a window forecasts lies wholly in its own split, so no row is
    a target in two. The inputs of a validation or test window may reach back over the border: the past is known when
    a forecast is made. The published results on ETT are of such windows (Zhou et al. 2021, arXiv:2012.07436).

    Args:
        name: what messages call the data.
        path: the CSV file, a row for each time step, the oldest first; its first line names the columns.
        columns: to read; null: all but `time` and those without a single number.
        targets: to forecast, read as well; null: all that are read.
        time: the column of times (numbers or ISO 8601 dates), which is left out and must rise from row to row.
        stride: rows from one window to the next, in every split.
        rows: how many to use, from the first; null: all.
        season: rows after which the series resembles itself, for naive forecasts; 0: not known.
        missing: what becomes of an empty cell: it is refused, or takes the value before it in its column (forward).
        delimiter: between cells; "tab" for a tab.
        normalize: standardise each column by the training rows; errors are reported in the columns' units in any case.

    Raises: DataError naming file, key, line and column.
    """
    if len(delimiter := {"tab": "\t", "\\t": "\t"}.get(delimiter, delimiter)) != 1:
        raise DataError(f"data.delimiter must be one character or 'tab', got '{delimiter}'")
    table = _first(read_table(path, delimiter, f"data.path={path}"), rows)
    if time is not None:
        _require_order(table, time)
    names = _columns(table, columns, targets, time)
    hint = "" if missing == "forward" else ", or repeat the value before it with data.missing=forward"
    values = [read_numbers(table, column, fill_forward=missing == "forward", hint=hint) for column in names]
    forecast = tuple(names.index(column) for column in (names if targets is None else targets))
    ends = _ends(table, val_fraction, test_fraction, context, horizon)
    whole = SeriesWindows(
        torch.from_numpy(np.stack(values, axis=1)), torch.empty(0), context, horizon, torch.tensor(forecast)
    )
    train, val, test = (replace(whole, starts=torch.arange(first, last, stride)) for first, last in ends)
    spec = DataSpec(
        name,
        Task.FORECASTING,
        Kind.SEQUENCE,
        (context, len(names)),
        horizon * len(forecast),
        columns=tuple(Column(column) for column in names),
        horizon=horizon,
        target_columns=forecast,
        season=season,
    )
    return Splits(train, spec, val, test, fit=partial(fit_scale, spec, normalize))


def _first(table: Rows, rows: int | None) -> Rows:
    if rows is None:
        return table
    if rows > len(table.cells):
        raise DataError(f"data.rows={rows}, but {table.label} has {len(table.cells)} rows; data.rows=null takes all")
    return replace(table, cells=table.cells[:rows], lines=table.lines[:rows])


def _columns(
    table: Rows, columns: Sequence[str] | None, targets: Sequence[str] | None, time: str | None
) -> Sequence[str]:
    """The columns to read: those asked for and the targets, in the order asked for."""
    for key, names in (("data.columns", columns), ("data.targets", targets)):
        for i, name in enumerate(names or ()):
            _require(table, name, f"{key} names it")
            if names and name in names[:i]:
                raise DataError(f"{key} names '{name}' twice; once is enough")
            if name == time:
                raise DataError(f"{key} must not name the column of data.time={time}")
        if names is not None and not names:
            raise DataError(f"{key} is empty; name columns of numbers, or write {key}=null for all of them")
    if columns is None:
        columns = [name for name in table.header if name != time and _has_numbers(table, name)]
        if not columns:
            raise DataError(f"{table.label} has no column of numbers; it has {', '.join(table.header)}")
    return [*columns, *(name for name in targets or () if name not in columns)]


def _has_numbers(table: Rows, name: str) -> bool:
    numbers, _ = parse_numbers(table.column(name))
    return not bool(np.isnan(numbers).all())


def _require(table: Rows, name: str, because: str) -> None:
    if name not in table.header:
        hint = did_you_mean(name, table.header)
        raise DataError(f"{table.label} has no column '{name}' ({because}); it has {', '.join(table.header)}.{hint}")


def _require_order(table: Rows, time: str) -> None:
    """Raises: DataError unless the times rise from row to row."""
    _require(table, time, f"data.time={time}")
    cells = table.column(time)
    times, wrong = parse_numbers(cells)
    if 2 * len(wrong) > len(cells):  # no numbers; else the few that are none are what is wrong
        times = np.array([_seconds(cell) for cell in cells])
    unread = np.isnan(times)
    if unread.any():
        at = int(unread.argmax())
        raise DataError(
            f"{table.label}, line {table.lines[at]}: data.time={time} is '{cells[at]}', neither a number nor an ISO "
            "8601 date; correct it, or write data.time=null, which leaves the order of the rows unchecked"
        )
    falls = np.flatnonzero(np.diff(times) <= 0)
    if len(falls):
        at = int(falls[0]) + 1
        raise DataError(
            f"{table.label}, line {table.lines[at]}: data.time={time} is {cells[at]}, not later than {cells[at - 1]} "
            "in the row before; sort the rows by time, one row for each"
        )


def _seconds(cell: str) -> float:
    """An ISO 8601 date, without a zone taken as UTC, in seconds; NaN if it is none."""
    try:
        date = datetime.fromisoformat(cell)
    except ValueError:
        return math.nan
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()


def _ends(table: Rows, val_fraction: float, test_fraction: float, context: int, horizon: int) -> list[tuple[int, int]]:
    """Of each split, the start of the first window and one more than that of the last.

    Raises: DataError if a split is too short for a window.
    """
    count = len(table.cells)
    sizes = {"val": round(count * val_fraction), "test": round(count * test_fraction)}
    train_end = count - sum(sizes.values())
    if train_end < context + horizon:
        raise DataError(
            f"{table.label}: {max(0, train_end)} of {count} rows are left for training, too few for a window of "
            f"data.context={context} and data.horizon={horizon}; shorten them, lower data.val_fraction={val_fraction} "
            f"and data.test_fraction={test_fraction}, or give more rows"
        )
    ends, begin = [(0, train_end - context - horizon + 1)], train_end
    for split, size in sizes.items():
        if size < horizon:
            fraction = {"val": val_fraction, "test": test_fraction}[split]
            raise DataError(
                f"{table.label}: data.{split}_fraction={fraction} of {count} rows is {size}, too few to hold "
                f"data.horizon={horizon}; raise it, shorten the horizon, or give more rows"
            )
        ends.append((begin - context, begin + size - context - horizon + 1))
        begin += size
    return ends
