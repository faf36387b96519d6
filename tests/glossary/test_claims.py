"""Conditions, and the verdicts that they make of numbers."""

import math

import pytest

from dlrun.errors import ConfigError
from dlrun.glossary.claims import Claim, Verdict, condition, counts, digits, filled


@pytest.mark.parametrize(
    ("text", "met", "missed"),
    [
        ("<= 1e-12", (1e-12, -5.0), (1.1e-12, math.nan)),
        ("< 2", (1.999, -math.inf), (2.0, math.nan)),
        (">= .5", (0.5, math.inf), (0.499, math.nan)),
        ("> 0", (1e-300,), (0.0, -1.0)),
        ("-1 ± 0.1", (-1.1, -0.9), (-1.11, -0.89)),
        ("3 +- 0", (3.0,), (3.0000001,)),
    ],
)
def test_a_condition_is_met_at_its_limits_and_never_by_nan(
    text: str, met: tuple[float, ...], missed: tuple[float, ...]
):
    wanted = condition("x", text)
    assert all(wanted.met_by({"x": value}) for value in met)
    assert not any(wanted.met_by({"x": value}) for value in missed)


@pytest.mark.parametrize("text", ["", "about 3", "= 3", "1 ± -1", "<= 1e-12 or so"])
def test_a_condition_that_cannot_be_read_is_refused(text: str):
    with pytest.raises(ConfigError, match="the condition on x must be '<= 1e-12'"):
        condition("x", text)


def claim(corrected: bool = True, refutable: bool = False) -> Claim:
    both = {"en": "a", "es": "b"}
    wanted, other, against = (condition("x", text) for text in ("1 ± 0.1", "2 ± 0.1", ">= 5"))
    return Claim("c", 1, both, both, [wanted], [other] * corrected, [against] * refutable, both, Verdict.HOLDS)


@pytest.mark.parametrize(
    ("x", "verdict"),
    [(1.05, Verdict.HOLDS), (2.05, Verdict.CORRECTED), (3.0, Verdict.FAILS), (math.nan, Verdict.FAILS)],
)
def test_the_sentence_comes_first_then_its_correction(x: float, verdict: Verdict):
    assert claim().judge({"x": x}) is verdict


def test_without_a_correction_what_does_not_hold_fails():
    assert claim(corrected=False).judge({"x": 2.0}) is Verdict.FAILS


@pytest.mark.parametrize(
    ("x", "verdict"), [(1.0, Verdict.HOLDS), (3.0, Verdict.UNSHOWN), (5.0, Verdict.FAILS), (math.nan, Verdict.UNSHOWN)]
)
def test_what_neither_holds_nor_is_refuted_is_not_shown(x: float, verdict: Verdict):
    assert claim(refutable=True).judge({"x": x}) is verdict


def test_numbers_are_written_for_people():
    assert [digits(x) for x in (3.0, 0.97531, 1e-16, 123456.0, math.inf, math.nan)] == [
        "3", "0.975", "1e-16", "123456", "∞", "NaN",
    ]  # fmt: skip
    assert filled("{a} of {b}", {"a": 1, "b": 2.5}) == "1 of 2.5"
    assert counts([Verdict.HOLDS, Verdict.FAILS, Verdict.HOLDS]) == {
        "holds": 2,
        "holds with a correction": 0,
        "does not hold": 1,
        "not shown here": 0,
    }
