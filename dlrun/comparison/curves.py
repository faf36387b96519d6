"""How a metric went, run by run, and the mean of several."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from dlrun.runs.metrics_log import read_metrics

Curve = tuple[list[float], list[float]]


def curve(run: Path, name: str, x: str) -> Curve:
    """Where a metric was recorded, in epochs, steps or seconds, and what it was; empty if it never was."""
    try:
        records = read_metrics(run / "metrics.jsonl")
    except (OSError, UnicodeDecodeError):
        return [], []
    points = {r["step"]: (float(r[x]), float(r[name])) for r in records if r.get(name) is not None and x in r}
    ordered = [points[step] for step in sorted(points)]  # a resumed run's repeated steps count once, the last
    return [at for at, _ in ordered], [value for _, value in ordered]


def mean_band(curves: Sequence[Curve]) -> tuple[list[float], list[float], list[float]]:
    """The mean of several curves and its standard deviation over them (0 of one), at the places of the shortest.

    Beyond the end of the shortest the mean would be of those that went on alone, and jump. Curves recorded elsewhere
    are interpolated linearly.
    """
    begin = max(xs[0] for xs, _ in curves)
    shortest = min(curves, key=lambda one: one[0][-1])[0]
    places = [at for at in shortest if at >= begin]
    columns = [[_at(one, place) for one in curves] for place in places]
    means = [math.fsum(column) / len(column) for column in columns]
    return places, means, [statistics.stdev(column) if len(column) > 1 else 0.0 for column in columns]


def _at(one: Curve, place: float) -> float:
    """The value of a curve at a place between its first and its last."""
    xs, ys = one
    for (x0, y0), (x1, y1) in zip(zip(xs, ys, strict=True), zip(xs[1:], ys[1:], strict=True), strict=False):
        if x0 <= place <= x1:
            return y0 if x1 == x0 else y0 + (y1 - y0) * (place - x0) / (x1 - x0)
    return ys[0] if place <= xs[0] else ys[-1]
