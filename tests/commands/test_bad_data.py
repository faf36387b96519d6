"""Data that are missing, unreadable, damaged or unfit: refused with the file, the key and the way out."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from .conftest import Answer, call

HEADER = "length,width,kind\n"
ROWS = "".join(f"{i}.5,{i % 7},{'ab'[i % 2]}\n" for i in range(20))
MNIST = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)

TABLES = {
    "without the target": (
        HEADER + ROWS,
        ["no column 'species'", "data.target=species", "length, width, kind"],
        "species",
    ),
    "misspelt target": (HEADER + ROWS, ["'kinds'", "Did you mean 'kind'?"], "kinds"),
    "text among numbers": (HEADER + ROWS + "long,3,a\n", ["table.csv", "length", "'long'"], "kind"),
    "text in a number target": (HEADER + ROWS + "3.5,wide,a\n", ["table.csv", "width", "'wide'"], "width"),
    "one row": (HEADER + "1.5,2,a\n", ["table.csv", "one row"], "kind"),
    "no rows": (HEADER, ["table.csv"], "kind"),
    "empty": ("", ["table.csv", "empty"], "kind"),
    "one class": (HEADER + "".join(f"{i},2,a\n" for i in range(9)), ["table.csv", "kind"], "kind"),
    "a ragged row": (HEADER + ROWS + "1.5,2\n", ["table.csv", "line 22"], "kind"),
    "a column twice": ("length,length,kind\n" + ROWS, ["table.csv", "length"], "kind"),
    "no text": ("\x00\xff\xfe", ["table.csv"], "kind"),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_that_cannot_be_learnt_from(name: str, tmp_path: Path, dlrun: Callable[..., Answer]):
    text, needles, target = TABLES[name]
    (tmp_path / "table.csv").write_text(text, encoding="latin-1")
    dlrun("train", "data=csv", "data.path=table.csv", f"data.target={target}").must_refuse(*needles)


@pytest.mark.parametrize(
    ("settings", "needles"),
    [
        (["data.path=nope.csv"], ["data.path=nope.csv", "No such file"]),
        (["data.path=folder"], ["data.path=folder"]),
        (["data.path=table.csv", "data.drop=[size]"], ["data.drop", "'size'", "length, width, kind"]),
        (["data.path=table.csv", "data.drop=[kind]"], ["data.drop", "data.target=kind"]),
        (["data.path=table.csv", "data.drop=[length,width]"], ["no column left", "data.target=kind"]),
        (["data.path=table.csv", "data.delimiter=tabs"], ["data.delimiter", "'tabs'", "one character"]),
        (["data.path=table.csv", "data.delimiter=';'"], ["table.csv", "no column 'kind'"]),
        (["data.path=table.csv", "data.task=classify"], ["data.task", "'classify'", "classification"]),
        (["data.path=table.csv", "data.test_path=nope.csv"], ["data.test_path=nope.csv", "No such file"]),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else None,
)
def test_settings_that_do_not_suit_the_table(
    settings: list[str], needles: list[str], tmp_path: Path, dlrun: Callable[..., Answer]
):
    (tmp_path / "table.csv").write_text(HEADER + ROWS)
    (tmp_path / "folder").mkdir()
    dlrun("train", "data=csv", "data.target=kind", *settings).must_refuse(*needles)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six images in two classes."""
    generator = np.random.default_rng(0)
    for i in range(6):
        folder = tmp_path / "photos" / ("cat", "dog")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(folder / f"{i}.jpg")
    return tmp_path / "photos"


def train_on(photos: Path, dlrun: Callable[..., Answer], *settings: str) -> Answer:
    """Train on a folder of images. The cache belongs to it, so that nothing is written elsewhere."""
    return dlrun("train", "data=image_folder", f"data.path={photos}", "data.size=8", "model=mlp", *settings)


