"""Series and forecasts that cannot be: refused with the file, the key and the way out."""

from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Answer

ROWS = [f"2020-01-01 {i:02}:00:00,{i}.5,{i % 7},warm" for i in range(24)]


def write(path: Path, **special: str) -> None:
    rows = [special.get(f"line{i}", row) for i, row in enumerate(ROWS, 2)]
    path.write_text("\n".join(["time,load,people,weather", *rows]) + "\n")


@pytest.mark.parametrize(
    ("settings", "needles"),
    [
        (["data.path=nope.csv"], ["data.path=nope.csv", "No such file"]),
        (["data.context=96"], ["17 of 24 rows are left", "data.context=96", "data.horizon=2"]),
        (["data.horizon=3"], ["data.val_fraction=0.1 of 24 rows is 2", "data.horizon=3"]),
        (["data.context=0"], ["data.context", ">= 1", "got 0"]),
        (["data.targets=[people,heat]"], ["no column 'heat'", "data.targets", "time, load, people, weather"]),
        (["data.columns=[peple]"], ["'peple'", "Did you mean 'people'?"]),
        (["data.columns=[weather]"], ["line 2", "'weather'", "'warm'", "not a finite number"]),
        (["data.time=weather"], ["line 2", "data.time=weather", "'warm'", "ISO 8601", "data.time=null"]),
        (["data.rows=25"], ["data.rows=25", "24 rows"]),
        (["data.missing=drop"], ["data.missing", "'drop'", "refuse, forward"]),
        (["data.val_fraction=0"], ["data.val_fraction", "got 0"]),
        (["data.folds=3"], ["data.folds=3", "data=series", "data.folds=null"]),
        (["data.season=-1"], ["data.season", ">= 0", "got -1"]),
        (["model=seasonal_naive"], ["model=seasonal_naive", "model.period", "data.season"]),
        (["model=seasonal_naive", "model.period=24"], ["model.period of 24 steps", "the 4 that it sees"]),
        (["model=seasonal_naive", "model.period=0"], ["model.period", ">= 1", "got 0"]),
        (["model=moving_average", "model.window=5"], ["model.window", "at most the 4 steps", "got 5"]),
        (["model=cnn"], ["model=cnn reads images", "data=series gives sequences of shape (4, 2)"]),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else None,
)
def test_settings_that_do_not_suit_the_series(
    settings: list[str], needles: list[str], tmp_path: Path, dlrun: Callable[..., Answer]
):
    write(tmp_path / "x.csv")
    words = ["data=series", "data.path=x.csv", "data.time=time", "data.context=4", "data.horizon=2"]
    dlrun("train", *words, *settings).must_refuse(*needles)


@pytest.mark.parametrize(
    ("special", "needles"),
    [
        ({"line9": "2020-01-01 07:00:00,,3,warm"}, ["x.csv, line 9", "'load'", "missing", "data.missing=forward"]),
        ({"line9": "2020-01-01 07:00:00,low,3,warm"}, ["x.csv, line 9", "'load'", "'low'"]),
        ({"line9": "2020-01-01 07:00:00,3,warm"}, ["x.csv, line 9", "3 cells"]),
        ({"line9": "2019-01-01 07:00:00,1,3,warm"}, ["x.csv, line 9", "data.time=time", "not later", "sort the rows"]),
        ({"line9": "noon,1,3,warm"}, ["x.csv, line 9", "data.time=time", "'noon'"]),
    ],
)
def test_a_series_that_cannot_be_learnt_from(
    special: dict[str, str], needles: list[str], tmp_path: Path, dlrun: Callable[..., Answer]
):
    write(tmp_path / "x.csv", **special)
    words = ["data=series", "data.path=x.csv", "data.time=time", "data.context=4", "data.horizon=2"]
    dlrun("train", *words).must_refuse(*needles)


@pytest.mark.parametrize(
    ("words", "needles"),
    [
        (["data=iris", "model=last_value"], ["model=last_value", "data=iris is classification", "data=etth1"]),
        (["data=linear", "model=drift"], ["model=drift", "data=linear is regression"]),
        (["data=noisy_sine", "model=seasonal_naive"], ["the season of 126 steps", "the 50", "data.context=126"]),
        (["data=noisy_sine", "data.amplitude=2"], ["data.amplitude", "a list of 2", "got 2"]),
        (["data=noisy_sine", "data.amplitude=[3,1]"], ["data.amplitude", "[3, 1]", "the smaller first"]),
        (["data=adding", "data.length=1"], ["data.length", ">= 2", "got 1"]),
        (["data=adding", "data.marks=thirds"], ["data.marks", "halves, anywhere", "'thirds'"]),
        (["data=etth1", "data.path=ETTh1.csv"], ["data.path=ETTh1.csv", "No such file"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_data_and_forecasts_that_do_not_go_together(words: list[str], needles: list[str], dlrun: Callable[..., Answer]):
    dlrun("train", *words).must_refuse(*needles)
