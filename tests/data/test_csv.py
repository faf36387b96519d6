import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from dlrun.contracts import Task
from dlrun.data.csv import Table, csv
from dlrun.errors import DataError
from dlrun.inputs import encode_rows, read_rows

OPTIONS = {"target": "y", "task": "auto", "drop": [], "categorical": [], "test_path": None, "delimiter": ","}


def load(path: Path, text: str | None = None, **options):
    if text is not None:
        path.write_text(text)
    return csv(path=str(path), **OPTIONS | options)


def people(rows: int, seed: int = 0) -> list[list[str]]:
    """Rows of two number columns with gaps, a text column with gaps, a constant and a class."""
    rng = np.random.default_rng(seed)
    return [
        [
            "" if rng.random() < 0.2 else f"{rng.normal(40, 15):.3f}",
            "NA" if rng.random() < 0.1 else f"{rng.lognormal(3, 1):.2f}",
            rng.choice(["Oslo", "Rome", "Bern", "?"]),
            "0.1",
            rng.choice(["yes", "no"]),
        ]
        for _ in range(rows)
    ]


def text_of(rows: list[list[str]], header: str = "age,fare,town,constant,y") -> str:
    return "\n".join([header, *(",".join(row) for row in rows)])


def test_encoding_is_sklearn_s_pipeline_fitted_on_the_training_rows(tmp_path: Path):
    rows = people(200)
    splits = load(tmp_path / "x.csv", text_of(rows))
    chosen, rest = torch.arange(0, 120), torch.arange(120, 200)
    spec, encode = splits.fit(splits.train.subset(chosen))

    missing = {"", "NA", "?"}
    numbers = np.array([[math.nan if c in missing else float(c) for c in (r[0], r[1], r[3])] for r in rows])
    towns = np.array([["" if r[2] in missing else r[2]] for r in rows], dtype=object)
    oracle = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), [0, 1, 3]),
            ("towns", OneHotEncoder(categories=[["Bern", "Oslo", "Rome"]], handle_unknown="ignore"), [2]),
        ],
        sparse_threshold=0,
    )
    table = np.concatenate([numbers[:, :2], towns, numbers[:, 2:]], axis=1, dtype=object)
    oracle.fit(table[:120])
    order = [0, 1, 3, 4, 5, 2]  # sklearn puts the numbers first; we keep the order of the columns
    for index in (chosen, rest):
        ours = encode(splits.train.subset(index))
        theirs = oracle.transform(table[index.numpy()]).astype(np.float64)[:, order]
        torch.testing.assert_close(ours.inputs.double(), torch.from_numpy(theirs), rtol=1e-6, atol=1e-6)
    assert spec.shape == (6,)
    assert ours.inputs.dtype == torch.float32
    assert ours.targets.tolist() == [["no", "yes"].index(row[4]) for row in rows[120:]]
    assert spec.class_names == ("no", "yes")


def test_nothing_leaks_from_other_rows_into_the_encoding(tmp_path: Path):
    train, chosen = people(100), torch.arange(100)
    encoded = []
    for seed in (1, 2):
        splits = load(tmp_path / "x.csv", text_of(train + people(50, seed)))
        spec, encode = splits.fit(splits.train.subset(chosen))
        encoded.append((spec, encode(splits.train.subset(chosen)).inputs))
    assert encoded[0][0] == encoded[1][0]
    assert torch.equal(encoded[0][1], encoded[1][1])


def test_new_rows_are_encoded_as_the_file_was(tmp_path: Path):
    splits = load(tmp_path / "x.csv", text_of(people(80)))
    spec, encode = splits.fit(splits.train)
    assert torch.equal(encode_rows(read_rows(tmp_path / "x.csv"), spec.columns), encode(splits.train).inputs)


def test_second_file_is_the_test_set_by_column_name(tmp_path: Path):
    (tmp_path / "test.csv").write_text("y,extra,x\nb,!,3\na,!,\n")
    splits = load(tmp_path / "x.csv", "x,y\n1,a\n3,b\n1,a\n3,b\n", test_path=str(tmp_path / "test.csv"))
    _, encode = splits.fit(splits.train)
    assert encode(splits.test).inputs.flatten().tolist() == [1, 0]
    assert splits.test.targets.tolist() == [1, 0]


def test_regression_targets_keep_their_units(tmp_path: Path):
    splits = load(tmp_path / "x.csv", "x,y\n1,10.5\n2,20\n3,1e3\n")
    assert splits.spec.task == Task.REGRESSION
    assert splits.spec.num_outputs == 1
    assert splits.train.targets.tolist() == [[10.5], [20], [1000]]


def test_whole_numbers_are_classes_in_numeric_order_unless_there_are_many(tmp_path: Path):
    few = "x,y\n" + "\n".join(f"{i},{[10, 9, 2][i % 3]}" for i in range(9))
    assert load(tmp_path / "x.csv", few).spec.class_names == ("2", "9", "10")
    assert load(tmp_path / "x.csv", few, task="regression").spec.task == Task.REGRESSION
    many = "x,y\n" + "\n".join(f"{i},{i % 21}" for i in range(42))
    assert load(tmp_path / "x.csv", many).spec.task == Task.REGRESSION
    assert load(tmp_path / "x.csv", many, task="classification").spec.num_outputs == 21


