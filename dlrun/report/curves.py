"""The learning curves of a run: loss and metric over epochs, training and validation, the best epoch marked."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

# Without pyplot, which takes longer to load, looks for a display and keeps every figure alive.
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.ticker import MaxNLocator

from dlrun.runs.files import write_atomically

# Okabe & Ito's palette (jfly.uni-koeln.de/color): told apart with any colour vision; line styles tell in grey print.
STYLES: dict[str, dict[str, Any]] = {
    "train": {"color": "#0072B2", "linestyle": "--", "marker": "o"},
    "val": {"color": "#D55E00", "linestyle": "-", "marker": "s"},
}
NAMES = {"train": "training", "val": "validation"}
BEST = "#009E73"
DPI = 150
WITHIN = "#56B4E9"
MARKERS_UP_TO = 25  # points; more would be a smear
DECADES = 2.0  # a loss that spans more is drawn on a logarithmic axis


def plot_curves(
    records: Sequence[Mapping[str, Any]], path: Path, *, metric: str, best_step: int | None, title: str
) -> None:
    """Draw the curves of a run as a PNG.

    Args:
        records: of metrics.jsonl.
        path: of the PNG; written atomically.
        metric: the name behind the slash, such as "accuracy"; "loss" leaves out the second panel.
        best_step: the optimizer step of the best validation; None marks nothing.
        title: above the picture.

    Raises: OSError if the picture cannot be written.
    """
    figure = draw_curves(records, metric=metric, best_step=best_step, title=title)
    write_atomically(path, lambda file: write_png(figure, file), durable=False)  # it can be drawn again


def write_png(figure: Figure, file: BinaryIO) -> None:
    """The picture that `savefig` writes, which draws it twice: once to know the size that it might be cut to."""
    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    imsave(file, canvas.buffer_rgba(), format="png", dpi=DPI)


def draw_curves(records: Sequence[Mapping[str, Any]], *, metric: str, best_step: int | None, title: str) -> Figure:
    """The picture that `plot_curves` writes; see there."""
    panels = ["loss"] if metric == "loss" else ["loss", metric]
    figure = Figure(figsize=(5.2 * len(panels), 3.8))
    FigureCanvasAgg(figure)
    # Margins that hold whatever numbers there are: to fit them, matplotlib would lay everything out three times.
    inches, gap = figure.get_figwidth(), 0.85
    width = (inches - len(panels) * gap - 0.15) / len(panels)
    figure.subplots_adjust(gap / inches, 0.135, 1 - 0.15 / inches, 0.89, wspace=gap / width)
    figure.suptitle(title, fontsize=11, parse_math=False)
    for axes, name in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _panel(axes, records, name, best_step)
    return figure


def series(records: Sequence[Mapping[str, Any]], name: str) -> tuple[list[float], list[float]]:
    """The epochs and values of the records that have `name`. A resumed run's repeated steps count once, the last."""
    points = {r["step"]: (float(r["epoch"]), float(r[name])) for r in records if r.get(name) is not None}
    ordered = [points[step] for step in sorted(points)]
    return [epoch for epoch, _ in ordered], [value for _, value in ordered]


def _panel(axes: Axes, records: Sequence[Mapping[str, Any]], name: str, best_step: int | None) -> None:
    drawn: list[float] = []
    if name == "loss":
        epochs, values = series(records, "train/step_loss")
        if len(values) > 2 * len(series(records, "train/loss")[1]):  # else it tells nothing that the epochs do not
            axes.plot(epochs, values, color=WITHIN, alpha=0.5, linewidth=0.8, label="training, within epochs", zorder=1)
            drawn += values
    for split, style in STYLES.items():
        epochs, values = series(records, f"{split}/{name}")
        if values:
            marker = style["marker"] if len(values) <= MARKERS_UP_TO else ""
            axes.plot(epochs, values, **{**style, "marker": marker}, markersize=4, linewidth=1.6, label=NAMES[split])
            drawn += values
    if name == "loss" and _spans_decades(drawn):
        axes.set_yscale("log")
    _mark_best(axes, records, name, best_step)
    axes.set_xlabel("epoch")
    axes.set_ylabel(name.replace("_", " "))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    axes.grid(alpha=0.3, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if drawn:
        axes.legend(frameon=False, fontsize=9)
    else:
        axes.text(0.5, 0.5, "nothing recorded", transform=axes.transAxes, ha="center", va="center", color="0.5")


def _mark_best(axes: Axes, records: Sequence[Mapping[str, Any]], name: str, best_step: int | None) -> None:
    """A line at the best epoch, and the validation value there in the legend."""
    best = next((r for r in reversed(records) if r["step"] == best_step and r.get(f"val/{name}") is not None), None)
    if best is None:
        return
    epoch, value = float(best["epoch"]), float(best[f"val/{name}"])
    axes.axvline(epoch, color=BEST, linestyle=":", linewidth=1.2, zorder=0)
    label = f"best, epoch {epoch:g}: {value:.4g}"
    axes.plot([epoch], [value], "*", color=BEST, markersize=12, markeredgecolor="white", label=label, zorder=5)


def _spans_decades(values: Sequence[float]) -> bool:
    """Whether positive values reach over more than two powers of ten."""
    finite = [value for value in values if math.isfinite(value)]
    return bool(finite) and min(finite) > 0 and math.log10(max(finite) / min(finite)) > DECADES
