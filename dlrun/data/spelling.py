"""Whole numbers in words, Spanish and English, from 0 to 999,999,999,999."""

from dlrun.errors import DataError

LARGEST = 10**12 - 1


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


SPANISH_TO_29 = _words(
    "cero uno dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince dieciséis diecisiete "
    "dieciocho diecinueve veinte veintiuno veintidós veintitrés veinticuatro veinticinco veintiséis veintisiete "
    "veintiocho veintinueve"
)
SPANISH_TENS = _words("treinta cuarenta cincuenta sesenta setenta ochenta noventa")
SPANISH_HUNDREDS = _words(
    "ciento doscientos trescientos cuatrocientos quinientos seiscientos setecientos ochocientos novecientos"
)

ENGLISH_TO_19 = _words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
ENGLISH_TENS = _words("twenty thirty forty fifty sixty seventy eighty ninety")
ENGLISH_SCALES = ((10**9, "billion"), (10**6, "million"), (1000, "thousand"))


def spanish(number: int) -> str:
    """A number in Spanish words, masculine: 2500 is "dos mil quinientos", 21000 "veintiún mil".

    "uno" loses its o before a noun, and "mil" and "millones" count as such; 10^9 is "mil millones".

    Raises: DataError outside of 0 ... 999,999,999,999.
    Source: RAE & ASALE, Diccionario panhispánico de dudas, "cardinales".
    """
    _check(number)
    if number == 0:
        return SPANISH_TO_29[0]
    millions, rest = divmod(number, 10**6)
    words = []
    if millions:
        words.append("un millón" if millions == 1 else f"{_short_uno(_spanish_thousands(millions))} millones")
    if rest:
        words.append(_spanish_thousands(rest))
    return " ".join(words)


def english(number: int) -> str:
    """A number in American English words: 2500 is "two thousand five hundred", 121 "one hundred twenty-one".

    Tens and units are joined by a hyphen and there is no "and"; the scale is the short one, a billion being 10^9.

    Raises: DataError outside of 0 ... 999,999,999,999.
    Source: The Chicago Manual of Style, 17th edition, 9.5.
    """
    _check(number)
    if number == 0:
        return ENGLISH_TO_19[0]
    words = []
    for scale, name in ENGLISH_SCALES:
        count, number = divmod(number, scale)
        if count:
            words += [_english_hundreds(count), name]
    if number:
        words.append(_english_hundreds(number))
    return " ".join(words)


def _spanish_thousands(number: int) -> str:
    """1 ... 999,999."""
    thousands, rest = divmod(number, 1000)
    words = []
    if thousands:
        words.append("mil" if thousands == 1 else f"{_short_uno(_spanish_hundreds(thousands))} mil")
    if rest:
        words.append(_spanish_hundreds(rest))
    return " ".join(words)


def _spanish_hundreds(number: int) -> str:
    """1 ... 999."""
    hundreds, rest = divmod(number, 100)
    if number == 100:
        return "cien"
    words = [SPANISH_HUNDREDS[hundreds - 1]] if hundreds else []
    if rest >= 30:
        tens, units = divmod(rest, 10)
        words.append(SPANISH_TENS[tens - 3] + (f" y {SPANISH_TO_29[units]}" if units else ""))
    elif rest:
        words.append(SPANISH_TO_29[rest])
    return " ".join(words)


def _short_uno(words: str) -> str:
    """As before a noun: "veintiuno" becomes "veintiún", which then needs its accent, other "uno" become "un"."""
    if words.endswith("veintiuno"):
        return f"{words.removesuffix('uno')}ún"
    return words.removesuffix("o") if words.endswith("uno") else words


def _english_hundreds(number: int) -> str:
    """1 ... 999."""
    hundreds, rest = divmod(number, 100)
    words = [ENGLISH_TO_19[hundreds], "hundred"] if hundreds else []
    if rest >= 20:
        tens, units = divmod(rest, 10)
        words.append(ENGLISH_TENS[tens - 2] + (f"-{ENGLISH_TO_19[units]}" if units else ""))
    elif rest:
        words.append(ENGLISH_TO_19[rest])
    return " ".join(words)


def _check(number: int) -> None:
    if not 0 <= number <= LARGEST:
        raise DataError(f"only whole numbers from 0 to {LARGEST:,} can be put in words, got {number:,}")