def test_dropped_and_categorical_columns(tmp_path: Path):
    text = "id,deck,x,y\n1,1,5,a\n2,2,6,b\n3,1,7,a\n4,3,8,b\n"
    splits = load(tmp_path / "x.csv", text, drop=["id"], categorical=["deck"])
    spec, encode = splits.fit(splits.train)
    assert [column.name for column in spec.columns] == ["deck", "x"]
    assert encode(splits.train).inputs[:, :3].tolist() == [[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1]]


def test_column_wholly_missing_in_the_training_split_is_constant(tmp_path: Path):
    splits = load(tmp_path / "x.csv", "n,t,y\n,,a\n,,a\n5,u,b\n6,v,b\n")
    spec, encode = splits.fit(splits.train.subset(torch.arange(2)))
    assert encode(splits.train.subset(torch.arange(2))).inputs.tolist() == [[0, 0], [0, 0]]
    assert encode(splits.train).inputs[:, 1].tolist() == [0, 0, 0, 0]
    assert spec.shape == (2,)


@pytest.mark.parametrize("delimiter", ["tab", "\t", "\\t"])
def test_tabs_separate_too(delimiter: str, tmp_path: Path):
    assert len(load(tmp_path / "x.csv", "x\ty\n1\ta\n2\tb\n3\ta\n4\tb\n", delimiter=delimiter).train) == 4


GOOD = "width,y\n1,a\n2,b\n3,a\n4,b\n"


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (None, {}, r"data.path=.*x.csv cannot be read: No such file"),
        ("", {}, r"data.path=.*x.csv is empty"),
        ("width,y\n", {}, r"has a header and no rows"),
        ("width,y\n1,a\n", {}, r"data.path=.*x.csv has one row"),
        ("y\na\nb\n", {}, r"has no column left to predict data.target=y from"),
        (
            GOOD,
            {"target": "widht"},
            r"no column 'widht' \(data.target=widht\); it has width, y. Did you mean 'width'\?",
        ),
        (GOOD, {"drop": ["z"]}, r"no column 'z' \(data.drop names it\); it has width, y"),
        (GOOD, {"categorical": ["wid"]}, r"no column 'wid' \(data.categorical names it\).* Did you mean 'width'\?"),
        (GOOD, {"drop": ["y"]}, r"data.drop must not name the column of data.target=y"),
        (GOOD, {"delimiter": "::"}, r"data.delimiter must be one character or 'tab', got '::'"),
        (
            GOOD,
            {"task": "regression"},
            r"line 2: data.target=y is 'a', not a finite number; .*data.task=classification",
        ),
        (
            "width,y\n1,a\n2,b\nwide,a\n4,b\n",
            {},
            r"x.csv, line 4, column 'width': 'wide' in a column of numbers .*drop=\[width\].*categorical=\[width\]",
        ),
        ("width,y\n1,a\n2,b\n3,a\ninf,b\n", {}, r"line 5, column 'width': 'inf'"),
        ("width,y\n1,a\n2,b\nx,a\ny,b\n", {}, r"line 4, column 'width': 'x' and 1 more cells like it"),
        ("width,y\n,a\nNA,b\n?,a\n,b\n", {}, r"column 'width' has no values; leave it out with data.drop=\[width\]"),
        ("width,y\n1,a\n2,\n3,a\n4,b\n", {}, r"line 3: data.target=y is missing; remove such rows"),
        ("width,y\n1,a\n2,a\n3,a\n4,a\n", {}, r"data.target=y has one class only, 'a'; two are needed"),
        ("width,y\n1,a\n2,b\n3,a\n4,a\n", {}, r"class 'b' of data.target=y has a single example"),
        (
            "name,y\n" + "\n".join(f"name{i},{'ab'[i % 2]}" for i in range(101)),
            {},
            r"column 'name' holds 101 different texts, more than 100; .*data.drop=\[name\].*data.categorical=\[name\]",
        ),
    ],
)
def test_unfit_tables_are_refused(text: str | None, options: dict, message: str, tmp_path: Path):
    with pytest.raises(DataError, match=message):
        load(tmp_path / "x.csv", text, **options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("y,z\na,1\n", r"data.test_path=.*test.csv has no column 'width'"),
        ("width,y\n1,c\n", r"test.csv, line 2: data.target=y is 'c', a class that data.path does not have \(a, b\)"),
        ("width,y\n1,a\nx,b\n", r"test.csv, line 3, column 'width': 'x'"),
    ],
)
def test_unfit_test_files_are_refused(text: str, message: str, tmp_path: Path):
    (tmp_path / "test.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        load(tmp_path / "x.csv", GOOD, test_path=str(tmp_path / "test.csv"))


def test_missing_regression_target_of_the_test_file(tmp_path: Path):
    (tmp_path / "test.csv").write_text("width,y\n1,2.5\n1,NA\n")
    with pytest.raises(DataError, match=r"test.csv, line 3: data.target=y is 'NA', not a number"):
        load(tmp_path / "x.csv", "width,y\n1,0.5\n2,1.5\n", test_path=str(tmp_path / "test.csv"))


def test_table_is_not_for_batches():
    table = Table({"x": np.zeros(3)}, torch.zeros(3))
    assert table.nbytes == 36
    with pytest.raises(TypeError, match="must be encoded"):
        table.take(torch.arange(1))
    with pytest.raises(TypeError, match="must be encoded"):
        table.to(torch.device("cpu"))
