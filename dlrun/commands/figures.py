"""Numbers for people, and tables of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Any:
    """A rich table whose first column is text and whose others are numbers."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    for position, name in enumerate(columns):
        made.add_column(name, justify="right" if position else "left", overflow="fold" if position else "ellipsis")
    for row in rows:
        made.add_row(*map(escape, row))
    return made


def figure(number: float) -> str:
    """Three digits that count, and no powers of ten: 12,345 and 1.23."""
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def count_text(number: float) -> str:
    """A count with its prefix and a blank before it: 1.82 G."""
    for unit, scale in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= scale:
            return f"{number / scale:.3g} {unit}"
    return f"{number:.3g} "


def bytes_text(count: float) -> str:
    """Bytes: 1.82 GB."""
    return f"{count_text(count)}B"
