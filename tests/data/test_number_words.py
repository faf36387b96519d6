"""Numbers in words: a table from grammars, a parser written on its own, and num2words where it is installed."""

import random
import re

import pytest
import torch

from dlrun import splitting
from dlrun.contracts import BOS_ID, EOS_ID, IGNORED, Task
from dlrun.data.number_words import draw, number_words
from dlrun.data.spelling import LARGEST, english, spanish
from dlrun.errors import DataError
from dlrun.text import decode

SPANISH = {
    0: "cero",
    1: "uno",
    16: "dieciséis",
    21: "veintiuno",
    22: "veintidós",
    23: "veintitrés",
    26: "veintiséis",
    30: "treinta",
    31: "treinta y uno",
    99: "noventa y nueve",
    100: "cien",
    101: "ciento uno",
    116: "ciento dieciséis",
    200: "doscientos",
    500: "quinientos",
    555: "quinientos cincuenta y cinco",
    700: "setecientos",
    900: "novecientos",
    1000: "mil",
    1001: "mil uno",
    1100: "mil cien",
    2500: "dos mil quinientos",
    21_000: "veintiún mil",
    21_021: "veintiún mil veintiuno",
    31_000: "treinta y un mil",
    100_000: "cien mil",
    101_000: "ciento un mil",
    121_000: "ciento veintiún mil",
    999_999: "novecientos noventa y nueve mil novecientos noventa y nueve",
    1_000_000: "un millón",
    1_000_001: "un millón uno",
    1_001_000: "un millón mil",
    2_000_000: "dos millones",
    21_000_000: "veintiún millones",
    41_000_000: "cuarenta y un millones",
    100_000_000: "cien millones",
    101_000_000: "ciento un millones",
    1_000_000_000: "mil millones",
    1_001_000_000: "mil un millones",
    21_021_021_021: "veintiún mil veintiún millones veintiún mil veintiuno",
}
ENGLISH = {
    0: "zero",
    8: "eight",
    13: "thirteen",
    14: "fourteen",
    15: "fifteen",
    18: "eighteen",
    20: "twenty",
    21: "twenty-one",
    40: "forty",
    99: "ninety-nine",
    100: "one hundred",
    101: "one hundred one",
    110: "one hundred ten",
    121: "one hundred twenty-one",
    1000: "one thousand",
    2500: "two thousand five hundred",
    12_012: "twelve thousand twelve",
    100_000: "one hundred thousand",
    1_000_000: "one million",
    1_000_001: "one million one",
    1_000_000_000: "one billion",
    1_001_001_001: "one billion one million one thousand one",
}
# Everything that can go wrong below 10,000, and numbers of every length beyond.
SAMPLE = [*range(10_000), *(random.Random(0).randrange(10 ** (4 + i % 9)) for i in range(9000))]
SPANISH_UNITS = "cero un dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince"
SPANISH_TENS = ("treinta", "cuarenta", "cincuenta", "sesenta", "setenta", "ochenta", "noventa")
ENGLISH_UNITS = "zero one two three four five six seven eight nine ten eleven twelve thir four fif six seven eigh nine"


def spanish_number(words: str) -> int:
    """The number that Spanish words mean: letters without accents are added up, mil and millones multiply."""
    total, group, units = 0, 0, SPANISH_UNITS.split()
    for word in words.translate(str.maketrans("áéíóú", "aeiou")).replace(" y ", " ").split():
        short = "un" if word == "uno" else re.sub("uno$", "un", word)
        if short in ("millon", "millones"):
            total, group = (total + group) * 10**6, 0
        elif short == "mil":
            total, group = total + max(group, 1) * 1000, 0
        elif short in ("cien", "ciento"):
            group += 100
        elif short.endswith("ientos"):
            stems = {"dosc": 2, "tresc": 3, "cuatroc": 4, "quin": 5, "seisc": 6, "setec": 7, "ochoc": 8, "novec": 9}
            group += 100 * stems[short.removesuffix("ientos")]
        elif short in SPANISH_TENS:
            group += 30 + 10 * SPANISH_TENS.index(short)
        elif short.startswith(("dieci", "veinti")):
            group += 10 if short[0] == "d" else 20
            group += units.index(short.removeprefix("dieci").removeprefix("veinti"))
        else:
            group += 20 if short == "veinte" else units.index(short)
    return total + group


