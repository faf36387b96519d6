"""Pictures of a search: how it went, which keys mattered, what was tried, and for two objectives the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from dlrun.report.curves import write_png
from dlrun.runs.files import write_atomically
from dlrun.tuning.objectives import COSTS, Objective
from dlrun.tuning.space import Dimension, Space
from dlrun.tuning.storage import is_result

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "0.6"
FEWEST_FOR_IMPORTANCE = 8  # completed trials; from fewer it is noise
COLUMNS = 4
LONGEST = 14  # characters of a tick label
EDGE = "trials that are much worse are drawn at the edge"


def draw_study(
    study: Study, objectives: Sequence[Objective], space: Space, best: FrozenTrial, folder: Path
) -> list[Path]:
    """Draw what there is to draw as PNGs, `best` marked. Returns: their paths."""
    trials = [t for t in study.get_trials(deepcopy=False) if t.state.is_finished()]
    complete = [t for t in trials if is_result(t)]
    figures: dict[str, Figure] = {
        "history": draw_history(trials, objectives[0]),
        "slice": draw_slices(complete, objectives[0], space, best),
    }
    if len(complete) > 1 and len(space.dimensions) > 1:
        figures["parallel"] = draw_parallel(complete, objectives[0], space, best)
    importances = importance(study, complete, space)
    if importances:
        figures["importance"] = draw_importance(importances, objectives[0])
    if len(objectives) == 2:
        figures["pareto"] = draw_pareto(complete, study.best_trials, objectives)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in figures.items():
        path = folder / f"{name}.png"
        write_atomically(path, _writer(figure))
        paths.append(path)
    return paths


def _writer(figure: Figure) -> Callable[[Any], None]:
    return lambda file: write_png(figure, file)


def draw_history(trials: Sequence[FrozenTrial], objective: Objective) -> Figure:
    """The value of each trial, in the order in which they began, and the best so far."""
    figure, (axes,) = _figure(1, 6.4, 3.8)
    complete = [t for t in trials if is_result(t)]
    edge = _limit(axes, complete, objective)
    axes.plot(*_points(complete, edge, objective), "o", color=BLUE, markersize=4.5, label="completed", zorder=3)
    pruned = [t for t in trials if t.state.name == "PRUNED" and t.values]
    if pruned:
        label = "pruned, value when it was"
        axes.plot(*_points(pruned, edge, objective), "x", color=GREY, markersize=5, label=label, zorder=2)
    numbers: list[int] = []
    best: list[float] = []
    for trial in sorted(complete, key=lambda t: t.number):
        value = trial.values[0]
        best.append(value if not best or objective.better(value, best[-1]) else best[-1])
        numbers.append(trial.number)
    last = max(t.number for t in trials)
    axes.step([*numbers, last], [*best, best[-1]], where="post", color=ORANGE, linewidth=1.6, label="best so far")
    axes.set_xlabel("trial")
    axes.set_ylabel(_name(objective))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=9, loc="best")
    if edge is not None:
        axes.set_title(EDGE, fontsize=8, color="0.35")
    return figure


def _points(trials: Sequence[FrozenTrial], edge: float | None, objective: Objective) -> tuple[list[int], list[float]]:
    return [t.number for t in trials], [_seen(t.values[0], edge, objective) for t in trials]


def _seen(value: float, edge: float | None, objective: Objective) -> float:
    """A value, or the edge of the picture if it is worse than that."""
    return edge if edge is not None and objective.better(edge, value) else value


def _limit(axes: Axes, complete: Sequence[FrozenTrial], objective: Objective) -> float | None:
    """Show where the good ones are: a few bad trials would press all others into a line. Returns: the worse edge."""
    ordered = sorted((t.values[0] for t in complete), reverse=objective.higher_is_better)
    good = ordered[: max(len(ordered) * 3 // 4, 2)]
    spread = abs(good[0] - good[-1])
    if spread == 0 or abs(good[0] - ordered[-1]) < 3 * spread:
        return None
    sign = -1 if objective.higher_is_better else 1
    edge, room = float(good[-1] + sign * 0.5 * spread), 0.06 * spread
    axes.set_ylim(*sorted((good[0] - 2 * sign * room, edge + sign * room)))
    return edge


def draw_slices(complete: Sequence[FrozenTrial], objective: Objective, space: Space, best: FrozenTrial) -> Figure:
    """The value against each key, over all others."""
    figure, panels = _figure(len(space.dimensions), 3.0, 2.7)
    for axes, dimension in zip(panels, space.dimensions, strict=True):
        edge = _limit(axes, complete, objective)
        shown = [t for t in complete if dimension.key in t.params]
        place = _places(dimension)
        values = [_seen(t.values[0], edge, objective) for t in shown]
        axes.plot([place(t.params[dimension.key]) for t in shown], values, "o", color=BLUE, markersize=4, alpha=0.7)
        if dimension.key in best.params:
            at, label = place(best.params[dimension.key]), f"best, trial {best.number}"
            axes.plot([at], [best.values[0]], "*", color=ORANGE, markersize=11, markeredgecolor="white", label=label)
        _scale(axes, dimension)
        axes.set_xlabel(dimension.key)
    for axes in panels[::COLUMNS]:
        axes.set_ylabel(_name(objective))
    panels[0].legend(frameon=False, fontsize=8, loc="best")
    if edge is not None:
        figure.suptitle(EDGE, fontsize=8, color="0.35")
    return figure


def _places(dimension: Dimension) -> Callable[[Any], float]:
    """Where a value stands on an axis."""
    if dimension.kind != "categorical":
        return float
    return lambda value: float(dimension.choices.index(value))


def _scale(axes: Axes, dimension: Dimension) -> None:
    if dimension.kind == "categorical":
        axes.set_xticks(range(len(dimension.choices)), [_tick(c) for c in dimension.choices], fontsize=8)
        axes.set_xlim(-0.5, len(dimension.choices) - 0.5)
        if sum(len(_tick(c)) for c in dimension.choices) > 26:
            axes.tick_params(axis="x", rotation=30)
    elif dimension.log:
        axes.set_xscale("log")
        if dimension.high / dimension.low > 30:
            axes.xaxis.set_minor_formatter(NullFormatter())
    elif dimension.kind == "int":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _tick(value: Any) -> str:
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def draw_parallel(complete: Sequence[FrozenTrial], objective: Objective, space: Space, best: FrozenTrial) -> Figure:
    """Each trial as a line through its values, coloured by what it reached; a key it does not have is left out."""
    dimensions = space.dimensions
    figure, (axes,) = _figure(1, max(1.5 * len(dimensions) + 1.5, 5.0), 3.8)
    sign = 1 if objective.higher_is_better else -1
    ordered = sorted(complete, key=lambda t: (t.number == best.number, sign * t.values[0]))  # the best on top
    values = [t.values[0] for t in ordered]
    good = sorted(values, reverse=objective.higher_is_better)[: max(len(values) * 3 // 4, 2)]
    norm = Normalize(min(good), max(good) if max(good) > min(good) else min(good) + 1, clip=True)
    colours = colormaps["cividis"] if objective.higher_is_better else colormaps["cividis_r"]
    for trial in ordered:
        is_best = trial.number == best.number
        points = [(i, _height(d, trial.params[d.key])) for i, d in enumerate(dimensions) if d.key in trial.params]
        axes.plot(
            [x for x, _ in points],
            [y for _, y in points],
            color=ORANGE if is_best else colours(norm(trial.values[0])),
            linewidth=2.4 if is_best else 1.0,
            alpha=1.0 if is_best else 0.75,
            marker="o",
            markersize=3,
            label=f"best, trial {trial.number}" if is_best else None,
        )
    for i, dimension in enumerate(dimensions):
        axes.axvline(i, color="0.5", linewidth=0.8, zorder=0)
        marks = dimension.choices if dimension.kind == "categorical" else dimension.ends()
        for mark in marks:
            text = f"{mark:.3g}" if isinstance(mark, float) else _tick(mark)
            axes.annotate(
                text,
                (i, _height(dimension, mark)),
                xytext=(4, 0),
                textcoords="offset points",
                fontsize=7.5,
                va="center",
                color="0.15",
                bbox={"facecolor": "white", "alpha": 0.7, "pad": 0.5, "lw": 0},
            )
    axes.set_xticks(range(len(dimensions)), [d.key for d in dimensions], fontsize=8.5, rotation=12)
    axes.set_xlim(-0.3, len(dimensions) - 0.5)
    axes.set_yticks([])
    axes.grid(False)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1.0))
    figure.colorbar(ScalarMappable(norm, colours), ax=axes, label=_name(objective), pad=0.02)
    return figure


def _height(dimension: Dimension, value: Any) -> float:
    """From 0 to 1, low to high, first choice to last."""
    if dimension.kind == "categorical":
        return dimension.choices.index(value) / max(len(dimension.choices) - 1, 1)
    if dimension.log:
        return math.log(value / dimension.low) / math.log(dimension.high / dimension.low)
    return float((value - dimension.low) / (dimension.high - dimension.low))


def importance(study: Study, complete: Sequence[FrozenTrial], space: Space) -> dict[str, float]:
    """What part of the variance of the first objective each key explains, by fANOVA; {} from too few trials.

    Keys under a condition are left out, as not every trial has them.

    Source: Hutter, Hoos, Leyton-Brown 2014, An Efficient Approach for Assessing Hyperparameter Importance.
    """
    keys = [d.key for d in space.dimensions if not d.when and len({t.params[d.key] for t in complete}) > 1]
    if len(complete) < FEWEST_FOR_IMPORTANCE or len(keys) < 2 or len({t.values[0] for t in complete}) < 2:
        return {}
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances  # scikit-learn's forests

    found = get_param_importances(
        study, evaluator=FanovaImportanceEvaluator(seed=0), params=keys, target=lambda trial: trial.values[0]
    )
    return {key: float(part) for key, part in found.items()}


def draw_importance(parts: dict[str, float], objective: Objective) -> Figure:
    """Bars, the most important key on top."""
    figure, (axes,) = _figure(1, 5.6, 0.42 * len(parts) + 1.3)
    ordered = sorted(parts.items(), key=lambda item: item[1])
    bars = axes.barh([key for key, _ in ordered], [part for _, part in ordered], color=BLUE, height=0.6)
    axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=8.5)
    axes.set_xlim(0, 1.1 * max(max(parts.values()), 1e-9))
    axes.set_xlabel("part of the variance explained (fANOVA)")
    axes.set_title(_name(objective), fontsize=10)
    axes.grid(axis="y", visible=False)
    return figure


def draw_pareto(
    complete: Sequence[FrozenTrial], front: Sequence[FrozenTrial], objectives: Sequence[Objective]
) -> Figure:
    """All trials by two objectives, and the front: those of which no other is better in both."""
    figure, (axes,) = _figure(1, 5.6, 4.0)
    best = {t.number for t in front}
    others = [t for t in complete if t.number not in best]
    line = sorted(front, key=lambda t: t.values[1])
    axes.plot(
        [t.values[1] for t in others],
        [t.values[0] for t in others],
        "o",
        color=GREY,
        markersize=4.5,
        label="other trials",
    )
    axes.plot(
        [t.values[1] for t in line],
        [t.values[0] for t in line],
        "s-",
        color=ORANGE,
        markersize=6,
        linewidth=1.2,
        label="Pareto front",
        zorder=3,
    )
    for trial in line:
        axes.annotate(str(trial.number), trial.values[1::-1], xytext=(4, -10), textcoords="offset points", fontsize=8)
    seconds = [t.values[1] for t in complete]
    if min(seconds) > 0 and max(seconds) / min(seconds) > 30:
        axes.set_xscale("log")
    axes.set_xlabel(_name(objectives[1], arrow=True))
    axes.set_ylabel(_name(objectives[0], arrow=True))
    axes.legend(frameon=False, fontsize=9)
    return figure


def _name(objective: Objective, *, arrow: bool = False) -> str:
    unit = " (s)" if objective.name == "seconds" else ""
    better = (" (higher is better)" if objective.higher_is_better else " (lower is better)") if arrow else ""
    name = objective.name if objective.name in COSTS else objective.name.replace("val/", "validation ")
    return name.replace("_", " ") + unit + better


def _figure(panels: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    columns = min(panels, COLUMNS)
    rows = math.ceil(panels / columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes in grid[panels:]:
        axes.set_axis_off()
    for axes in grid[:panels]:
        axes.grid(alpha=0.3, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, list(grid[:panels])
