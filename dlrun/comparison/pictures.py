"""Pictures of a comparison: curves with bands over seeds, a metric against one key, a heat map over two."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Without pyplot, as in dlrun/report/curves.py.
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from dlrun.comparison.cells import decimals, is_setting, label, telling
from dlrun.comparison.curves import curve, mean_band
from dlrun.comparison.direction import arrow, higher_is_better
from dlrun.comparison.estimate import Estimate
from dlrun.comparison.grouping import Row
from dlrun.comparison.record import all_names
from dlrun.comparison.settings import ABSENT, resolve, text
from dlrun.errors import UsageError
from dlrun.runs.files import write_atomically

if TYPE_CHECKING:
    from dlrun.comparison.comparison import Comparison

# Okabe & Ito's palette; lines and markers tell the rows apart in grey print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1, 1, 1)), (0, (1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
MOST = len(COLOURS)  # rows in one picture
LABELS = {"epoch": "epoch", "step": "optimizer step", "time": "seconds of training"}
DECADES = 0.9  # powers of ten between least and most, from where an axis is logarithmic
NAMED_UP_TO = 8  # places on an axis
NUMBERED_UP_TO = 150  # fields of a heat map


def draw(comparison: Comparison, by: Sequence[str] = (), *, x: str = "epoch", metric: str | None = None) -> Figure:
    """The picture that suits what is asked.

    Args:
        by: no key: curves of the best rows over `x`; one: the metric against it; two: a heat map.
        x: epoch, step or time.
        metric: by default what the rows are ordered by.

    Raises: UsageError for unknown keys, more than two, or nothing to draw.
    """
    name = metric or (comparison.by if "/" in comparison.by else next(iter(comparison.metrics), ""))
    if not name:
        raise UsageError("--plot: the runs have measured nothing yet.")
    if len(by) > 2:
        raise UsageError(f"--plot-by takes one key or two, got {', '.join(by)}.")
    known = all_names(comparison.records)
    try:
        keys = [resolve(word, known) for word in by]
    except UsageError as error:
        raise UsageError(f"--plot-by: {error}") from None
    if not keys:
        return _curves(comparison, name, x)
    return _against(comparison, name, keys[0]) if len(keys) == 1 else _heat_map(comparison, name, keys[0], keys[1])


def write(figure: Figure, path: Path) -> None:
    """Write a picture, by the ending of its name. Raises: OSError."""
    write_atomically(path, lambda file: figure.savefig(file, format=path.suffix[1:], dpi=150))


def _curves(comparison: Comparison, name: str, x: str) -> Figure:
    figure, axes = _canvas((7.2, 4.4))
    drawn: list[float] = []
    for position, row in enumerate(comparison.rows[:MOST]):
        curves = [found for record in row.finished or row.records if (found := curve(record.entry.path, name, x))[0]]
        if not curves:
            continue
        style = _style(position)
        at, mean, std = mean_band(curves)
        for xs, ys in curves if len(curves) > 1 else ():
            axes.plot(xs, ys, color=style["color"], linewidth=0.6, alpha=0.35, zorder=1)
        n = f" (n = {len(curves)})" if len(curves) > 1 else ""
        every = max(1, len(at) // 10)
        axes.plot(at, mean, **style, markevery=(position % every, every), label=f"{comparison.label(row)}{n}")
        low, high = ([m + sign * s for m, s in zip(mean, std, strict=True)] for sign in (-1, 1))
        axes.fill_between(at, low, high, color=style["color"], alpha=0.15, linewidth=0)
        drawn += mean
    if not drawn:
        raise UsageError(
            f"--plot: no metrics.jsonl of the runs has {name}; curves need a metric of validation or train."
        )
    if _decades(drawn) > DECADES and not higher_is_better(name):
        axes.set_yscale("log")
    axes.set_xlabel(LABELS[x])
    banded = any(len(row.records) > 1 for row in comparison.rows)
    left_out = f"the {MOST} best of {len(comparison.rows)} rows; " if len(comparison.rows) > MOST else ""
    said = "mean and ± std over seeds, thin: single runs" if banded else "one run each"
    _finish(figure, axes, name, f"{left_out}{said}", legend=True)
    return figure


def _against(comparison: Comparison, name: str, key: str) -> Figure:
    """A line for each combination of the other keys that differ."""
    series: dict[str, dict[Any, list[Row]]] = {}
    others = telling([name for name in comparison.columns if is_setting(name)], comparison.rows)
    others = [name for name in others if name != key]
    for row in comparison.rows:
        value = row.shared(key)
        if value is not ABSENT and row.estimate(name).n:
            series.setdefault(label(row, others), {}).setdefault(value, []).append(row)
    values = list(dict.fromkeys(value for points in series.values() for value in points))
    if len(values) < 2:
        raise UsageError(f"--plot-by {key}: the runs have {len(values)} value of it, and a picture needs two.")
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    values.sort(key=(lambda value: value) if numbers else str)
    figure, axes = _canvas((7.2, 4.4))
    ranked = list(series.items())[:MOST]  # rows come best first, so do the lines
    for position, (line, points) in enumerate(ranked):
        shown = [value for value in values if value in points]
        at = shown if numbers else [values.index(value) for value in shown]
        found = [Estimate.of(value for row in points[v] for value in row.measured(name).values()) for v in shown]
        spread = [0.0 if math.isnan(one.std) else one.std for one in found]
        axes.errorbar(at, [one.mean for one in found], spread, **_style(position), capsize=3, label=line or None)
    if not numbers:
        axes.set_xticks(range(len(values)), [text(value) for value in values], parse_math=False)
    elif _decades(values) > DECADES:
        axes.set_xscale("log")
        if len(values) <= NAMED_UP_TO:
            axes.set_xticks(values, [f"{value:g}" for value in values])
            axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(key)
    left_out = f"the {MOST} best of {len(series)} lines; " if len(series) > MOST else ""
    _finish(figure, axes, name, f"{left_out}bars: ± std over seeds", legend=any(series))
    return figure


def _heat_map(comparison: Comparison, name: str, across: str, down: str) -> Figure:
    """The mean of the metric for each two values; of several rows there, the best one's."""
    best: dict[tuple[Any, Any], Estimate] = {}
    several = False
    for row in comparison.rows:
        at, found = (row.shared(across), row.shared(down)), row.estimate(name)
        if ABSENT in at or not found.n:
            continue
        several |= at in best
        better = at not in best or (found.mean > best[at].mean) == higher_is_better(name)
        best |= {at: found} if better else {}
    columns, lines = (sorted({at[i] for at in best}, key=_sortable) for i in (0, 1))
    if len(columns) < 2 or len(lines) < 2:
        raise UsageError(
            f"--plot-by {across},{down}: a heat map needs two values of each, and there are {len(columns)} and "
            f"{len(lines)}."
        )
    figure, axes = _canvas((2.6 + 0.95 * len(columns), 1.8 + 0.6 * len(lines)))
    grid = [[best[x, y].mean if (x, y) in best else math.nan for x in columns] for y in lines]
    image = axes.imshow(grid, cmap="cividis" if higher_is_better(name) else "cividis_r", aspect="auto")
    finite = [value for line in grid for value in line if math.isfinite(value)]
    places = decimals((max(finite) - min(finite)) / 10 or 1.0)
    if len(columns) * len(lines) <= NUMBERED_UP_TO:
        for j, y in enumerate(lines):
            for i, x in enumerate(columns):
                is_dark = (grid[j][i] - min(finite) < (max(finite) - min(finite)) / 2) == higher_is_better(name)
                shown = f"{best[x, y].mean:.{places}f}" if (x, y) in best else "-"
                axes.text(i, j, shown, ha="center", va="center", fontsize=9, color="white" if is_dark else "black")
    axes.set_xticks(range(len(columns)), [text(value) for value in columns], parse_math=False)
    axes.set_yticks(range(len(lines)), [text(value) for value in lines], parse_math=False)
    axes.set_xlabel(across)
    axes.set_ylabel(down)
    figure.colorbar(image, ax=axes, label=f"{name} {arrow(name)}")
    figure.suptitle(f"{name}, mean{'; the best of other settings' if several else ''}", fontsize=10)
    return figure


def _canvas(size: tuple[float, float]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def _style(position: int) -> dict[str, Any]:
    return {
        "color": COLOURS[position],
        "linestyle": LINES[position],
        "marker": MARKERS[position],
        "markersize": 5,
        "linewidth": 1.6,
    }


def _finish(figure: Figure, axes: Axes, name: str, said: str, *, legend: bool) -> None:
    axes.set_ylabel(f"{name} {arrow(name)}")
    axes.grid(alpha=0.3, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(said, fontsize=9, color="0.3", loc="left")
    if legend:
        figure.legend(frameon=False, fontsize=8, loc="outside lower left", ncols=2)


def _decades(values: Sequence[float]) -> float:
    return math.log10(max(values) / min(values)) if min(values) > 0 else 0.0


def _sortable(value: Any) -> tuple[bool, Any]:
    is_text = isinstance(value, bool) or not isinstance(value, (int, float))
    return is_text, str(value) if is_text else value
