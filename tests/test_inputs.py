from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_iris
from torchvision.transforms import CenterCrop, Compose, Resize

from dlrun.contracts import Column, DataSpec, Kind, Task
from dlrun.errors import DataError
from dlrun.inputs import (
    decode_image,
    encode_column,
    encode_rows,
    encode_window,
    parse_numbers,
    read_image,
    read_rows,
    read_table,
)
from dlrun.new_inputs import read_inputs

RNG = np.random.default_rng(0)


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    coarse = RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def image_spec(*shape: int) -> DataSpec:
    return DataSpec("pictures", Task.CLASSIFICATION, Kind.IMAGE, shape, 2)


@pytest.mark.parametrize(("width", "height"), [(64, 48), (48, 64), (37, 91), (100, 33), (24, 24), (20, 13), (24, 25)])
def test_resizing_is_torchvision_s_resize_and_center_crop(width: int, height: int, tmp_path: Path):
    image = picture(width, height)
    image.save(tmp_path / "x.png")
    theirs = Compose([Resize(24), CenterCrop(24)])(image)
    ours = read_image(tmp_path / "x.png", image_spec(3, 24, 24))
    assert torch.equal(ours, torch.from_numpy(np.array(theirs)).permute(2, 0, 1))


def test_inputs_need_not_be_square(tmp_path: Path):
    halves = np.zeros((40, 40), dtype=np.uint8)
    halves[:, 20:] = 200
    Image.fromarray(halves).save(tmp_path / "x.png")
    image = decode_image(tmp_path / "x.png", 1, 10, 20)
    assert image.shape == (1, 10, 20)
    assert (image[:, :, :8] == 0).all()
    assert (image[:, :, 12:] == 200).all()


def test_image_of_the_right_size_is_not_resampled(tmp_path: Path):
    image = picture(32, 32)
    image.save(tmp_path / "x.jpg")
    with Image.open(tmp_path / "x.jpg") as decoded:
        expected = np.asarray(decoded)
    assert (decode_image(tmp_path / "x.jpg", 3, 32, 32) == expected.transpose(2, 0, 1)).all()
    assert (decode_image(tmp_path / "x.jpg", 1, 32, 32)[0] == np.asarray(Image.fromarray(expected).convert("L"))).all()


def test_jpeg_decoded_at_a_fraction_looks_like_the_whole(tmp_path: Path):
    picture(400, 300).save(tmp_path / "x.jpg", quality=95)
    with Image.open(tmp_path / "x.jpg") as image:
        whole = Compose([Resize(32), CenterCrop(32)])(image.convert("RGB"))
    difference = decode_image(tmp_path / "x.jpg", 3, 32, 32).transpose(1, 2, 0).astype(int) - np.asarray(whole)
    assert np.abs(difference).mean() < 1.5  # of 255


def test_sixteen_bit_grey_keeps_its_range(tmp_path: Path):
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    Image.fromarray(ramp).save(tmp_path / "x.png")
    assert (decode_image(tmp_path / "x.png", 1, 16, 16)[0] == ramp >> 8).all()


def test_palette_with_transparency_gives_its_colours(tmp_path: Path):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 250, 120, 10])
    image.save(tmp_path / "x.png", transparency=b"\x00\xff")
    assert (decode_image(tmp_path / "x.png", 3, 4, 4) == np.array([250, 120, 10])[:, None, None]).all()


@pytest.mark.parametrize("damage", ["truncated", "text", "empty", "absent"])
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_broken_images_are_named(damage: str, suffix: str, tmp_path: Path):
    path = tmp_path / f"x.{suffix}"
    if damage != "absent":
        picture(64, 64).save(path)
        whole = path.read_bytes()
        path.write_bytes({"truncated": whole[: len(whole) // 2], "text": b"not an image", "empty": b""}[damage])
    with pytest.raises(DataError, match=rf"the image .*x.{suffix} cannot be read \(.+\); repair or remove it"):
        decode_image(path, 3, 64, 64)


def test_read_image_refuses_data_that_are_not_images(tmp_path: Path):
    spec = DataSpec("moons", Task.CLASSIFICATION, Kind.VECTOR, (2,), 2)
    with pytest.raises(DataError, match=r"x.png: data=moons has vectors of shape \(2,\)"):
        read_image(tmp_path / "x.png", spec)


def test_rows_are_dictionaries_by_column(tmp_path: Path):
    path = tmp_path / "x.csv"
    path.write_bytes('\ufeffa, b\n1 ,"x, y"\n\n2,\n'.encode())
    assert read_rows(path)[1] == {"a": "2", "b": ""}
    table = read_table(path)
    assert table.lines == [2, 4]
    assert table.column("a") == ["1", "2"]


def test_quoted_cells_may_hold_the_delimiter_and_line_ends(tmp_path: Path):
    path = tmp_path / "x.csv"
    path.write_text('a;b\n"1;\n2";3\n4;5\n')
    table = read_table(path, ";")
    assert table.cells == [["1;\n2", "3"], ["4", "5"]]
    assert table.lines == [3, 4]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "x.csv is empty; its first line must name the columns"),
        (b"\n\n", "x.csv is empty"),
        (b"a,b\n", "x.csv has a header and no rows"),
        (b"a,b\n1,2\n1,2,3\n", "x.csv, line 3: 3 cells, but the header names 2 columns.*delimiter, which is ','"),
        (b"a,a\n1,2\n", "x.csv has two columns named 'a'"),
        (b"a,b\n\xff\xfe,2\n", r"x.csv is not a CSV file in UTF-8 \("),
        (b'a,b\n"' + b"x" * 200_000 + b'",1\n', r"x.csv is not a CSV file in UTF-8 \(field larger"),
    ],
)
def test_unfit_files_are_refused(content: bytes, message: str, tmp_path: Path):
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / "x.csv")


