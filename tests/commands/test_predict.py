"""`dlrun predict` on runs of every task, trained for a moment."""

import csv
import io
import math
from pathlib import Path

import pytest
import torch

import dlrun

from .conftest import Answer, call

QUICK = ("trainer.max_steps=3", "trainer.device=cpu")
SENTENCE = "to be or not to be, that is the question. "
RUNS = {
    "text": ["data=text_classification", "data.path={good: good.txt, bad: bad.txt}", "model=gru", "model.hidden=8"],
    "language": [
        "data=language",
        "data.path=novel.txt",
        "data.context=8",
        "model=gpt",
        "model.width=8",
        "model.depth=1",
    ],
    "words": [
        "data=language",
        "data.path=novel.txt",
        "data.level=word",
        "data.context=8",
        "model=gru",
        "model.hidden=8",
    ],
    "pairs": ["data=number_words", "data.count=200", "data.maximum=9999", "model=seq2seq", "model.hidden=8"],
    "series": ["data=series", "data.path=sales.csv", "data.context=6", "data.horizon=3", "model=nlinear"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with texts, a series and a run of each task."""
    folder = tmp_path_factory.mktemp("predict")
    (folder / "good.txt").write_text("a fine film\na good film\nfine and good\n" * 9)
    (folder / "bad.txt").write_text("a bad film\nbad and worse\nworse than bad\n" * 9)
    (folder / "novel.txt").write_text(SENTENCE * 40)
    rows = [f"2020-{i},{50 + 10 * math.sin(i):.3f},{1000 + i}\n" for i in range(120)]
    (folder / "sales.csv").write_text("day,sales,stock\n" + "".join(rows))
    for name, words in RUNS.items():
        answer = call(["train", *words, *QUICK, f"hydra.run.dir={name}"], folder)
        assert answer.code == 0, answer
    return folder


def rows(answer: Answer) -> list[dict[str, str]]:
    assert answer.code == 0, answer
    return list(csv.DictReader(io.StringIO(answer.out)))


def test_texts_are_classified(folder: Path, monkeypatch: pytest.MonkeyPatch):
    (folder / "more.txt").write_text("a film\n\nworse\n")
    found = rows(call(["predict", "text", "a fine film", "more.txt", "what a surprise"], folder))
    assert [row["input"] for row in found] == ["a fine film", "a film", "worse", "what a surprise"]
    assert all(row["class"] in ("good", "bad") and 0.5 <= float(row["probability"]) <= 1 for row in found)
    # The same in company of longer texts, which are padding for it, and from Python.
    (alone,) = rows(call(["predict", "text", "worse"], folder))
    assert alone == found[2]
    monkeypatch.chdir(folder)
    p = dlrun.load("text").predict(["a fine film", "worse"])
    assert p.shape == (2, 2)
    assert p.max(1) == pytest.approx([float(found[0]["probability"]), float(found[2]["probability"])], abs=1e-4)


def test_all_probabilities_go_into_a_file(folder: Path):
    answer = call(["predict", "text", "a fine film", "output=p.csv"], folder)
    assert answer.out == "1 predictions in p.csv\n"
    (row,) = csv.DictReader(io.StringIO((folder / "p.csv").read_text()))
    assert float(row["good"]) + float(row["bad"]) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", ["language", "words"])
def test_a_text_goes_on(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    words = ["predict", name, "to be", "tokens=30", "temperature=0.8", "top_k=3", "seed=1"]
    answer = call(words, folder)
    assert answer.code == 0, answer
    assert answer.out.startswith("to be")
    assert set(answer.out) <= set(SENTENCE + "\n")
    assert answer.out == call(words, folder).out
    assert answer.out != call([*words[:-1], "seed=2"], folder).out
    if name == "language":
        assert len(answer.out) == 5 + 30 + 1
    monkeypatch.chdir(folder)
    assert dlrun.load(name).generate("to be", 30, temperature=0.8, top_k=3, seed=1) + "\n" == answer.out


def test_prompts_from_files_and_into_them(folder: Path):
    (folder / "prompt.txt").write_text("to be or")
    answer = call(["predict", "language", "prompt.txt", "not", "tokens=4", "output=said.txt"], folder)
    assert answer.out == "2 texts in said.txt\n"
    first, empty, second = (folder / "said.txt").read_text().splitlines()
    assert (first[:8], empty, second[:3], len(first), len(second)) == ("to be or", "", "not", 12, 7)


def test_the_greedy_text_is_the_likeliest_token_again_and_again(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder)
    run = dlrun.load("words")
    vocabulary = torch.load("words/checkpoints/best.pt", weights_only=True)["spec"]["vocabulary"]["tokens"]
    numbers = [vocabulary.index("to")]
    with torch.no_grad():
        for _ in range(5):
            logits = run.model(torch.tensor([numbers]))[0, -1]
            special = [i for i, token in enumerate(vocabulary) if token.startswith("<") and token != "<eos>"]
            logits[special] = -math.inf
            numbers.append(int(logits.argmax()))
    said = run.generate("to", 5, temperature=0)
    assert said.replace(",", " ,").replace(".", " .").split() == [vocabulary[number] for number in numbers]


def test_numbers_are_translated(folder: Path, monkeypatch: pytest.MonkeyPatch):
    (folder / "numbers.txt").write_text("dos\nmil\n")
    answer = call(["predict", "pairs", "dos mil quinientos", "numbers.txt"], folder)
    assert answer.code == 0, answer
    lines = answer.out.split("\n")
    assert len(lines) == 4
    assert set(answer.out) <= set("0123456789\n")
    monkeypatch.chdir(folder)
    assert dlrun.load("pairs").predict(["dos mil quinientos", "dos", "mil"]) == lines[:3]


def test_a_translations_attention_is_drawn(folder: Path):
    answer = call(["predict", "pairs", "dos mil quinientos", "attention=heat.png"], folder)
    assert answer.code == 0, answer
    assert (folder / "heat.png").read_bytes().startswith(b"\x89PNG")


def test_evaluating_a_translation_says_bleu_or_how_to_get_it(folder: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("sacrebleu")
    assert "test/bleu" in call(["evaluate", "pairs"], folder).out
    monkeypatch.setattr("dlrun.evaluation.find_spec", lambda name: None)
    without = call(["evaluate", "pairs"], folder).out
    assert "test/bleu" not in without
    assert "pip install 'dlrun[bleu]'" in without


def test_a_series_goes_on_in_its_own_units(folder: Path, monkeypatch: pytest.MonkeyPatch):
    found = rows(call(["predict", "series", "sales.csv"], folder))
    assert [(row["input"], row["step"]) for row in found] == [
        ("sales.csv", "1"),
        ("sales.csv", "2"),
        ("sales.csv", "3"),
    ]
    assert list(found[0]) == ["input", "step", "sales", "stock"]
    # nlinear adds to the last value; three steps of training do not take it far from there.
    assert all(abs(float(row["stock"]) - 1119) < 60 and 0 < float(row["sales"]) < 100 for row in found)
    monkeypatch.chdir(folder)
    values = dlrun.load("series").predict("sales.csv")
    assert values.shape == (1, 6)
    assert values[0] == pytest.approx([float(row[name]) for row in found for name in ("sales", "stock")], rel=1e-4)


@pytest.mark.parametrize(
    ("words", "needles"),
    [
        (["text", "missing.txt"], ["missing.txt", "no such file"]),
        (["text", ""], ["holds no word"]),
        (["text", "fine", "tokens=3"], ["tokens=3", "language modelling"]),
        (["language", "to be", "tokens=0"], ["tokens", ">= 1", "'0'"]),
        (["language", "to be", "top_k=0"], ["top_k", ">= 1", "'0'"]),
        (["language", "to be", "temperature=inf"], ["temperature", ">= 0", "'inf'"]),
        (["language", "to be", "seed=x"], ["seed", "'x'"]),
        (["language", "to be ñ"], ["character", "'ñ'"]),
        (["language", ""], ["text to go on from"]),
        (["language", "to be", "output=nowhere/said.txt"], ["output=nowhere/said.txt", "no folder"]),
        (["pairs", " ".join(["mil"] * 99)], ["99 words", "the model reads"]),
        (["pairs", ""], ["is empty"]),
        (["pairs", "dos", "mil", "attention=heat.png"], ["attention=heat.png", "one text", "2"]),
        (["pairs", "dos", "temperature=1"], ["temperature=1", "language modelling", "sequence to sequence"]),
        (["series", "short.csv"], ["short.csv", "6"]),
        (["series", "nope.csv"], ["nope.csv", "no such file"]),
    ],
    ids=" ".join,
)
def test_what_cannot_be_is_refused(folder: Path, words: list[str], needles: list[str]):
    (folder / "short.csv").write_text("day,sales,stock\n1,2,3\n")
    call(["predict", *words], folder).must_refuse(*needles)
