"""Tokens and their numbers: by hand, against scikit-learn, and back again."""

import random
import unicodedata
from pathlib import Path

import pytest
from sklearn.feature_extraction.text import CountVectorizer

from dlrun.contracts import BOS, BOS_ID, EOS, EOS_ID, PAD, PAD_ID, UNK, UNK_ID, Vocabulary
from dlrun.errors import DataError
from dlrun.text import SPECIAL, WORD, build_vocabulary, decode, encoder, numbering, read_text, tokenize


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It's good, isn't it?", ["It's", "good", ",", "isn't", "it", "?"]),
        ("¿Qué tal, señor?", ["¿", "Qué", "tal", ",", "señor", "?"]),
        ("it 's 'quoted'\tand\nso", ["it", "'", "s", "'", "quoted", "'", "and", "so"]),
        ("rock'n'roll 3.5 well-made", ["rock'n'roll", "3", ".", "5", "well", "-", "made"]),
        ("l\u2019été", ["l\u2019été"]),
        ("日本", ["日本"]),
        ("  \n", []),
    ],
)
def test_words_and_marks(text: str, words: list[str]):
    assert tokenize(text, "word") == words


def test_an_accent_is_one_character_however_it_is_composed():
    composed, apart = "dieciséis", unicodedata.normalize("NFD", "dieciséis")
    assert len(apart) == len(composed) + 1
    for level in ("char", "word"):
        assert tokenize(apart, level) == tokenize(composed, level)


def test_vocabulary_is_by_frequency_then_alphabet_and_special_tokens_have_their_numbers():
    texts = [tokenize(text, "word") for text in ("b a a c c", "c d")]
    vocabulary = build_vocabulary(texts, "word")
    assert vocabulary.tokens == (PAD, UNK, BOS, EOS, "c", "a", "b", "d")
    assert [vocabulary.tokens.index(token) for token in SPECIAL] == [PAD_ID, UNK_ID, BOS_ID, EOS_ID]
    assert build_vocabulary(texts, "word", special=(), min_count=2).tokens == ("c", "a")
    assert build_vocabulary(texts, "word", special=(PAD, UNK), max_size=3).tokens == (PAD, UNK, "c")
    assert build_vocabulary(texts, "word", max_size=2).tokens == SPECIAL


def test_counts_are_those_of_scikit_learn():
    rng = random.Random(0)
    texts = [" ".join(rng.choices(["Ein", "ein", "Tag", "am", "Meer", ",", "so!"], k=9)) for _ in range(50)]
    vocabulary = build_vocabulary([tokenize(text, "word", True) for text in texts], "word", lower=True, special=())
    oracle = CountVectorizer(token_pattern=WORD.pattern, vocabulary=vocabulary.tokens).fit_transform(texts).toarray()
    encode = encoder(vocabulary)
    for text, counts in zip(texts, oracle, strict=True):
        assert [encode(text).count(number) for number in range(len(vocabulary))] == counts.tolist()
    total = oracle.sum(0).tolist()
    assert total == sorted(total, reverse=True)


def test_unknown_tokens_are_unk_or_left_out():
    tokens = [list("abc")]
    assert encoder(build_vocabulary(tokens, "char"))("axb") == [4, UNK_ID, 5]
    assert encoder(build_vocabulary(tokens, "char", special=()))("axb") == [0, 1]
    assert numbering(Vocabulary(("a", "b")))(["b", "x", "a"]) == [1, 0]


def test_characters_come_back_as_they_were():
    text = "".join(random.Random(1).choices("aáñ \n\t¿?<>'", k=500))
    vocabulary = build_vocabulary([tokenize(text, "char")], "char")
    assert decode(encoder(vocabulary)(text), vocabulary) == text


def test_decoding_ends_at_eos_and_spaces_words_as_print_does():
    text = "¿Qué? «twenty-one», he said (it's 5 %)."
    vocabulary = build_vocabulary([tokenize(text, "word")], "word")
    numbers = encoder(vocabulary)(text)
    assert decode([BOS_ID, *numbers, EOS_ID, *numbers, PAD_ID], vocabulary) == "¿Qué? «twenty-one», he said (it's 5%)."
    assert decode([UNK_ID, PAD_ID, numbers[1]], vocabulary) == f"{UNK} Qué"
    assert decode([], vocabulary) == ""


def test_files_are_read_whole_whatever_ends_their_lines(tmp_path: Path):
    (tmp_path / "x.txt").write_bytes("\ufeffñ a\r\nb\rc\x85d\n".encode())
    assert read_text(tmp_path / "x.txt") == "ñ a\nb\nc\x85d\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "data.path=x cannot be read: No such file"),
        (b"", "data.path=x is empty"),
        (b" \n\t", "data.path=x is empty"),
        ("one\ntwo\naño".encode("latin-1"), r"data.path=x, line 3: byte 0xf1 is not UTF-8; .*iconv -f latin1"),
    ],
)
def test_files_that_are_no_text(content: bytes | None, message: str, tmp_path: Path):
    if content is not None:
        (tmp_path / "x.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_text(tmp_path / "x.txt", "data.path=x")