def test_a_broken_jpeg_is_named_and_leaves_no_cache(photos: Path, tmp_path: Path, dlrun: Callable[..., Answer]):
    whole = (photos / "dog" / "1.jpg").read_bytes()
    (photos / "dog" / "1.jpg").write_bytes(whole[: len(whole) // 2])
    cache = tmp_path / "cache"
    answer = train_on(photos, dlrun, f"data.cache={cache}")
    assert not list(cache.glob("*.u8"))
    left = [name for name in answer.changes if not name.startswith("cache")]
    assert not left, left
    Answer(answer.words, answer.code, answer.out, answer.err).must_refuse("dog/1.jpg", "repair or remove it")


def test_a_folder_of_one_class(photos: Path, dlrun: Callable[..., Answer]):
    for file in (photos / "dog").iterdir():
        file.unlink()
    (photos / "dog").rmdir()
    train_on(photos, dlrun).must_refuse("data.path", "'cat'", "two or more")


@pytest.mark.parametrize(
    ("make", "needles"),
    [
        (lambda photos: (photos / "bird").mkdir(), ["data.path", "bird", "no images"]),
        (lambda photos: photos.rename(photos.parent / "moved"), ["data.path", "photos", "does not exist"]),
        (lambda photos: None, ["data.size", "got 0", ">= 1"]),
    ],
    ids=["an empty class", "no folder", "size 0"],
)
def test_a_folder_that_cannot_be_used(
    make: Callable[[Path], None], needles: list[str], photos: Path, dlrun: Callable[..., Answer]
):
    make(photos)
    train_on(photos, dlrun, *(["data.size=0"] if "data.size" in needles else [])).must_refuse(*needles)


@pytest.mark.parametrize("data", ["mnist", "cifar10"])
def test_data_that_are_not_there(data: str, dlrun: Callable[..., Answer]):
    dlrun("train", f"data={data}", "data.root=nowhere").must_refuse(
        f"data={data}", "data.root=", "nowhere", "does not exist", "DLRUN_DATA", "data.download=true"
    )


def test_a_file_in_place_of_the_root(tmp_path: Path, dlrun: Callable[..., Answer]):
    (tmp_path / "root").write_text("not a folder")
    dlrun("train", "data=mnist", "data.root=root").must_refuse("data.root=", "is not a folder")


def test_a_damaged_file_of_mnist(tmp_path: Path, dlrun: Callable[..., Answer]):
    raw = tmp_path / "root" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in MNIST:
        (raw / name).write_bytes(b"\x1f\x8b half of it")
    dlrun("train", "data=mnist", "data.root=root").must_refuse("data.root", MNIST[0], "md5", "incomplete")


def test_a_truncated_archive(tmp_path: Path, dlrun: Callable[..., Answer]):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "cifar-10-python.tar.gz").write_bytes(b"\x1f\x8b half of it")
    dlrun("train", "data=cifar10", "data.root=root").must_refuse("cifar-10-python.tar.gz", "md5", "incomplete")


@contextmanager
def as_nobody() -> Iterator[None]:
    """Without the rights of root, whom no permission binds."""
    if os.getuid() != 0:
        yield
        return
    os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
@pytest.mark.parametrize("depth", ["the root itself", "a folder above it"])
def test_a_root_that_may_not_be_read(depth: str, dlrun: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch):
    words = ("train", "data=mnist", "data.root=vault/root")
    dlrun(*words)  # imports what is needed, which nobody may perhaps not read
    with tempfile.TemporaryDirectory() as home:  # pytest's own folders are closed to others
        folder = Path(home)
        folder.chmod(0o777)
        monkeypatch.chdir(folder)
        (folder / "vault" / "root").mkdir(parents=True)
        closed = folder / "vault" if depth == "a folder above it" else folder / "vault" / "root"
        closed.chmod(0)
        try:
            with as_nobody():
                answer = call(words, folder)
        finally:
            closed.chmod(0o755)
            monkeypatch.undo()
        answer.must_refuse("data.root=", "vault/root", "permission denied")
