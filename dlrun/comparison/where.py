"""Which runs are compared: `optimizer.lr<0.01`, `model=cnn`, `status!=failed`, `run~sweep_3`."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

from dlrun.comparison.record import Record, all_names
from dlrun.comparison.settings import ABSENT, resolve
from dlrun.errors import UsageError
from dlrun.runs.flat import parse_value

CONDITION = re.compile(r"\s*([^=!<>~]+?)\s*(!=|<=|>=|==|=|<|>|~)\s*(.*?)\s*")
ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def keep_where(records: Sequence[Record], conditions: Sequence[str]) -> list[Record]:
    """The runs for which all conditions hold.

    A run that has no such key does not meet a condition, but for `!=`, which it always meets.

    Raises: UsageError for a condition that cannot be read, names no known key, or leaves nothing.
    """
    left = list(records)
    for condition in conditions:
        test = _test(condition, records)
        left = [record for record in left if test(record)]
        if not left:
            raise UsageError(f"--where '{condition}' leaves none of {len(records)} runs{_present(condition, records)}.")
    return left


def _test(condition: str, records: Sequence[Record]) -> Callable[[Record], bool]:
    match = CONDITION.fullmatch(condition)
    if match is None:
        raise UsageError(f"--where '{condition}' must be KEY=VALUE, or with one of !=, <, <=, >, >=, ~ (matches text).")
    word, sign, text = match.groups()
    key = resolve(word, all_names(records))
    if sign == "~":
        try:
            pattern = re.compile(text, re.IGNORECASE)
        except re.error as error:
            raise UsageError(f"--where '{condition}': '{text}' is no regular expression ({error}).") from None
        return lambda record: record.fact(key) is not ABSENT and bool(pattern.search(str(record.fact(key))))
    wanted = parse_value(text)
    if sign in {"=", "=="}:
        return lambda record: _equal(record, key, wanted, text)
    if sign == "!=":
        return lambda record: not _equal(record, key, wanted, text)
    if key != "started" and not _is_number(wanted):
        raise UsageError(f"--where '{condition}': {sign} compares numbers, and '{text}' is none; texts: =, !=, ~.")
    compare = ORDER[sign]
    return lambda record: _ordered(record.fact(key), text if key == "started" else wanted, compare)


def _equal(record: Record, key: str, wanted: Any, text: str) -> bool:
    value = record.fact(key)
    if key in record.labels:  # a part, by what it was chosen as or by its class
        names = {record.labels[key], record.raw(key), str(record.raw(key)).rpartition(".")[2]}
        return text.casefold() in {name.casefold() for name in names}
    if value is ABSENT:
        return False
    return bool(value == wanted or str(value) == text)


def _ordered(value: Any, wanted: Any, compare: Callable[[Any, Any], bool]) -> bool:
    same = isinstance(value, str) if isinstance(wanted, str) else _is_number(value)
    return same and compare(value, wanted)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _present(condition: str, records: Sequence[Record]) -> str:
    """What the key is, among the runs."""
    match = CONDITION.fullmatch(condition)
    key = resolve(match[1], all_names(records)) if match else ""
    values = list(dict.fromkeys(str(record.fact(key)) for record in records))
    return f": {key} is {', '.join(values[:5])}{' …' if len(values) > 5 else ''}"