def test_missing_files_are_named_by_their_label(tmp_path: Path):
    with pytest.raises(DataError, match=r"^data.path=x cannot be read: No such file or directory"):
        read_table(tmp_path / "none.csv", label="data.path=x")
    with pytest.raises(DataError, match=r"Is a directory"):
        read_table(tmp_path)


def test_numbers_missing_values_and_the_rest():
    numbers, wrong = parse_numbers(["1", "-2.5e3", "", "NA", "NaN", "?", "null", "n/a", "x", "inf", "1,5"])
    assert numbers[:2].tolist() == [1, -2500]
    assert np.isnan(numbers[2:]).all()
    assert wrong == [8, 9, 10]


def test_categories_unseen_or_missing_are_all_zeros():
    column = Column("c", categories=("a", "b"))
    values = np.array(["b", "a", "z", ""], dtype=object)
    assert encode_column(values, column).tolist() == [[0, 1], [1, 0], [0, 0], [0, 0]]
    assert encode_column(values, Column("c", categories=("",))).tolist() == [[0], [0], [0], [0]]


def test_rows_are_encoded_as_the_columns_say():
    columns = [Column("x", mean=2, std=4, fill=10), Column("c", categories=("a", "b"))]
    rows = [{"x": "6", "c": "b", "other": "!"}, {"x": " ? ", "c": "NA", "other": ""}]
    encoded = encode_rows(rows, columns)
    assert encoded.dtype == torch.float32
    assert encoded.tolist() == [[1, 0, 1], [2, 0, 0]]


def test_large_numbers_are_standardised_before_they_are_rounded():
    column = Column("time", mean=1.7e9, std=1.0)
    assert encode_rows([{"time": "1700000000.25"}], [column]).item() == 0.25


def test_columns_without_statistics_leave_values_as_they_are():
    iris = load_iris()
    columns = [Column(name) for name in iris.feature_names]
    rows = [dict(zip(iris.feature_names, map(str, row), strict=True)) for row in iris.data]
    assert torch.equal(encode_rows(rows, columns), torch.tensor(iris.data, dtype=torch.float32))


def test_rows_that_cannot_be_encoded_name_row_and_column():
    columns = [Column("width"), Column("c", categories=("a",))]
    with pytest.raises(DataError, match=r"row 2 has no column 'width', which the model reads. Did you mean 'widht'\?"):
        encode_rows([{"width": "1", "c": "a"}, {"widht": "1", "c": "a"}], columns)
    with pytest.raises(DataError, match=r"row 1, column 'width': 'wide' is not a finite number"):
        encode_rows([{"width": "wide", "c": "a"}], columns)


SERIES = DataSpec(
    "sales",
    Task.FORECASTING,
    Kind.SEQUENCE,
    (3, 2),
    4,
    columns=(Column("price", mean=2.0, std=0.5), Column("sold", mean=100.0, std=7.0)),
    horizon=4,
    target_columns=(1,),
)


def test_a_window_is_the_last_rows_by_column_name_in_the_scale_of_training(tmp_path: Path):
    path = tmp_path / "new.csv"
    path.write_text("sold,day,price\nclosed,mon,\n90,tue,2\n100,wed,2.5\n114,thu,1\n")
    window = encode_window(path, SERIES)
    expected = torch.tensor([[[0.0, -10 / 7], [1.0, 0.0], [-2.0, 2.0]]])
    torch.testing.assert_close(window, expected)  # a fault before the window does not matter


def test_a_gap_in_a_window_is_filled_from_before_it_if_wanted(tmp_path: Path):
    path = tmp_path / "new.csv"
    path.write_text("sold;price\n93;1\nNA;2\n100;\n;3\n")
    window = encode_window(path, SERIES, fill_forward=True, delimiter=";")
    torch.testing.assert_close(window, torch.tensor([[[0.0, -1.0], [0.0, 0.0], [2.0, 0.0]]]))
    with pytest.raises(DataError, match=r"new.csv, line 4, column 'price': the value is missing; .*fill it in$"):
        encode_window(path, SERIES, delimiter=";")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sold,prise\n1,1\n1,1\n1,1\n", r"new.csv has no column 'price', which the model reads. Did you mean 'prise'"),
        ("sold,price\n1,1\n1,1\n", r"new.csv has 2 rows, but the model forecasts from the last 3 \(data.context=3\)"),
        ("sold,price\n1,1\n1,cheap\n1,1\n", r"new.csv, line 3, column 'price': 'cheap' is not a finite number"),
    ],
)
def test_rows_that_a_forecast_cannot_be_made_from(text: str, message: str, tmp_path: Path):
    (tmp_path / "new.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        encode_window(tmp_path / "new.csv", SERIES)


def test_only_series_have_windows(tmp_path: Path):
    with pytest.raises(DataError, match=r"data=pictures has images of shape \(3, 8, 8\), not rows of a series"):
        encode_window(tmp_path / "new.csv", image_spec(3, 8, 8))


@pytest.mark.parametrize(("setting", "delimiter"), [(",", ","), (";", ";"), ("tab", "\t")])
def test_new_rows_have_the_delimiter_of_the_table_trained_on(tmp_path: Path, setting: str, delimiter: str):
    (tmp_path / "new.csv").write_text(f"a{delimiter}b\n1{delimiter}2\n")
    spec = DataSpec("rows", Task.CLASSIFICATION, Kind.VECTOR, (2,), 2, columns=(Column("b"), Column("a")))
    _, inputs = read_inputs([str(tmp_path / "new.csv")], spec, {"delimiter": setting})
    assert inputs.tolist() == [[2.0, 1.0]]
