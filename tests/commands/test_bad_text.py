"""Texts that are missing, unreadable or unfit: refused with the file, the line, the key and the way out."""

from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Answer

LABELLED = "text,label\n" + "".join(f"some words {i},{'ab'[i % 2]}\n" for i in range(20))
PAIRS = "".join(f"uno {i}\tone {i}\n" for i in range(20))
PROSE = "It was a dark and stormy night. " * 200


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """One good file of each form, and a folder with a class too few."""
    (tmp_path / "t.csv").write_text(LABELLED)
    (tmp_path / "pairs.tsv").write_text(PAIRS)
    (tmp_path / "prose.txt").write_text(PROSE)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "good.txt").write_text("fine\nnice\n")
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "latin.txt").write_bytes("uno\nni\xf1o\n".encode("latin-1"))
    return tmp_path


REFUSED = {
    "classification": [
        ("", ["data.path is missing"]),
        ("path=nope.csv", ["data.path=nope.csv", "does not exist"]),
        ("path=prose.txt", ["data.path=prose.txt", ".csv", "{class: file"]),
        ("path=folder", ["data.path=folder", "1 .txt files", "one per class"]),
        ("path={good: folder/good.txt}", ["one class only, 'good'"]),
        ("path={}", ["data.path has no classes"]),
        ("path={good: folder/good.txt, bad: nope.txt}", ["data.path", "nope.txt", "No such file"]),
        ("path={good: folder/good.txt, bad: empty.txt}", ["empty.txt is empty"]),
        ("path={good: folder/good.txt, bad: latin.txt}", ["latin.txt, line 2", "0xf1", "UTF-8"]),
        ("path=t.csv data.text=texts", ["no column 'texts'", "data.text=texts", "Did you mean 'text'?"]),
        ("path=t.csv data.label=text", ["class", "single text"]),
        ("path=t.csv data.max_length=0", ["data.max_length", ">= 1", "got 0"]),
        ("path=t.csv data.max_vocabulary=2", ["data.max_vocabulary", ">= 3", "got 2"]),
        ("path=t.csv data.min_count=100", ["data.min_count=100", "14 training texts"]),
        ("path=t.csv data.level=words", ["data.level", "'words'", "Did you mean 'word'?"]),
        ("path=t.csv data.reconstruct=true", ["data.reconstruct", "tokens"]),
        ("path=t.csv data.test_path=nope.csv", ["data.test_path=nope.csv", "does not exist"]),
    ],
    "language": [
        ("path=nope.txt", ["data.path=nope.txt", "No such file"]),
        ("path=folder", ["data.path=folder", "Is a directory"]),
        ("path=empty.txt", ["data.path=empty.txt is empty"]),
        ("path=latin.txt", ["data.path=latin.txt, line 2", "0xf1", "iconv"]),
        ("path=prose.txt data.context=4000", ["6,400 tokens", "data.context=4000", "shorter context"]),
        ("path=prose.txt data.context=0", ["data.context", ">= 1", "got 0"]),
        ("path=prose.txt data.stride=0", ["data.stride", ">= 1"]),
        ("path=prose.txt data.val_fraction=0", ["data.val_fraction", "in (0, 1)"]),
        ("path=prose.txt data.folds=3", ["data.folds=3", "validation split"]),
        ("path=prose.txt data.limit=999", ["data.limit", "999"]),
        ("path=prose.txt data.order=bucketed", ["data.order=bucketed", "one length"]),
    ],
    "translation": [
        ("path=nope.tsv", ["data.path=nope.tsv", "No such file"]),
        ("path=latin.txt", ["latin.txt, line 2", "UTF-8"]),
        ("path=prose.txt", ["data.path=prose.txt, line 1", "no tab"]),
        ("path=pairs.tsv data.max_length=1", ["data.max_length=1", "no pair"]),
        ("path=pairs.tsv data.max_length=0", ["data.max_length", ">= 1"]),
        ("path=pairs.tsv data.max_vocabulary=4", ["data.max_vocabulary", ">= 5"]),
        ("path=pairs.tsv data.imbalance=3", ["data.imbalance", "class labels"]),
    ],
    "number_words": [
        ("target=spanish", ["data.source", "data.target", "both spanish"]),
        ("source=french", ["data.source", "'french'", "spanish, english, digits"]),
        ("count=2000 data.maximum=999", ["data.count=2,000", "1,000 numbers"]),
        ("maximum=1000000000000", ["data.maximum", "1000000000000"]),
    ],
    "parity": [("max_length=8 data.min_length=8", ["data.samples", "256 sequences"]), ("max_length=63", ["62"])],
}
CASES = [(data, words, needles) for data, cases in REFUSED.items() for words, needles in cases]


@pytest.mark.parametrize(("data", "words", "needles"), CASES, ids=[f"{data}-{words}" for data, words, _ in CASES])
def test_texts_that_cannot_be_learnt_from(
    data: str, words: str, needles: list[str], here: Path, dlrun: Callable[..., Answer]
):
    name = "text_classification" if data == "classification" else data
    settings = [f"data.{words}"] if words.startswith("path={") else f"data.{words}".split() if words else []
    dlrun("train", f"data={name}", "model=transformer", *settings).must_refuse(*needles)


@pytest.mark.parametrize(
    ("data", "needles"),
    [
        ("rt_polarity", ["rt-polarity.neg", "cornell.edu", "DLRUN_DATA"]),
        ("tinyshakespeare", ["tinyshakespeare.txt", "char-rnn", "DLRUN_DATA"]),
    ],
)
def test_texts_that_are_not_there(data: str, needles: list[str], dlrun: Callable[..., Answer]):
    dlrun("train", f"data={data}", "data.root=nowhere").must_refuse(f"data={data} is not there", "nowhere", *needles)


def test_a_tab_is_missed_by_its_line(here: Path, dlrun: Callable[..., Answer]):
    (here / "pairs.tsv").write_text(PAIRS + "dos two\n")
    dlrun("train", "data=translation", "data.path=pairs.tsv").must_refuse("pairs.tsv, line 21", "no tab")