def english_number(words: str) -> int:
    units = ENGLISH_UNITS.split()
    tens = {"twen": 2, "thir": 3, "for": 4, "fif": 5, "six": 6, "seven": 7, "eigh": 8, "nine": 9}
    total = group = 0
    for word in words.replace("-", " ").split():
        if word == "hundred":
            group *= 100
        elif word in ("thousand", "million", "billion"):
            total, group = total + group * {"t": 10**3, "m": 10**6, "b": 10**9}[word[0]], 0
        elif word.endswith("teen"):
            group += units.index(word.removesuffix("teen"), 13)
        elif word.endswith("ty"):
            group += 10 * tens[word.removesuffix("ty")]
        else:
            group += units.index(word)
    return total + group


@pytest.mark.parametrize(("spell", "table"), [(spanish, SPANISH), (english, ENGLISH)])
def test_known_numbers(spell, table):
    assert {number: spell(number) for number in table} == table


@pytest.mark.parametrize(("spell", "read"), [(spanish, spanish_number), (english, english_number)])
def test_words_mean_the_number(spell, read):
    for number in [*SAMPLE, LARGEST]:
        assert read(spell(number)) == number


def test_spanish_forms_that_do_not_exist():
    for number in SAMPLE:
        words = spanish(number)
        assert not re.search(r"\b\w*uno mil", words), words
        assert not re.search(r"(^|millón |millones )un mil\b", words), words
        assert not re.search(r"(?<!nta) y ", words), words
        assert not re.search(r"\bcien (?!mil)", words), words
        assert not re.search(r"\bciento (mil|millones)|\bciento$", words), words


def test_num2words_says_the_same():
    num2words = pytest.importorskip("num2words").num2words
    for number in SAMPLE[::4]:
        theirs = num2words(number, lang="en").replace(",", "").replace(" and ", " ")
        assert english(number) == theirs
        # num2words leaves "uno" as it is before "mil" and "millones", which Spanish does not: veintiún mil.
        theirs = re.sub(r"uno (?=mil\b|millones)", "un ", num2words(number, lang="es"))
        theirs = theirs.replace("veintiun ", "veintiún ")
        assert spanish(number) == theirs


@pytest.mark.parametrize("number", [-1, 10**12])
@pytest.mark.parametrize("spell", [spanish, english])
def test_numbers_without_words(spell, number: int):
    with pytest.raises(DataError, match=r"only whole numbers from 0 to 999,999,999,999 .*, got "):
        spell(number)


def test_numbers_are_different_and_of_every_length():
    numbers = draw(1000, 99_999, seed=1)
    assert len(set(numbers)) == 1000
    assert 0 <= min(numbers) <= max(numbers) <= 99_999
    lengths = [len(str(number)) for number in numbers]
    assert [lengths.count(n) for n in range(1, 6)] == [10, 90, 300, 300, 300]
    assert lengths[:100] != sorted(lengths[:100])
    assert draw(1000, 99_999, seed=1) == numbers != draw(1000, 99_999, seed=2)


@pytest.mark.parametrize("maximum", [9, 10, 99, 1000, 1234])
def test_all_numbers_can_be_drawn(maximum: int):
    assert sorted(draw(maximum + 1, maximum, seed=0)) == list(range(maximum + 1))


@pytest.mark.parametrize(
    ("source", "target", "read", "write"),
    [("spanish", "digits", spanish_number, int), ("digits", "english", int, english_number)],
)
def test_pairs_say_the_same_and_share_no_number(source, target, read, write):
    splits = splitting.complete(number_words(source=source, target=target, maximum=9999, count=500, seed=0))
    spec = splits.spec
    assert (spec.task, spec.name) == (Task.SEQUENCE_TO_SEQUENCE, "number_words")
    assert spec.num_outputs == len(spec.target_vocabulary)
    numbers = []
    for part in (splits.train, splits.val, splits.test):
        for x, before, y in zip(part.sources, part.shifted, part.targets, strict=True):
            said = [token for token in y.tolist() if token != IGNORED]
            number = write(decode(said, spec.target_vocabulary))
            assert read(decode(x.tolist(), spec.vocabulary)) == number
            assert said[-1] == EOS_ID
            assert before[: len(said)].tolist() == [BOS_ID, *said[:-1]]
            numbers.append(number)
    assert sorted(numbers) == sorted(draw(500, 9999, seed=0))
    assert len(set(numbers)) == 500
    longest = torch.cat([part.lengths for part in (splits.train, splits.val, splits.test)]).amax(0).tolist()
    assert longest == [*spec.shape, spec.target_length]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": "spanish"}, "data.source and data.target are both spanish"),
        ({"count": 1001}, "data.count=1,001 is more than the 1,000 numbers from 0 to data.maximum"),
    ],
)
def test_what_cannot_be_translated(change: dict, message: str):
    options = {"source": "spanish", "target": "digits", "maximum": 999, "count": 10, "seed": 0}
    with pytest.raises(DataError, match=message):
        number_words(**options | change)
