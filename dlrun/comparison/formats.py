"""A comparison as a text table, Markdown, CSV, JSON, LaTeX or HTML."""

from __future__ import annotations

import csv
import html
import io
import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dlrun.comparison.cells import Cells, cells, flat_rows
from dlrun.comparison.direction import higher_is_better
from dlrun.comparison.grouping import Row

if TYPE_CHECKING:
    from dlrun.comparison.comparison import Comparison
    from dlrun.comparison.significance import Difference, McNemar

FORMATS = ("table", "markdown", "csv", "json", "latex")
UNLIMITED = 100_000  # characters
LATEX = {"&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}"}
LATEX |= {"^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "±": r"$\pm$", "↑": r"$\uparrow$"}
LATEX |= {"↓": r"$\downarrow$"}


def render(comparison: Comparison, how: str, *, limit: int | None = None, width: int = UNLIMITED) -> str:
    """The comparison in a format.

    Args:
        how: one of FORMATS, or html.
        limit: rows to show; None shows all.
        width: characters that a text table should not be wider than.
    """
    rows = comparison.rows[:limit]
    match how:
        case "markdown":
            return _markdown(cells(comparison, rows))
        case "latex":
            return _latex(cells(comparison, rows))
        case "html":
            return _html(comparison, cells(comparison, rows))
        case "csv":
            return _csv(comparison, limit)
        case "json":
            content = {
                "by": comparison.by,
                "higher_is_better": higher_is_better(comparison.by),
                "rows": flat_rows(comparison)[:limit],
                "warnings": comparison.warnings,
            }
            return json.dumps(content, indent=2, ensure_ascii=False)
    return _text(comparison, rows, width)


def _text(comparison: Comparison, rows: Sequence[Row], width: int) -> str:
    lines = [headline(comparison), ""]
    for short, intervals in ((False, True), (True, True), (True, False)):
        table = _aligned(cells(comparison, rows, short=short, intervals=intervals))
        if max(map(len, table)) <= width:
            break
    lines += table
    if len(rows) < len(comparison.rows):
        lines.append(f"… {len(comparison.rows) - len(rows)} more rows: --limit 0 shows all")
    return "\n".join(lines)


def headline(comparison: Comparison) -> str:
    """What is compared, by what."""
    runs, rows = len(comparison.records), len(comparison.rows)
    counted = f"{runs} run{'s' * (runs != 1)}"
    if rows < runs:
        counted += f" in {rows} row{'s' * (rows != 1)}"
    better = "higher" if higher_is_better(comparison.by) else "lower"
    order = f"by {comparison.by} ({better} is better)" if "/" in comparison.by else f"by {comparison.by}"
    repeats = "; mean ± std [95 % interval of the mean] over repeats" if rows < runs else ""
    return f"{counted}, {order}{repeats}"


def _aligned(table: Cells) -> list[str]:
    columns = list(zip(table.header, *table.rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    lines = []
    for line in (table.header, *table.rows):
        parts = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, table.numeric, strict=True)
        ]
        lines.append("  ".join(parts).rstrip())
    lines.insert(1, "  ".join("─" * width for width in widths))
    return lines


def _markdown(table: Cells) -> str:
    lines = ["| " + " | ".join(_escaped(cell) for cell in table.header) + " |"]
    lines.append("|" + "|".join("---:" if right else "---" for right in table.numeric) + "|")
    for row, best in zip(table.rows, table.best, strict=True):
        shown = [f"**{_escaped(cell)}**" if i in best else _escaped(cell) for i, cell in enumerate(row)]
        lines.append("| " + " | ".join(shown) + " |")
    return "\n".join(lines)


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")


def _latex(table: Cells) -> str:
    lines = [r"% \usepackage{booktabs}", rf"\begin{{tabular}}{{{''.join('lr'[right] for right in table.numeric)}}}"]
    lines += [r"\toprule", " & ".join(map(_tex, table.header)) + r" \\", r"\midrule"]
    for row, best in zip(table.rows, table.best, strict=True):
        shown = [rf"\textbf{{{_tex(cell)}}}" if i in best else _tex(cell) for i, cell in enumerate(row)]
        lines.append(" & ".join(shown) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def _tex(cell: str) -> str:
    return "".join(LATEX.get(sign, sign) for sign in cell)


def _csv(comparison: Comparison, limit: int | None) -> str:
    rows = flat_rows(comparison)[:limit]
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        lists = {key: json.dumps(value) for key, value in row.items() if isinstance(value, list) and key != "runs"}
        writer.writerow(row | lists | {"runs": " ".join(row["runs"])})
    return out.getvalue().rstrip("\n")


def _html(comparison: Comparison, table: Cells) -> str:
    def line(tag: str, row: Sequence[str], best: set[int]) -> str:
        made = []
        for i, (cell, right) in enumerate(zip(row, table.numeric, strict=True)):
            content = f"<b>{html.escape(cell)}</b>" if i in best else html.escape(cell)
            made.append(f'<{tag} style="text-align: {"right" if right else "left"}">{content}</{tag}>')
        return f"<tr>{''.join(made)}</tr>"

    body = "".join(line("td", row, best) for row, best in zip(table.rows, table.best, strict=True))
    notes = "".join(f"<br>{html.escape(sentence)}" for sentence in comparison.warnings)
    return (
        f"<div><table><thead>{line('th', table.header, set())}</thead><tbody>{body}</tbody></table>"
        f"<small>{html.escape(headline(comparison))}{notes}</small></div>"
    )


def difference_text(found: Difference) -> list[str]:
    """A difference in a few lines, each with what it takes for granted."""
    n = f"{found.n[0]} pairs by {found.matched}" if found.paired else f"{found.n[0]} and {found.n[1]} runs"
    lines = [
        f"{found.first} - {found.second}, {found.metric}: {found.means[0]:.5g} - {found.means[1]:.5g} = "
        f"{found.difference:+.3g}  ({n})"
    ]
    if not math.isnan(found.p):
        test = "paired t test" if found.paired else "Welch's t test"
        assumed = "differences of pairs" if found.paired else "values of each group"
        lines.append(
            f"  {test:<22} p = {p_text(found.p)}, 95 % interval {interval_text(found.low, found.high)}; "
            f"takes {assumed} for normal"
        )
    if not math.isnan(found.permutation_p):
        test = "sign-flip test" if found.paired else "permutation test"
        least = f"; with so few runs it cannot be below {p_text(found.least_p)}" if found.least_p > 0.001 else ""
        assumed = "either sign of a difference as likely" if found.paired else "runs exchangeable between the groups"
        lines.append(f"  {test:<22} p = {p_text(found.permutation_p)}; takes {assumed} if there is no effect{least}")
        low, high = found.bootstrap
        lines.append(f"  {'bootstrap':<22} 95 % interval {interval_text(low, high)}; takes the runs for the population")
    return [*lines, *(f"  {note}" for note in found.notes)]


def differences_table(found: Sequence[Difference]) -> list[str]:
    """Many rows against one: a line each."""
    lines = [f"against {found[0].second}, {found[0].metric}; p by t tests, adjusted for {len(found)} tests (Holm)"]
    for one in found:
        how = f"{one.n[0]} pairs" if one.paired else f"{one.n[0]} and {one.n[1]} runs"
        if one.adjusted_p is None:
            lines.append(f"  {one.first:<8} {one.difference:+.3g}  ({how}; {one.notes[-1]})")
        else:
            lines.append(
                f"  {one.first:<8} {one.difference:+.3g} {interval_text(one.low, one.high)}  "
                f"p = {p_text(one.p)}, adjusted {p_text(one.adjusted_p)}  ({how})"
            )
    return lines


def mcnemar_text(found: Sequence[McNemar]) -> list[str]:
    """McNemar's test of each pair of runs."""
    said = (
        f"  {one.pair:<8} of {one.examples:,} test examples {one.only_first} are right in the first alone, "
        f"{one.only_second} in the second alone; p = {p_text(one.p)}"
        for one in found
    )
    return ["McNemar's test, exact; of these trained models, whatever other seeds would have given", *said]


def interval_text(low: float, high: float) -> str:
    """An interval to three digits; what is nothing beside its width is 0."""
    shown = [f"{0.0 if abs(end) < 1e-9 * (high - low) else end:+.3g}" for end in (low, high)]
    return f"[{', '.join(shown)}]"


def p_text(p: float) -> str:
    """A p value to two digits."""
    return "0" if p == 0 else f"{p:.2g}" if p >= 1e-4 else f"{p:.0e}"
