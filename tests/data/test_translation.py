"""Pairs of texts: what is read, both vocabularies from the training pairs, and what a decoder is given."""

from pathlib import Path

import pytest
import torch

from dlrun import splitting
from dlrun.contracts import BOS, BOS_ID, EOS, EOS_ID, IGNORED, PAD, PAD_ID, UNK, UNK_ID, Kind, Splits, Task
from dlrun.data.translation import translation
from dlrun.engine.loaders import gather
from dlrun.errors import ConfigError, DataError
from dlrun.text import decode

OPTIONS = {
    "test_path": None,
    "reverse": False,
    "source_level": "word",
    "target_level": "word",
    "lower": True,
    "max_vocabulary": None,
    "min_count": 1,
    "max_length": None,
}
FOUR = "Hola.\tHello.\tCC-BY 2.0\r\nBuenos días.\tGood morning.\n\nHola.\tHello.\nHola.\tHi!\nSí, señor.\tYes, sir.\n"


def load(path: Path, text: str | None = None, **options) -> Splits:
    if text is not None:
        path.write_text(text, newline="")
    return translation(path=str(path), **OPTIONS | options)


def test_lines_become_pairs_once_each(tmp_path: Path):
    pairs = load(tmp_path / "x.tsv", FOUR).train
    assert pairs.texts == [["hola", "."], ["buenos", "días", "."], ["hola", "."], ["sí", ",", "señor", "."]]
    assert pairs.targets == [["hello", "."], ["good", "morning", "."], ["hi", "!"], ["yes", ",", "sir", "."]]
    other = load(tmp_path / "x.tsv", reverse=True).train
    assert (other.texts, other.targets) == (pairs.targets, pairs.texts)
    characters = load(tmp_path / "x.tsv", target_level="char", lower=False).train
    assert characters.texts[0] == ["Hola", "."]
    assert characters.targets[0] == list("Hello.")


def test_a_decoder_is_given_what_was_said_before(tmp_path: Path):
    splits = load(tmp_path / "x.tsv", FOUR)
    spec, encode = splits.fit(splits.train)
    assert (spec.task, spec.kind) == (Task.SEQUENCE_TO_SEQUENCE, Kind.TOKENS)
    assert (spec.shape, spec.target_length, spec.padding) == ((4,), 5, PAD_ID)
    assert spec.vocabulary.tokens == (PAD, UNK, ".", "hola", ",", "buenos", "días", "señor", "sí")
    assert spec.target_vocabulary.tokens[:5] == (PAD, UNK, BOS, EOS, ".")
    assert spec.num_outputs == len(spec.target_vocabulary) == 4 + 8 + 1
    assert spec.vocabulary_size == len(spec.vocabulary)
    batch = gather(encode(splits.train), torch.tensor([1, 2]))
    sources, shifted = batch.inputs
    assert decode(sources[0].tolist(), spec.vocabulary) == "buenos días."
    assert sources[1].tolist() == [3, 2, PAD_ID]
    assert batch.targets.shape == shifted.shape == (2, 4)
    assert decode(batch.targets[0].tolist(), spec.target_vocabulary) == "good morning."
    assert batch.targets[0, 3] == batch.targets[1, 2] == EOS_ID
    assert batch.targets[1, 3] == IGNORED
    assert shifted[:, 0].tolist() == [BOS_ID, BOS_ID]
    assert torch.equal(shifted[0, 1:], batch.targets[0, :-1])
    assert shifted[1, 3] == PAD_ID


def test_vocabularies_know_the_training_pairs_only(tmp_path: Path):
    splits = load(tmp_path / "x.tsv", FOUR)
    spec, encode = splits.fit(splits.train.subset(torch.tensor([0, 1])))
    assert "señor" not in spec.vocabulary.tokens
    assert "sir" not in spec.target_vocabulary.tokens
    late = encode(splits.train.subset(torch.tensor([3])))
    assert late.sources[0].tolist() == [UNK_ID, UNK_ID, UNK_ID, spec.vocabulary.tokens.index(".")]
    assert late.targets[0].tolist() == [UNK_ID, UNK_ID, UNK_ID, spec.target_vocabulary.tokens.index("."), EOS_ID]
    assert spec.shape == (4,)  # no pair of any split is cut


def test_rare_tokens_and_long_pairs(tmp_path: Path):
    splits = load(tmp_path / "x.tsv", FOUR, max_length=3, min_count=2, max_vocabulary=5)
    assert len(splits.train) == 3
    spec, _ = splits.fit(splits.train)
    assert (spec.shape, spec.target_length) == ((3,), 4)
    assert spec.vocabulary.tokens == (PAD, UNK, ".", "hola")
    assert spec.target_vocabulary.tokens == (PAD, UNK, BOS, EOS, ".")


def test_common_settings_reach_pairs(tmp_path: Path):
    text = "".join(f"uno dos {i}\tone two {i}\n" for i in range(50))
    splits = splitting.complete(load(tmp_path / "x.tsv", text), limit=20)
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [20, 4, 10]
    assert splitting.fingerprint(splits) != splitting.fingerprint(
        splitting.complete(load(tmp_path / "x.tsv"), limit=20, split_seed=1)
    )
    assert len(splitting.complete(load(tmp_path / "x.tsv"), folds=4, bootstrap=1).val) == 10
    for option in ({"label_noise": 0.1}, {"imbalance": 2.0}, {"reconstruct": True}):
        with pytest.raises(ConfigError, match=f"data.{next(iter(option))}"):
            splitting.complete(load(tmp_path / "x.tsv"), **option)


def test_pairs_of_their_own_for_the_test_set(tmp_path: Path):
    (tmp_path / "test.tsv").write_text("Hola, buenos días, señor.\tHello, good morning, sir.\n")
    splits = load(tmp_path / "x.tsv", FOUR, test_path=str(tmp_path / "test.tsv"))
    spec, encode = splits.fit(splits.train)
    assert (spec.shape, spec.target_length) == ((7,), 8)
    assert decode(encode(splits.test).targets[0].tolist(), spec.target_vocabulary) == "hello, good morning, sir."


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (None, {}, r"data.path=.*x.tsv cannot be read: No such file"),
        ("\n\n", {}, r"x.tsv is empty"),
        ("a\tb\nc d\n", {}, r"x.tsv, line 2: there is no tab; a line must be source, tab, target"),
        ("a\tb\nc\t \n", {}, r"x.tsv, line 2: the second column is empty"),
        ("\ta\n", {}, r"x.tsv, line 1: the first column is empty"),
        ("a b c\td\n", {"max_length": 2}, r"x.tsv has no pair of at most data.max_length=2 tokens on each side"),
        ("a\tb\n", {"test_path": "no.tsv"}, r"data.test_path=no.tsv cannot be read"),
    ],
)
def test_unfit_files_are_refused(text: str | None, options: dict, message: str, tmp_path: Path):
    with pytest.raises(DataError, match=message):
        load(tmp_path / "x.tsv", text, **options)
