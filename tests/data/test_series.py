"""Windows into a series, against a slow loop over rows, sklearn's scaler and numbers computed by numpy alone."""

import csv
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler

from dlrun.contracts import Splits, Task
from dlrun.data.noisy_sine import noisy_sine
from dlrun.data.scale import rows_of
from dlrun.data.series import series
from dlrun.errors import DataError
from dlrun.examples import SeriesWindows
from dlrun.inputs import encode_window
from dlrun.models.naive import last_value, seasonal_naive
from dlrun.splitting import complete

OPTIONS = {
    "columns": None,
    "targets": None,
    "time": None,
    "context": 4,
    "horizon": 3,
    "stride": 1,
    "rows": None,
    "season": 0,
    "missing": "refuse",
    "delimiter": ",",
}
ROWS = np.random.default_rng(0).normal([5, -100, 0.01], [2, 30, 0.001], size=(40, 3))


def load(path: Path, values=ROWS, header: str = "a,b,c", **options) -> Splits:
    if not isinstance(values, str):
        values = "\n".join(",".join(map(repr, row)) for row in values.tolist())
    path.write_text(f"{header}\n{values}\n")
    return series(path=str(path), **OPTIONS | options)


def every(windows: SeriesWindows) -> tuple[np.ndarray, np.ndarray]:
    batch = windows.take(torch.arange(len(windows)))
    return batch.inputs.numpy(), batch.targets.numpy()


@pytest.mark.parametrize("stride", [1, 2, 5])
@pytest.mark.parametrize(("targets", "chosen"), [(None, [0, 1, 2]), (["b"], [1]), (["c", "a"], [2, 0])])
def test_windows_are_those_of_a_slow_loop_over_rows(stride: int, targets, chosen: list[int], tmp_path: Path):
    splits = load(tmp_path / "x.csv", targets=targets, stride=stride, val_fraction=0.25, test_fraction=0.3)
    borders = {"train": (0, 18), "val": (18, 28), "test": (28, 40)}
    for name, (first, last) in borders.items():
        inputs, targets_ = [], []
        for row in range(40):  # the first that is forecast
            if row >= 4 and all(first <= row + ahead < last for ahead in range(3)):
                inputs.append([ROWS[row - 4 + step].tolist() for step in range(4)])
                targets_.append([ROWS[row + ahead][column] for ahead in range(3) for column in chosen])
        ours = every(getattr(splits, name))
        assert np.array_equal(ours[0], np.array(inputs[::stride]))
        assert np.array_equal(ours[1], np.array(targets_[::stride]))
    assert splits.spec.task is Task.FORECASTING
    assert splits.spec.shape == (4, 3)
    assert splits.spec.num_outputs == 3 * len(chosen)
    assert splits.spec.target_columns == tuple(chosen)
    assert splits.spec.horizon == 3


