"""What pictures of a comparison show, read back from the figure."""

import statistics
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from dlrun.comparison import Comparison, compare
from dlrun.comparison.curves import mean_band
from dlrun.comparison.pictures import write
from dlrun.errors import UsageError
from tests.recorded_runs import make_run

RATES = (0.001, 0.01, 0.1)


@pytest.fixture
def runs(tmp_path: Path) -> Comparison:
    for rate in RATES:
        for dropout in (0.0, 0.5):
            for seed in range(2):
                value = 0.5 + rate + dropout / 10 + seed / 100
                make_run(
                    tmp_path / f"{rate}_{dropout}_{seed}",
                    {"optimizer.lr": rate, "model.dropout": dropout, "seed": seed},
                    val=value,
                    curve={step: value * step / 84 for step in (21, 42, 63, 84)[: 4 - seed]},
                )
    return compare([str(tmp_path)])


def lines(figure: Figure) -> dict[str, tuple[list[float], list[float]]]:
    """The labelled lines of the only axes."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    drawn = [handle.lines[0] if hasattr(handle, "lines") else handle for handle in handles]
    return {label: (list(line.get_xdata()), list(line.get_ydata())) for label, line in zip(labels, drawn, strict=True)}


def test_the_mean_of_curves_ends_with_the_shortest_and_interpolates():
    places, mean, std = mean_band([([1, 2, 3], [1.0, 2.0, 3.0]), ([0, 2, 4, 6], [0.0, 4.0, 8.0, 12.0])])
    assert places == [1, 2, 3]
    assert mean == [1.5, 3.0, 4.5]
    assert std == [pytest.approx(statistics.stdev(pair)) for pair in ((1, 2), (2, 4), (3, 6))]


def test_curves(runs: Comparison):
    found = lines(runs.plot(x="step"))
    assert len(found) == 6
    xs, ys = found["lr=0.1 dropout=0.5 (n = 2)"]
    assert xs == [21, 42, 63]  # the other seed ended there
    assert ys[-1] == pytest.approx((0.65 + 0.66) / 2 * 0.75)


def test_a_metric_against_a_key_has_a_logarithmic_axis_and_a_line_for_each_other_setting(runs: Comparison):
    figure = runs.plot(["lr"])
    assert figure.axes[0].get_xscale() == "log"
    found = lines(figure)
    assert list(found) == ["dropout=0.5", "dropout=0"]
    assert found["dropout=0"] == (list(RATES), [pytest.approx(0.505 + rate) for rate in RATES])


def test_a_heat_map(runs: Comparison):
    figure = runs.plot(["lr", "dropout"])
    (image,) = figure.axes[0].images
    expected = [[0.505 + rate + dropout / 10 for rate in RATES] for dropout in (0.0, 0.5)]
    assert image.get_array().tolist() == [pytest.approx(line) for line in expected]


@pytest.mark.parametrize(
    ("by", "said"),
    [
        (["lr", "dropout", "seed"], "one key or two"),
        (["widths"], "1 value of it"),
        (["lr", "widths"], "two values of each"),
        (["learning"], "no run has the key 'learning'"),
    ],
)
def test_what_cannot_be_drawn_is_refused(runs: Comparison, by: list[str], said: str):
    with pytest.raises(UsageError, match=said):
        runs.plot(by)


def test_a_picture_is_written_by_its_ending(runs: Comparison, tmp_path: Path):
    write(runs.plot(["lr"]), tmp_path / "lr.svg")
    assert "<svg" in (tmp_path / "lr.svg").read_text()
