"""Language modelling: which tokens are trained on, which held out, and how each is met."""

import math
import os
from pathlib import Path

import pytest
import torch

from dlrun import splitting
from dlrun.contracts import PAD, UNK, UNK_ID, Kind, Splits, Task
from dlrun.data.language import language, random_tokens, tinyshakespeare
from dlrun.errors import ConfigError, DataError
from dlrun.text import decode

OPTIONS = {"level": "char", "lower": False, "max_vocabulary": None, "min_count": 1, "stride": None}


def load(path: Path, text: str | None = None, **options) -> Splits:
    if text is not None:
        path.write_text(text)
    return language(path=str(path), **OPTIONS | {"context": 5, "val_fraction": 0.125, "test_fraction": 0.125} | options)


def read(part) -> str:
    """Each token that a part predicts, in order; characters are their own numbers."""
    batch = part.take(torch.arange(len(part)))
    return batch.targets.flatten().tolist()


LETTERS = "".join(chr(ord("a") + i * i % 26) for i in range(200))


def test_windows_of_an_epoch_read_the_beginning_once_in_order(tmp_path: Path):
    splits = load(tmp_path / "x.txt", LETTERS)
    spec = splits.spec
    assert (spec.task, spec.kind, spec.shape) == (Task.LANGUAGE_MODELLING, Kind.TOKENS, (5,))
    assert spec.vocabulary_size == spec.num_outputs == len(set(LETTERS[:150])) == len(spec.vocabulary)
    assert spec.padding is None
    assert decode(read(splits.train), spec.vocabulary) == LETTERS[1:146]
    assert len(splits.train) == 29
    batch = splits.train.take(torch.tensor([2]))
    assert decode(batch.inputs[0].tolist(), spec.vocabulary) == LETTERS[10:15]


def test_held_out_windows_go_by_turns_to_validation_and_test(tmp_path: Path):
    splits = load(tmp_path / "x.txt", LETTERS)
    held = LETTERS[150:]
    assert decode(read(splits.val), splits.spec.vocabulary) == "".join(held[i + 1 : i + 6] for i in (0, 10, 20, 30, 40))
    assert decode(read(splits.test), splits.spec.vocabulary) == "".join(held[i + 1 : i + 6] for i in (5, 15, 25, 35))


def test_shared_windows_are_validation_and_test_both(tmp_path: Path):
    turns, shared = load(tmp_path / "x.txt", LETTERS), load(tmp_path / "x.txt", held_out="shared")
    assert shared.train.starts.tolist() == turns.train.starts.tolist()
    held = sorted([*turns.val.starts.tolist(), *turns.test.starts.tolist()])
    assert shared.val.starts.tolist() == shared.test.starts.tolist() == held
    assert decode(read(shared.val), shared.spec.vocabulary) == LETTERS[151:196]


def test_unequal_fractions_share_the_held_out_windows_evenly(tmp_path: Path):
    splits = load(tmp_path / "x.txt", LETTERS * 4, val_fraction=0.1, test_fraction=0.3)
    assert (len(splits.val), len(splits.test)) == (16, 47)
    assert splits.val.starts.diff().unique().tolist() == [20]


def test_a_stride_of_one_begins_everywhere_in_the_training_part(tmp_path: Path):
    splits = load(tmp_path / "x.txt", LETTERS, stride=1)
    assert len(splits.train) == 145
    batch = splits.train.take(torch.arange(145))
    for start, (inputs, targets) in enumerate(zip(batch.inputs, batch.targets, strict=True)):
        assert decode([*inputs.tolist(), int(targets[-1])], splits.spec.vocabulary) == LETTERS[start : start + 6]
    assert len(splits.val) == 5


def test_characters_met_only_in_the_held_out_part_are_unknown(tmp_path: Path):
    splits = load(tmp_path / "x.txt", LETTERS[:150] + "ñ" * 50)
    assert splits.spec.vocabulary.tokens[:2] == (PAD, UNK)
    assert "ñ" not in splits.spec.vocabulary.tokens
    assert set(read(splits.val)) == {UNK_ID}


def test_words_may_be_few(tmp_path: Path):
    text = "The cat sat. The dog sat. " * 30
    splits = load(tmp_path / "x.txt", text, level="word", lower=True, max_vocabulary=4)
    assert splits.spec.vocabulary.tokens == (PAD, UNK, ".", "sat")
    splits = load(tmp_path / "x.txt", text, level="word", lower=True, max_vocabulary=5)
    assert set(splits.spec.vocabulary.tokens) == {".", "sat", "the", "cat", "dog"}
    batch = splits.train.take(torch.tensor([0]))
    assert decode(batch.inputs[0].tolist(), splits.spec.vocabulary) == "the cat sat. the"