def test_no_row_is_a_target_in_two_splits(tmp_path: Path):
    splits = load(tmp_path / "x.csv", np.arange(120.0).reshape(40, 3))
    rows = [set((every(part)[1] // 3).flatten()) for part in (splits.train, splits.val, splits.test)]
    assert not rows[0] & rows[1]
    assert not rows[1] & rows[2]
    assert set.union(*rows) == set(range(4, 40))  # and none but the first inputs is lost
    assert max(rows[0]) < min(rows[1])
    assert max(rows[1]) < min(rows[2])


def test_the_scale_is_sklearn_s_of_the_training_rows_for_inputs_and_targets(tmp_path: Path):
    done = complete(load(tmp_path / "x.csv", targets=["b", "a"], val_fraction=0.25, test_fraction=0.3))
    oracle = StandardScaler().fit(ROWS[:18])
    assert [column.name for column in done.spec.columns] == ["a", "b", "c"]
    np.testing.assert_allclose([column.mean for column in done.spec.columns], oracle.mean_, rtol=1e-12)
    np.testing.assert_allclose([column.std for column in done.spec.columns], oracle.scale_, rtol=1e-12)
    scaled = oracle.transform(ROWS)
    inputs, targets = every(done.test)
    assert inputs.dtype == targets.dtype == np.float32
    np.testing.assert_allclose(inputs[0], scaled[24:28], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(targets[0].reshape(3, 2), scaled[28:31][:, [1, 0]], rtol=1e-5, atol=1e-6)
    # What predictions are turned back with: one entry per output, time first.
    back = targets[0] * np.array(done.spec.target_std) + np.array(done.spec.target_mean)
    np.testing.assert_allclose(back.reshape(3, 2), ROWS[28:31][:, [1, 0]], rtol=1e-5)
    assert done.train.series is done.test.series


def test_nothing_leaks_from_later_rows_or_unused_windows(tmp_path: Path):
    specs = []
    for scale in (1, 1000):
        rows = ROWS.copy()
        rows[28:] *= scale
        specs.append(complete(load(tmp_path / "x.csv", rows)).spec)
    assert specs[0] == specs[1]
    splits = load(tmp_path / "x.csv")
    spec, _ = splits.fit(splits.train.subset(torch.tensor([9, 2, 9])))
    seen = [*range(2, 2 + 7), *range(9, 9 + 7)]
    np.testing.assert_allclose([c.mean for c in spec.columns], ROWS[seen].mean(0), rtol=1e-12)


def test_rows_of_windows_that_overlap_touch_and_lie_apart():
    windows = SeriesWindows(torch.zeros(12, 1), torch.tensor([0, 1, 4, 9]), 2, 1, torch.tensor([0]))
    assert rows_of(windows).nonzero().flatten().tolist() == [0, 1, 2, 3, 4, 5, 6, 9, 10, 11]


def test_without_normalising_numbers_stay_as_they_are(tmp_path: Path):
    done = complete(load(tmp_path / "x.csv", normalize=False), normalize=False)
    np.testing.assert_array_equal(every(done.train)[0][0], ROWS[:4].astype(np.float32))
    assert done.spec.target_std == (1.0,) * 9  # errors are reported per output all the same
    assert done.spec.target_mean == (0.0,) * 9


def test_columns_are_chosen_ordered_and_completed_by_the_targets(tmp_path: Path):
    def names(**options) -> list[str]:
        rows = "\n".join(f"2020-01-{day:02},{day},x,{-day},{day * day}" for day in range(1, 31))
        splits = load(tmp_path / "x.csv", rows, "day,n,label,m,square", **options)
        return [column.name for column in splits.spec.columns]

    assert names() == ["n", "m", "square"]
    assert names(time="n") == ["m", "square"]
    assert names(time="day") == ["n", "m", "square"]
    assert names(columns=["square", "n"]) == ["square", "n"]
    assert names(columns=["m"], targets=["square", "m"]) == ["m", "square"]


def test_new_rows_are_encoded_as_the_file_was(tmp_path: Path):
    done = complete(load(tmp_path / "x.csv", columns=["c", "a"]))
    assert torch.equal(encode_window(tmp_path / "x.csv", done.spec)[0], done.test.series[-4:])


def test_a_constant_column_is_centred(tmp_path: Path):
    rows = ROWS.copy()
    rows[:, 1] = 0.1
    done = complete(load(tmp_path / "x.csv", rows))
    assert done.spec.columns[1].std == 1
    assert abs(every(done.train)[0][:, :, 1]).max() < 1e-6


def test_gaps_are_filled_forward_if_wanted(tmp_path: Path):
    text = "\n".join(f"{'' if i % 3 == 1 or i in (8, 9) else i},{i}" for i in range(40))
    splits = load(tmp_path / "x.csv", text, "gaps,i", missing="forward")
    expected, last = [], None
    for i in range(40):
        last = last if i % 3 == 1 or i in (8, 9) else i
        expected.append(last)
    assert splits.train.series[:, 0].tolist() == expected


def test_fewer_rows_are_the_first_and_the_rest_is_not_looked_at(tmp_path: Path):
    whole = load(tmp_path / "x.csv", lines(30), "t,v")
    cut = load(tmp_path / "x.csv", lines(30) + "\n30,oops", "t,v", rows=30)
    for part in ("train", "val", "test"):
        pairs = zip(every(getattr(whole, part)), every(getattr(cut, part)), strict=True)
        assert all(np.array_equal(a, b) for a, b in pairs)


def lines(count: int = 40, **special: str) -> str:
    return "\n".join(special.get(f"row{i}", f"{i},{i % 5}") for i in range(count))


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (
            lines(5),
            {},
            r"x.csv: 4 of 5 rows are left for training, too few for a window of data.context=4 and data.hor",
        ),
        (lines(), {"val_fraction": 0.6, "test_fraction": 0.5}, r"0 of 40 rows are left .*lower data.val_fraction=0.6"),
        (lines(), {"val_fraction": 0.05}, r"data.val_fraction=0.05 of 40 rows is 2, too few to hold data.horizon=3"),
        (lines(), {"test_fraction": 0.01}, r"data.test_fraction=0.01 of 40 rows is 0, too few"),
        (lines(), {"rows": 41}, r"data.rows=41, but data.path=.*x.csv has 40 rows"),
        (lines(), {"columns": ["tt"]}, r"no column 'tt' \(data.columns names it\); it has t, v"),
        (lines(), {"targets": ["w"]}, r"no column 'w' \(data.targets names it\); it has t, v"),
        (lines(), {"columns": []}, r"data.columns is empty; .*data.columns=null for all"),
        (lines(), {"columns": ["v", "v"]}, r"data.columns names 'v' twice"),
        (lines(), {"time": "t", "targets": ["t"]}, r"data.targets must not name the column of data.time=t"),
        (lines(), {"time": "T"}, r"no column 'T' \(data.time=T\)"),
        (lines(), {"delimiter": "||"}, r"data.delimiter must be one character or 'tab', got '\|\|'"),
        (lines(row7="7,high"), {}, r"x.csv, line 9, column 'v': 'high' is not a finite number; correct it"),
        (lines(row7="7,inf"), {}, r"line 9, column 'v': 'inf' is not a finite number"),
        (lines(row7="7,"), {}, r"line 9, column 'v': the value is missing; .*data.missing=forward"),
        (lines(row0="0,NA"), {"missing": "forward"}, r"line 2, column 'v': .*there is none before it to repeat"),
        (lines(row7="5,1"), {"time": "t"}, r"line 9: data.time=t is 5, not later than 6 in the row before"),
        (lines(row7="6,1"), {"time": "t"}, r"line 9: data.time=t is 6, not later than 6"),
        (lines(row7="seven,1"), {"time": "t"}, r"line 9: data.time=t is 'seven', neither a number nor an ISO 8601"),
        (lines(row7="?,1"), {"time": "t"}, r"line 9: data.time=t is '\?', neither"),
        ("\n".join("x,y" for _ in range(40)), {}, r"has no column of numbers; it has t, v"),
    ],
)
def test_unfit_series_are_refused(rows: str, options: dict, message: str, tmp_path: Path):
    with pytest.raises(DataError, match=message):
        load(tmp_path / "x.csv", rows, "t,v", **options)


@pytest.mark.parametrize("unit", ["2020-03-29 0{}:00:00", "2020-03-2{}", "2020-03-29T0{}:00:00+01:00", "2020-W1{}-1"])
def test_times_are_iso_dates_without_zones_of_the_machine(unit: str, tmp_path: Path):
    for order in (range(10), [0, 1, 3, 2]):
        rows = "\n".join(f"{unit.format(i)},{i}" for i in order)
        with pytest.raises(DataError, match="not later than" if len(order) == 4 else "rows are left"):
            load(tmp_path / "x.csv", rows, "t,v", time="t", context=20)


def etth1(**options) -> Splits:
    path = Path(os.environ.get("DLRUN_DATA", "data")) / "ETTh1.csv"
    if not path.is_file():
        pytest.skip(f"DLRUN_DATA does not name a folder with ETTh1.csv: {path}")
    given = {"time": "date", "context": 96, "horizon": 96, "rows": 14400, "season": 24} | options
    return complete(series(name="etth1", path=str(path), **OPTIONS | given, val_fraction=0.2, test_fraction=0.2))


def test_naive_forecasts_of_etth1_have_their_published_errors():
    splits = etth1()
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [8449, 2785, 2785]
    with open(Path(os.environ["DLRUN_DATA"]) / "ETTh1.csv") as file:
        rows = np.array([[float(cell) for cell in row[1:]] for row in list(csv.reader(file))[1:14401]])
    scaled = (rows - rows[:8640].mean(0)) / rows[:8640].std(0)
    past, future = {"last_value": 1, "seasonal_naive": 24}, np.arange(11520, 14400 - 95)
    batch = splits.test.take(torch.arange(len(splits.test)))
    found = {}
    for model in (last_value, seasonal_naive):
        period = past[model.__name__]
        errors = [scaled[future + h] - scaled[future - period + h % period] for h in range(96)]
        ours = model(splits.spec)(batch.inputs) - batch.targets
        found[model.__name__] = ours.square().mean().item(), ours.abs().mean().item()
        assert found[model.__name__] == pytest.approx((np.square(errors).mean(), np.abs(errors).mean()), rel=1e-5)
    # "Repeat" of Zeng et al. 2022 (arXiv:2205.13504), table 2.
    assert found["last_value"] == pytest.approx((1.295, 0.713), abs=1e-3)


SINE = {"samples": 4000, "context": 50, "horizon": 1, "radians_per_step": 0.05, "amplitude": (1.0, 1.0), "noise": 0.05}


def test_a_sine_without_noise_obeys_its_recurrence():
    options = SINE | {"noise": 0.0, "horizon": 3, "amplitude": (10.0, 15.0), "radians_per_step": 0.25}
    splits = noisy_sine(**options, seed=0)
    inputs, targets = every(splits.train)
    whole = np.concatenate([inputs[:, :, 0], targets], axis=1)
    np.testing.assert_allclose(whole[:, 2:], 2 * math.cos(0.25) * whole[:, 1:-1] - whole[:, :-2], atol=1e-11)
    # Amplitude from a point and its slope.
    slope = (whole[:, 1] - whole[:, 0] * math.cos(0.25)) / math.sin(0.25)
    amplitude = np.hypot(whole[:, 0], slope)
    assert amplitude.min() >= 10 - 1e-9
    assert amplitude.max() <= 15 + 1e-9
    assert amplitude.mean() == pytest.approx(12.5, abs=0.12)  # five standard errors
    assert splits.spec.season == 25


def test_the_best_forecast_of_a_noisy_sine_errs_by_its_noise():
    inputs, targets = every(noisy_sine(**SINE, seed=0).train)
    step = np.arange(51)
    design = np.stack([np.sin(0.05 * step), np.cos(0.05 * step)], axis=1)
    fitted = np.linalg.lstsq(design[:50], inputs[:, :, 0].T, rcond=None)[0]
    mse = np.square(design[50] @ fitted - targets[:, 0]).mean()
    leverage = design[50] @ np.linalg.inv(design[:50].T @ design[:50]) @ design[50]
    assert mse == pytest.approx(0.05**2 * (1 + leverage), rel=0.11)  # five standard errors of 4,000 squares


def test_seed_decides_the_sines_and_splits_hold_whole_series():
    first, again, other = (noisy_sine(**SINE, seed=seed).train for seed in (3, 3, 4))
    assert torch.equal(first.series, again.series)
    assert not torch.equal(first.series, other.series)
    done = complete(noisy_sine(**SINE, seed=0))
    assert [len(part) for part in (done.train, done.val, done.test)] == [2880, 320, 800]
    taken = torch.cat([done.train.starts, done.val.starts, done.test.starts])
    assert sorted(taken.tolist()) == list(range(0, 4000 * 51, 51))
    inputs, targets = every(done.train)
    assert np.concatenate([inputs[:, :, 0], targets], axis=1).std() == pytest.approx(1, abs=1e-5)
