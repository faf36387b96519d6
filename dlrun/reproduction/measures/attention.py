"""Attention in a translation of numbers: what its weights are, what they show, and what they are good for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dlrun.glossary.figures import label, panels, styles
from dlrun.glossary.measure import Measured
from dlrun.glossary.measures.common import Array, paired
from dlrun.prediction import load_predictor
from dlrun.reproduction.measures.common import curve, finals
from dlrun.run import Run
from dlrun.runs.directory import RunDirectory

METRIC = "exact_match"
TEXTS = (
    "setecientos treinta y ocho mil cuatrocientos seis",
    "doscientos cincuenta y un mil novecientos ochenta y tres",
    "cuatrocientos sesenta y dos mil ciento noventa y siete",
    "novecientos catorce mil quinientos treinta y dos",
    "trescientos ochenta y nueve mil setecientos cuarenta y uno",
    "seiscientos veintisiete mil ochocientos cincuenta y cuatro",
    "ciento setenta y tres mil doscientos sesenta y nueve",
    "ochocientos cuarenta y cinco mil trescientos doce",
    "quinientos noventa y seis mil seiscientos setenta y ocho",
    "ciento treinta y cuatro mil cuatrocientos noventa y cinco",
)


def looks(run: Run, texts: Sequence[str]) -> list[tuple[Array, list[str], list[str]]]:
    """Of each text the weights (T, S), its tokens and those of its translation."""
    predictor = load_predictor(RunDirectory(run.path))
    found = [predictor.attention(text) for text in texts]
    return [(weights.double().numpy(), source, target) for weights, source, target in found]


def order(weights: Array) -> float:
    """Correlation of a target token's place with the mean place it looks at: 1 for a diagonal."""
    place = weights @ np.arange(weights.shape[1])
    return float(np.corrcoef(np.arange(len(place)), place)[0, 1]) if len(place) > 2 and place.std() > 0 else 0.0


def measure(runs: Mapping[str, Sequence[Run]]) -> Measured:
    """Sums and order of the weights, how they change from token to token, and exact matches with and without."""
    seen = [each for run in runs["attention"] for each in looks(run, TEXTS)]
    with_it, without = (100 * finals(runs[name], f"test/{METRIC}") for name in ("attention", "none"))
    gain, t = paired(list(with_it), list(without))
    figure, (heat, course) = panels("Attention: six digits from Spanish words", 2, width=5.2, height=4.0)
    heat_map(heat, *seen[0])
    line = styles()
    for name, shown in (("attention", "with attention"), ("none", "without: one state for all")):
        each = [100 * curve(run, f"val/{METRIC}") for run in runs[name]]
        course.plot(np.arange(1, len(each[0]) + 1), np.mean(each, axis=0), **next(line), label=shown)
    label(course, "epoch", "numbers wholly right (%)", "validation, mean over seeds")
    return Measured(
        {
            "sum_error": max(float(np.abs(weights.sum(1) - 1).max()) for weights, _, _ in seen),
            "moves": float(np.mean([np.abs(np.diff(weights, axis=0)).sum(1).mean() / 2 for weights, _, _ in seen])),
            "order": float(np.mean([order(weights) for weights, _, _ in seen])),
            "with_attention": float(with_it.mean()),
            "without": float(without.mean()),
            "gain": gain,
            "gain_t": t,
            "seeds": float(len(with_it)),
        },
        figure,
    )


def heat_map(axes: Any, weights: Array, source: Sequence[str], target: Sequence[str]) -> None:
    """A row for each digit written, a column for each word read."""
    image = axes.imshow(weights, cmap="Greys", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(source)), source, rotation=45, ha="right")
    axes.set_yticks(range(len(target)), target)
    axes.figure.colorbar(image, ax=axes, shrink=0.8, label="weight")
    axes.grid(visible=False)
    label(axes, "word read", "digit written", "", legend=False)
