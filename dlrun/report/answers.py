"""Pictures of a classification's answers: which classes are taken for which, and whether confidence is deserved."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from dlrun.runs.files import write_atomically

NUMBERED_UP_TO = 20  # classes; the counts of more would not be legible
NAMED_UP_TO = 40
BLUE, ORANGE = "#0072B2", "#D55E00"  # Okabe & Ito's, told apart with any colour vision


def plot_confusion(confusion: Tensor, class_names: Sequence[str], path: Path, *, title: str) -> None:
    """Draw a confusion matrix as a PNG: shades by the share of the target's examples, counts as numbers.

    Args:
        confusion: (K, K) counts: row the target, column the answer.
        class_names: K of them, or none.

    Raises: OSError if the picture cannot be written.
    """
    _write(draw_confusion(confusion, class_names, title=title), path)


def draw_confusion(confusion: Tensor, class_names: Sequence[str], *, title: str) -> Figure:
    """The picture that `plot_confusion` writes."""
    count = len(confusion)
    side = min(3.0 + 0.36 * count, 14.0)
    figure = _figure((side, side), title)
    axes = figure.subplots()
    shares = confusion.double() / confusion.sum(1, keepdim=True).clamp_min(1)
    axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    if count <= NUMBERED_UP_TO:
        for row, numbers in enumerate(confusion.tolist()):
            for column, number in enumerate(numbers):
                shade = "white" if shares[row, column] > 0.5 else "black" if number else "0.75"
                axes.text(column, row, str(number), ha="center", va="center", fontsize=8, color=shade)
    if count <= NAMED_UP_TO:
        names = list(class_names) or [str(i) for i in range(count)]
        longest = max(map(len, names))
        axes.set_xticks(range(count), names, rotation=0 if longest * count <= 40 else 90, parse_math=False)
        axes.set_yticks(range(count), names, parse_math=False)
    axes.set_xlabel("answer")
    axes.set_ylabel("target")
    return figure


def plot_reliability(counts: Tensor, confidence: Tensor, accuracy: Tensor, path: Path, *, title: str) -> None:
    """Draw a reliability diagram as a PNG: how often answers are right, and how many there are, by their confidence.

    Args:
        counts, confidence, accuracy: of each bin of equal width.

    Source: Guo et al. 2017, fig. 1 (arXiv:1706.04599).
    Raises: OSError if the picture cannot be written.
    """
    _write(draw_reliability(counts, confidence, accuracy, title=title), path)


def draw_reliability(counts: Tensor, confidence: Tensor, accuracy: Tensor, *, title: str) -> Figure:
    """The picture that `plot_reliability` writes."""
    figure = _figure((4.6, 5.6), title)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    width, found = 1 / len(counts), counts > 0
    middles = [(i + 0.5) * width for i in range(len(counts))]
    upper.plot([0, 1], [0, 1], color="0.5", linestyle=":", linewidth=1.2, label="as promised")
    upper.bar(middles, accuracy.tolist(), width, color=BLUE, alpha=0.35, edgecolor=BLUE, linewidth=0.6)
    upper.plot(confidence[found].tolist(), accuracy[found].tolist(), "o", color=ORANGE, markersize=4, label="measured")
    upper.set_ylabel("share that is right")
    upper.set_ylim(0, 1)
    upper.legend(frameon=False, fontsize=9, loc="upper left")
    lower.bar(
        middles, (counts / counts.sum().clamp_min(1)).tolist(), width, color="0.6", edgecolor="0.4", linewidth=0.6
    )
    lower.set_ylabel("share of answers")
    lower.set_xlabel("confidence")
    lower.set_xlim(0, 1)
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3, linewidth=0.6)
    return figure


def _figure(size: tuple[float, float], title: str) -> Figure:
    # Without pyplot, as in dlrun/report/curves.py.
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=10, parse_math=False)
    return figure


def _write(figure: Figure, path: Path) -> None:
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=150))
