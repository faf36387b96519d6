"""Where a translation looks: the weights of its attention as a heat map."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from dlrun.runs.files import write_atomically


def plot_attention(weights: Tensor, source: Sequence[str], target: Sequence[str], path: Path) -> None:
    """Draw a heat map as a PNG: a row for each target token, a column for each source token.

    Args:
        weights: (T, S), each row what its token was drawn from; they add up to 1.
        source, target: the S and T tokens.

    Source of the picture: Bahdanau et al. 2015, fig. 3 (arXiv:1409.0473).
    Raises: OSError if the picture cannot be written.
    """
    figure = draw_attention(weights, source, target)
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=150))


def draw_attention(weights: Tensor, source: Sequence[str], target: Sequence[str]) -> Figure:
    """The picture that `plot_attention` writes."""
    size = (min(2.0 + 0.34 * len(source), 16.0), min(1.6 + 0.34 * len(target), 16.0))
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    image = axes.imshow(weights.numpy(), cmap="viridis", vmin=0, aspect="auto")
    upright = max(map(len, source)) <= 2
    axes.set_xticks(range(len(source)), map(_shown, source), rotation=0 if upright else 60, parse_math=False)
    axes.set_yticks(range(len(target)), map(_shown, target), parse_math=False)
    axes.xaxis.tick_top()
    figure.colorbar(image, ax=axes, shrink=0.8)
    return figure


def _shown(token: str) -> str:
    return "␣" if token == " " else token
