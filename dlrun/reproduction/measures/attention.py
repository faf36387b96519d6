"""Attention in a translation of numbers: what its weights are, what they show, and what they are good for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dlrun import build
from dlrun.contracts import IGNORED
from dlrun.examples import Pairs
from dlrun.generation import translate
from dlrun.glossary.figures import label, panels, styles
from dlrun.glossary.measure import Measured
from dlrun.glossary.measures.common import Array
from dlrun.prediction import load_predictor
from dlrun.reproduction.measures.common import curve, difference, finals
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


def answers(run: Run) -> tuple[Array, Array]:
    """Of every test number how many digits it has, and whether (1 or 0) it is translated wholly right."""
    splits = build.build_data(run.config)
    pairs, predictor = splits.test, load_predictor(RunDirectory(run.path))
    assert isinstance(pairs, Pairs)
    said = translate(predictor.model, pairs.sources, max_tokens=pairs.targets.shape[1])
    lengths = pairs.lengths[:, 1]  # with the end mark
    wanted = pairs.targets[:, : said.shape[1]]
    right = ((said == wanted) | (wanted == IGNORED)).all(1) & (lengths <= said.shape[1])
    return (lengths - 1).double().numpy(), right.double().numpy()


def order(weights: Array) -> float:
    """Correlation of a target token's place with the mean place it looks at: 1 for a diagonal."""
    place = weights @ np.arange(weights.shape[1])
    return float(np.corrcoef(np.arange(len(place)), place)[0, 1]) if len(place) > 2 and place.std() > 0 else 0.0


def measure(runs: Mapping[str, Sequence[Run]]) -> Measured:
    """Sums and order of the weights, how they change from token to token, and exact matches with and without."""
    seen = [each for run in runs["attention"] for each in looks(run, TEXTS)]
    with_it, without = (100 * finals(runs[name], f"test/{METRIC}") for name in ("attention", "none"))
    given = {name: [answers(run) for run in runs[name]] for name in runs}
    parts = {  # shares of the numbers of up to three digits and of more, by seed
        name: 100 * np.array([[right[n <= 3].mean(), right[n > 3].mean()] for n, right in each])
        for name, each in given.items()
    }
    short, long = (parts["attention"] - parts["none"]).T
    figure, (heat, course, lengths) = panels("Attention: six digits from Spanish words", 3, width=4.6, height=4.0)
    heat_map(heat, *seen[0])
    line = styles()
    for name, shown in (("attention", "with attention"), ("none", "without: one state for all")):
        each = [100 * curve(run, f"val/{METRIC}") for run in runs[name]]
        style, digits = next(line), np.arange(2, 7)  # of one digit there are too few
        share = [100 * np.mean([right[n == count].mean() for n, right in given[name]]) for count in digits]
        course.plot(np.arange(1, len(each[0]) + 1), np.mean(each, axis=0), **style, label=shown)
        lengths.plot(digits, share, **{**style, "marker": "o"}, label=shown)
    label(course, "epoch", "numbers wholly right (%)", "validation, mean over seeds")
    label(lengths, "digits of the number", "numbers wholly right (%)", "test, mean over seeds", legend=False)
    return Measured(
        {
            "sum_error": max(float(np.abs(weights.sum(1) - 1).max()) for weights, _, _ in seen),
            "moves": float(np.mean([np.abs(np.diff(weights, axis=0)).sum(1).mean() / 2 for weights, _, _ in seen])),
            "order": float(np.mean([order(weights) for weights, _, _ in seen])),
            "with_attention": float(with_it.mean()),
            "without": float(without.mean()),
            **difference("gain", with_it, without),
            "short_gain": float(short.mean()),
            "long_gain": float(long.mean()),
            **difference("growth", long, short),
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
