"""Classification of texts: what is read, what the training split teaches, and that nothing else does."""

import os
from collections import Counter
from pathlib import Path

import pytest
import torch

from dlrun import splitting
from dlrun.contracts import PAD, PAD_ID, UNK, UNK_ID, Kind, Task
from dlrun.data.text import rt_polarity, text_classification
from dlrun.data.tokens import Tokens
from dlrun.errors import ConfigError, DataError
from dlrun.text import decode, encoder

TOKENS = {"level": "word", "lower": True, "max_vocabulary": None, "min_count": 1, "max_length": None}
TABLE = {"text": "text", "label": "label", "delimiter": None, "test_path": None}


def load(path, **options):
    return text_classification(path=path if isinstance(path, dict) else str(path), **TABLE | TOKENS | options)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Forty cheerful and twenty gloomy sentences of one to nine words."""
    made = {}
    for name, words, count in (("up", "glad happy sunny", 40), ("down", "sad dull grey", 20)):
        lines = [" ".join((words.split() * 3)[: 1 + i % 9]) + f" {name}{i}" for i in range(count)]
        (tmp_path / f"{name}.txt").write_text("\n\n".join(lines) + "\n")
        made[name] = str(tmp_path / f"{name}.txt")
    return made


def test_a_file_per_class_a_folder_and_a_table_are_the_same_texts(files: dict[str, str], tmp_path: Path):
    mapped = load(files)
    assert mapped.spec.class_names == ("up", "down")
    assert mapped.train.targets.tolist() == [0] * 40 + [1] * 20
    folder = load(tmp_path)
    assert folder.spec.class_names == ("down", "up")
    assert folder.train.texts == mapped.train.texts[40:] + mapped.train.texts[:40]
    rows = [
        f'"{" ".join(text)}",{"yn"[label]}'
        for text, label in zip(folder.train.texts, folder.train.targets.tolist(), strict=True)
    ]
    (tmp_path / "t.csv").write_text("\n".join(["review,good", *rows]))
    table = load(tmp_path / "t.csv", text="review", label="good")
    assert table.train.texts == folder.train.texts
    assert table.spec.class_names == ("n", "y")
    (tmp_path / "t.tsv").write_text(
        (tmp_path / "t.csv").read_text().replace('",', "\t").replace('"', "").replace(",", "\t")
    )
    assert load(tmp_path / "t.tsv", text="review", label="good").train.texts == folder.train.texts


def test_numbered_classes_are_in_numeric_order(tmp_path: Path):
    (tmp_path / "t.csv").write_text("text,label\n" + "".join(f"word,{i % 3 + 9}\n" for i in range(9)))
    assert load(tmp_path / "t.csv").spec.class_names == ("9", "10", "11")


def test_examples_are_their_texts_in_numbers(files: dict[str, str]):
    splits = load(files)
    spec, encode = splits.fit(splits.train)
    assert (spec.task, spec.kind, spec.num_outputs) == (Task.CLASSIFICATION, Kind.TOKENS, 2)
    assert (spec.shape, spec.padding) == ((10,), PAD_ID)
    assert spec.vocabulary_size == len(spec.vocabulary) == 2 + 6 + 60
    examples = encode(splits.train)
    number = encoder(spec.vocabulary)
    for inputs, length, text in zip(examples.inputs, examples.lengths.tolist(), splits.train.texts, strict=True):
        assert inputs.tolist() == number(" ".join(text)) + [PAD_ID] * (10 - length)
        assert decode(inputs.tolist(), spec.vocabulary) == " ".join(text)


def test_vocabulary_knows_the_training_texts_only(files: dict[str, str]):
    seen = []
    for rest in ("unheard of", "never before"):
        splits = load(files)
        for i in range(30, 60):
            splits.train.texts[i] = rest.split()
        chosen = torch.arange(30)
        spec, encode = splits.fit(splits.train.subset(chosen))
        seen.append((spec, encode(splits.train.subset(chosen)).inputs))
        assert encode(splits.train.subset(torch.tensor([45]))).inputs.flatten().tolist() == [UNK_ID] * 2 + [0] * 8
    assert seen[0][0] == seen[1][0]
    assert torch.equal(seen[0][1], seen[1][1])


def test_rare_and_late_tokens_are_cut(files: dict[str, str]):
    splits = load(files, min_count=2, max_vocabulary=5, max_length=4)
    spec, encode = splits.fit(splits.train)
    assert spec.vocabulary.tokens == (PAD, UNK, "glad", "happy", "sunny")
    assert spec.shape == (4,)
    examples = encode(splits.train)
    assert examples.inputs[5].tolist() == [2, 3, 4, 2]
    assert examples.inputs[0].tolist() == [2, UNK_ID, 0, 0]
    assert examples.lengths.tolist() == [min(4, len(text)) for text in splits.train.texts]
    assert splits.fit(splits.train.subset(torch.tensor([0, 9])))[0].shape == (2,)


def test_characters_and_capitals(tmp_path: Path):
    (tmp_path / "t.csv").write_text("text,label\nAa,x\naB,x\nb,y\nba,y\n")
    splits = load(tmp_path / "t.csv", level="char", lower=False)
    spec, encode = splits.fit(splits.train)
    assert spec.vocabulary.tokens == (PAD, UNK, "a", "b", "A", "B") or set(spec.vocabulary.tokens[2:]) == set("abAB")
    assert decode(encode(splits.train).inputs[1].tolist(), spec.vocabulary) == "aB"
    assert set(load(tmp_path / "t.csv", level="char").fit(splits.train)[0].vocabulary.tokens[2:]) <= set("abAB")


def test_common_settings_reach_texts(files: dict[str, str]):
    def counts(part) -> list[int]:
        return [int((part.targets == label).sum()) for label in (0, 1)]

    splits = splitting.complete(load(files), val_fraction=0.25, test_fraction=0.1)
    assert [counts(part) for part in (splits.train, splits.val, splits.test)] == [[27, 13], [9, 5], [4, 2]]
    assert counts(splitting.complete(load(files), limit=12).train) == [8, 4]
    assert counts(splitting.complete(load(files), imbalance={"down": 0.5}).train)[1] == 7
    assert len(splitting.complete(load(files), bootstrap=1).train) == 43
    assert len(splitting.complete(load(files), folds=4).val) == 12
    assert splitting.fingerprint(splits) != splitting.fingerprint(splitting.complete(load(files), split_seed=1))
    with pytest.raises(ConfigError, match="tokens"):
        splitting.complete(load(files), reconstruct=True)


def test_a_test_set_of_its_own(files: dict[str, str], tmp_path: Path):
    (tmp_path / "test.csv").write_text("text,label\nglad new,up\nsad,down\n")
    splits = load(files, test_path=str(tmp_path / "test.csv"))
    spec, encode = splits.fit(splits.train)
    test = encode(splits.test)
    assert test.targets.tolist() == [0, 1]
    assert decode(test.inputs[0].tolist(), spec.vocabulary) == f"glad {UNK}"
    (tmp_path / "test.csv").write_text("text,label\nglad new,upp\n")
    with pytest.raises(DataError, match=r"data.test_path has the class 'upp', .* \(up, down\). Did you mean 'up'\?"):
        load(files, test_path=str(tmp_path / "test.csv"))


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("t.csv", None, {}, r"data.path=.*t.csv does not exist; give a table .*folder.*\{class: file"),
        ("t.doc", "text", {}, r"t.doc is neither a folder nor a table \(.csv, .tsv\); .*'data.path=\{class: file"),
        ("t.csv", "texts,label\na,b\n", {}, r"no column 'text' \(data.text=text\); it has texts, label. Did you mean"),
        ("t.csv", "text,class\na,b\n", {}, r"no column 'label' \(data.label=label\); it has text, class"),
        ("t.csv", "text,label\na,b\n ,b\n", {}, r"t.csv, line 3: data.text=text is missing; remove such rows"),
        ("t.csv", "text,label\na,\n", {}, r"t.csv, line 2: data.label=label is missing"),
        ("t.csv", "text,label\na,b\nc,b\n", {}, r"data.path has one class only, 'b'; two or more are needed"),
        ("t.csv", "text,label\na,b\nc,b\nd,e\n", {}, r"data.path: class 'e' has a single text"),
        ("t.csv", "text,label\na,b\n", {"delimiter": "::"}, r"data.delimiter must be one character or 'tab'"),
        ("a.txt", "one file", {}, r"holds 1 .txt files; two or more are needed, one per class"),
        ("t.csv", "text,label\n\x00\udcff,b\n", {}, r"is not a CSV file in UTF-8"),
    ],
)
def test_unfit_texts_are_refused(name: str, content: str | None, options: dict, message: str, tmp_path: Path):
    if content is not None:
        (tmp_path / name).write_text(content, errors="surrogateescape")
    with pytest.raises(DataError, match=message):
        load(tmp_path if name == "a.txt" else tmp_path / name, **options)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"data.path: .*up.txt cannot be read: No such file"),
        (b"fine\n\xf1o", r"data.path: .*up.txt, line 2: byte 0xf1 is not UTF-8"),
        (b"\n \n", r"data.path: .*up.txt is empty"),
    ],
)
def test_unfit_files_of_a_class_are_refused(content: bytes | None, message: str, files: dict[str, str]):
    Path(files["up"]).unlink()
    if content is not None:
        Path(files["up"]).write_bytes(content)
    with pytest.raises(DataError, match=message):
        load(files)


def test_a_vocabulary_of_nothing_is_refused(files: dict[str, str]):
    splits = load(files, min_count=1000)
    with pytest.raises(DataError, match=r"no token of the 60 training texts occurs data.min_count=1000 times"):
        splits.fit(splits.train)


def test_tokens_are_not_for_batches():
    tokens = Tokens([["a"]], torch.zeros(1))
    for use in (lambda: tokens.take(torch.arange(1)), tokens.tensors, lambda: tokens.to(torch.device("cpu"))):
        with pytest.raises(TypeError, match=r"numbered by Splits.fit"):
            use()


def test_absent_reviews_say_where_they_are(tmp_path: Path):
    with pytest.raises(DataError, match=r"data=rt_polarity is not there: .*rt-polarity.neg .*cornell.edu.*DLRUN_DATA"):
        rt_polarity(root=str(tmp_path), **TOKENS)
    (tmp_path / "rt-polarity").mkdir()
    (tmp_path / "rt-polarity" / "rt-polarity.neg").write_text("dull\n")
    with pytest.raises(DataError, match="has 1 sentences, but the published file has 5,331; copy it again"):
        rt_polarity(root=str(tmp_path), **TOKENS)


@pytest.fixture(scope="module")
def reviews() -> Path:
    root = Path(os.environ.get("DLRUN_DATA", "nowhere"))
    if not (root / "rt-polarity" / "rt-polarity.pos").is_file():
        pytest.skip("DLRUN_DATA does not name a folder with rt-polarity/")
    return root


def test_reviews_are_balanced_and_known(reviews: Path):
    splits = splitting.complete(rt_polarity(root=str(reviews), **TOKENS | {"min_count": 2}))
    assert splits.spec.class_names == ("negative", "positive")
    parts = (splits.train, splits.val, splits.test)
    assert [len(part) for part in parts] == [7677, 853, 2132]
    for part in parts:
        counts = Counter(part.targets.tolist())
        assert abs(counts[0] - counts[1]) <= 2
    assert min(int(part.lengths.min()) for part in parts) == 1
    unknown = [float((part.inputs == UNK_ID).sum() / part.lengths.sum()) for part in parts]
    assert 0.03 < unknown[0] < 0.05 < unknown[2] < 0.1  # rare words are learnt as unknown, and new ones are few


def test_reviews_are_read_as_they_were_published_too(reviews: Path, tmp_path: Path):
    (tmp_path / "rt-polarity").mkdir()
    for name in ("rt-polarity.neg", "rt-polarity.pos"):
        text = (reviews / "rt-polarity" / name).read_text(encoding="utf-8")
        (tmp_path / "rt-polarity" / name).write_bytes(text.encode("cp1252"))
    here, there = (rt_polarity(root=str(root), **TOKENS).train for root in (reviews, tmp_path))
    assert here.texts == there.texts


def test_classes_of_equal_number_have_an_order_too(tmp_path: Path):
    names = [f"{'0' * zeros}1" for zeros in range(6)]
    for name in [*names, "0"]:
        (tmp_path / f"{name}.txt").write_text("a text\nanother text\n")
    assert load(tmp_path).spec.class_names == ("0", *sorted(names))