def test_common_settings_reach_windows(tmp_path: Path):
    splits = load(tmp_path / "x.txt", LETTERS)
    done = splitting.complete(splits, limit=7)
    assert [len(part) for part in (done.train, done.val, done.test)] == [7, 5, 4]
    assert len(splitting.complete(splits, limit=0.5, bootstrap=3).train) == 14
    assert splitting.fingerprint(done) != splitting.fingerprint(splitting.complete(splits))
    for option in ({"folds": 3}, {"label_noise": 0.1}, {"imbalance": 2.0}, {"reconstruct": True}):
        with pytest.raises(ConfigError, match=f"data.{next(iter(option))}"):
            splitting.complete(splits, **option)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (None, {}, "data.path=.*x.txt cannot be read: No such file"),
        ("", {}, "data.path=.*x.txt is empty"),
        (
            "a" * 40,
            {},
            r"data=language: 40 tokens make 5 windows of data.context=5 for training, 1 for val.* 0 for test",
        ),
        (
            "a" * 100,
            {"context": 50},
            r"100 tokens make 1 windows of data.context=50 for training, 0 for .*shorter context",
        ),
        ("a b " * 9, {"level": "word", "context": 50}, r"18 tokens make 0 windows"),
        (LETTERS, {"min_count": 99}, r"no token of the 150 trained on occurs data.min_count=99 times"),
        (LETTERS, {"val_fraction": 0.9, "test_fraction": 0.9}, r"200 tokens make 0 windows .* other data.val_fraction"),
    ],
)
def test_unfit_texts_are_refused(text: str | None, options: dict, message: str, tmp_path: Path):
    with pytest.raises(DataError, match=message):
        load(tmp_path / "x.txt", text, **options)


def test_random_tokens_have_the_entropy_they_are_meant_to_have():
    splits = random_tokens(tokens=40_000, vocabulary_size=8, context=16, val_fraction=0.05, test_fraction=0.05, seed=3)
    tokens = torch.cat([splits.train.text, splits.val.text])
    assert len(tokens) == 40_000
    # The standard deviation of a frequency is 0.0017; of a pair's, 0.0006 (by chance beyond these: 1 in 10,000).
    single = torch.bincount(tokens, minlength=8) / len(tokens)
    assert (single - 1 / 8).abs().max() < 0.008
    pairs = torch.bincount(tokens[:-1] * 8 + tokens[1:], minlength=64) / (len(tokens) - 1)
    assert (pairs - 1 / 64).abs().max() < 0.003
    assert -(single * single.log()).sum() == pytest.approx(math.log(8), abs=1e-3)
    again = random_tokens(tokens=40_000, vocabulary_size=8, context=16, val_fraction=0.05, test_fraction=0.05, seed=3)
    assert torch.equal(again.train.text, splits.train.text)
    assert splits.spec.num_outputs == splits.spec.vocabulary_size == 8


def test_absent_plays_say_where_they_are(tmp_path: Path):
    options = {"root": str(tmp_path), "context": 64, "stride": None, "val_fraction": 0.05, "test_fraction": 0.05}
    with pytest.raises(
        DataError, match=r"data=tinyshakespeare is not there.*tinyshakespeare.txt; save https.*DLRUN_DATA"
    ):
        tinyshakespeare(**options)
    (tmp_path / "tinyshakespeare.txt").write_text("To be")
    with pytest.raises(DataError, match=r"has 5 characters, but the published file has 1,115,394; .*data=language"):
        tinyshakespeare(**options)


def test_plays_are_split_as_nanogpt_does():
    path = Path(os.environ.get("DLRUN_DATA", "nowhere")) / "tinyshakespeare.txt"
    if not path.is_file():
        pytest.skip("DLRUN_DATA does not name a folder with tinyshakespeare.txt")
    text = path.read_text()
    first = int(0.9 * len(text))
    splits = tinyshakespeare(root=str(path.parent), context=64, stride=None, val_fraction=0.05, test_fraction=0.05)
    assert splits.spec.num_outputs == len(splits.spec.vocabulary) == 65
    assert decode(splits.train.text.tolist(), splits.spec.vocabulary) == text[:first]
    assert decode(splits.val.text.tolist(), splits.spec.vocabulary) == text[first:]
    assert len(splits.train) == (first - 1) // 64
    assert len(splits.val) == len(splits.test) == 871
