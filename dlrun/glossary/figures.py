"""Pictures of measurements: one look for all, legible in grey print and with any colour vision, and small files."""

from __future__ import annotations

from io import BytesIO
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

# Okabe & Ito's palette (jfly.uni-koeln.de/color) in an order whose neighbours differ in grey too.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DPI = 110
SHADES = 96  # of the PNG's palette: text stays smooth, files are a third


def styles(marker: bool = False, **more: Any) -> Any:
    """Styles of lines without end, each told from the last by colour and dashes, and by markers if wanted."""
    marks = MARKERS if marker else ("",) * len(COLORS)
    return (
        {"color": color, "linestyle": line, "marker": mark, "markersize": 4, "linewidth": 1.6, **more}
        for color, line, mark in cycle(zip(COLORS, LINES, marks, strict=True))
    )


def panels(title: str, count: int = 1, *, width: float = 4.6, height: float = 3.7) -> tuple[Figure, list[Axes]]:
    """A figure with its title and so many axes side by side."""
    figure = Figure(figsize=(width * count if count > 1 else 6.2, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11, parse_math=False)
    axes = list(figure.subplots(1, count, squeeze=False)[0])
    for each in axes:
        each.grid(alpha=0.3, linewidth=0.6)
        each.spines[["top", "right"]].set_visible(False)
    return figure, axes


def label(axes: Axes, x: str, y: str, title: str = "", legend: bool = True) -> None:
    """Name the axes, with their units, and show what the lines are."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if title:
        axes.set_title(title, fontsize=10, parse_math=False)
    if legend:
        axes.legend(frameon=False, fontsize=8)


def png(figure: Figure) -> bytes:
    """The picture as a PNG with a palette."""
    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    stream = BytesIO()
    image.quantize(SHADES, dither=Image.Dither.NONE).save(stream, "PNG", optimize=True)
    return stream.getvalue()
