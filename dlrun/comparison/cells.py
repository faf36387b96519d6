"""Rows of a comparison as texts: the same cells for every format."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlrun.comparison.direction import arrow, higher_is_better
from dlrun.comparison.estimate import Estimate
from dlrun.comparison.fairness import ended
from dlrun.comparison.grouping import Row
from dlrun.comparison.record import FACTS, ORIGIN
from dlrun.comparison.settings import text

if TYPE_CHECKING:
    from dlrun.comparison.comparison import Comparison

ABSENCE = "-"
DIGITS = 4  # of a number whose spread is not known


@dataclass
class Cells:
    """A table of texts.

    Attributes:
        numeric: of each column, whether it is aligned to the right.
        best: of each row, the columns in which it is the best of all.
    """

    header: list[str]
    rows: list[list[str]]
    numeric: list[bool]
    best: list[set[int]]


def cells(comparison: Comparison, rows: Sequence[Row], *, short: bool = False, intervals: bool = True) -> Cells:
    """The table of some of the rows.

    Args:
        short: write keys without their group where that leaves them apart.
        intervals: give the 95 % interval behind mean ± std.
    """
    names, chosen = comparison.columns, comparison.chosen
    repeated = comparison.repeats and any(len(row.records) > 1 for row in comparison.rows)
    sized = len({row.estimate("parameters").mean for row in rows}) > 1 and not chosen
    told = any(set(row.statuses) != {"completed"} for row in rows) and not chosen
    header = ["#", *(_short(names) if short else names), *(["n"] if repeated else [])]
    numeric = [True, *(all(_is_number(row.shared(name)) for row in rows) for name in names), *([True] * repeated)]
    metrics = {name: [row.estimate(name) for row in rows] for name in comparison.metrics}
    header += [f"{name} {arrow(name)}" for name in metrics]
    numeric += [True] * len(metrics)
    extra = ["seconds"] * (not chosen) + ["parameters"] * sized + ["status"] * told
    made = Cells([*header, *extra], [], [*numeric, *(name != "status" for name in extra)], [])
    first = len(header) - len(metrics)
    winners = {first + i: _winners(name, found, rows) for i, (name, found) in enumerate(metrics.items())}
    for position, row in enumerate(rows):
        line = [str(row.number), *(text(row.shared(name)) for name in names)]
        line += [str(len(row.records))] * repeated
        line += [estimate_text(found[position], intervals=intervals) for found in metrics.values()]
        line += [ended(row) if name == "status" else fact_text(name, row.estimate(name).mean) for name in extra]
        made.rows.append(line)
        made.best.append({column for column, best in winners.items() if position in best})
    return made


def flat_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """The rows for other programs: numbers as they are, names that do not depend on the rows."""
    found = []
    for row in comparison.rows:
        flat: dict[str, Any] = {"rank": row.number}
        flat |= {name: plain(row.shared(name)) for name in comparison.columns}
        flat["n"] = len(row.records)
        for name in comparison.metrics:
            estimate = row.estimate(name)
            flat[name] = _finite(estimate.mean)
            flat |= {f"{name}.{part}": _finite(getattr(estimate, part)) for part in ("std", "low", "high", "n")}
        flat |= {
            name: _finite(row.estimate(name).mean)
            for name in ("seconds", "parameters", "epochs", "steps")
            if name not in flat
        }
        flat["status"] = ended(row)
        flat["runs"] = [str(record.fact("run")) for record in row.records]
        found.append(flat)
    return found


def estimate_text(estimate: Estimate, *, intervals: bool = False) -> str:
    """`0.9712 ± 0.0031 [0.967, 0.975]`, to two digits of the spread; of one value the value."""
    if estimate.n == 0:
        return ABSENCE
    if math.isnan(estimate.std):
        return f"{estimate.mean:.{DIGITS}g}"
    places = decimals(estimate.std) if estimate.std > 0 else decimals(abs(estimate.mean) / 100 or 1.0)
    shown = f"{estimate.mean:.{places}f} ± {estimate.std:.{places}f}"
    return f"{shown} [{estimate.low:.{places}f}, {estimate.high:.{places}f}]" if intervals else shown


def decimals(spread: float) -> int:
    """Places after the point that show two digits of a spread."""
    return max(0, 1 - math.floor(math.log10(spread)))


def fact_text(name: str, value: float) -> str:
    """A cost for people: 12.3, 51,594."""
    if not math.isfinite(value):
        return ABSENCE
    return f"{value:,.0f}" if name == "parameters" or value >= 1000 else f"{value:.3g}"


def plain(value: Any) -> Any:
    """A setting for JSON: an absent one is nothing."""
    if isinstance(value, tuple):
        return [plain(inner) for inner in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else None


def _short(names: Sequence[str]) -> list[str]:
    ends = [name.rpartition(".")[2] for name in names]
    return [end if ends.count(end) == 1 else name for end, name in zip(ends, names, strict=True)]


def _winners(name: str, estimates: Sequence[Estimate], rows: Sequence[Row]) -> set[int]:
    """The rows with finished runs that are best in a metric; none if no other has it to be compared with."""
    known = {i: one.mean for i, one in enumerate(estimates) if one.n and rows[i].finished}
    if len(known) < 2:
        return set()
    best = (max if higher_is_better(name) else min)(known.values())
    return {position for position, mean in known.items() if mean == best}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def label(row: Row, keys: Sequence[str]) -> str:
    """Some settings of a row: "optimizer=adamw lr=0.001"."""
    return " ".join(f"{name}={text(row.shared(key))}" for name, key in zip(_short(keys), keys, strict=True))


def telling(keys: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """Those of the keys that tell rows apart, without an argument that follows from the part it is of."""
    parts = [{(row.shared(key.rpartition(".")[0]), row.shared(key)) for row in rows} for key in keys]
    return [
        key
        for key, pairs in zip(keys, parts, strict=True)
        if key.rpartition(".")[0] not in keys or len({part for part, _ in pairs}) < len(pairs)
    ]


def is_setting(name: str) -> bool:
    """Whether a column is of the configuration."""
    return name not in FACTS and name not in ORIGIN and "/" not in name
