"""Claims and verdicts: a sentence of a source, what would have to be measured for it to be true, and what was.

A verdict is computed, never written down: from conditions on measured numbers. What an entry records beside it is only
what it was when the entry was written, so that a change is seen.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from dlrun.errors import ConfigError

NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
BOUND = re.compile(rf"(<=|>=|<|>)\s*({NUMBER})")
AROUND = re.compile(rf"({NUMBER})\s*(?:±|\+-)\s*({NUMBER})")
FORMS = "'<= 1e-12', '>= 2', '< 1', '> 0' or '-1 ± 0.1'"


class Verdict(StrEnum):
    """What became of a claim."""

    HOLDS = "holds"
    CORRECTED = "holds with a correction"
    FAILS = "does not hold"
    UNSHOWN = "not shown here"  # neither the sentence nor its opposite: too small an effect for so few runs


@dataclass(frozen=True)
class Condition:
    """What a measured number must be: `name` within [low, high]."""

    name: str
    text: str
    low: float
    high: float

    def met_by(self, numbers: Mapping[str, float]) -> bool:
        """Whether it is met; by NaN never. Raises: KeyError if the number has not been measured."""
        return self.low <= numbers[self.name] <= self.high


def condition(name: str, text: str) -> Condition:
    """Read a condition such as "<= 1e-12" or "-1 ± 0.1". Raises: ConfigError."""
    if match := BOUND.fullmatch(text.strip()):
        sign, limit = match[1], float(match[2])
        far = -math.inf if sign.startswith("<") else math.inf
        near = limit if "=" in sign else math.nextafter(limit, far)
        return Condition(name, text, min(near, far), max(near, far))
    if match := AROUND.fullmatch(text.strip()):
        middle, tolerance = float(match[1]), float(match[2])
        if tolerance >= 0:
            return Condition(name, text, middle - tolerance, middle + tolerance)
    raise ConfigError(f"the condition on {name} must be {FORMS}, got '{text}'.")


@dataclass(frozen=True)
class Claim:
    """A sentence that can turn out wrong.

    Attributes:
        id: its name within the entry.
        line: of the source, where it stands.
        says: the sentence by language, the source's own words first.
        shows: what was measured, by language; `{name}` stands for a measured number.
        holds_if: what the numbers must be for the sentence to hold as it stands.
        corrected_if: what they must be for the corrected sentence to hold; empty: no correction is known.
        refuted_if: what they must be for the sentence to be wrong; where they are not either, nothing is shown. Empty:
            whatever does not hold is wrong, as it is with exact measurements.
        correction: the corrected sentence by language.
        recorded: the verdict when the entry was written.
    """

    id: str
    line: int
    says: Mapping[str, str]
    shows: Mapping[str, str]
    holds_if: Sequence[Condition]
    corrected_if: Sequence[Condition]
    refuted_if: Sequence[Condition]
    correction: Mapping[str, str]
    recorded: Verdict

    @property
    def conditions(self) -> list[Condition]:
        """All of them, those of the sentence as it stands first."""
        return [*self.holds_if, *self.corrected_if, *self.refuted_if]

    def judge(self, numbers: Mapping[str, float]) -> Verdict:
        """The verdict that the numbers give. Raises: KeyError if one is missing."""
        if all(item.met_by(numbers) for item in self.holds_if):
            return Verdict.HOLDS
        if self.corrected_if and all(item.met_by(numbers) for item in self.corrected_if):
            return Verdict.CORRECTED
        return Verdict.FAILS if all(item.met_by(numbers) for item in self.refuted_if) else Verdict.UNSHOWN


@dataclass(frozen=True)
class Judged:
    """A claim beside the numbers it was measured by."""

    claim: Claim
    verdict: Verdict
    numbers: Mapping[str, float]

    @property
    def agrees(self) -> bool:
        """Whether the verdict is the one that is recorded."""
        return self.verdict is self.claim.recorded

    def shown(self, lang: str) -> str:
        """What was measured, with the numbers in their places."""
        return filled(self.claim.shows[lang], self.numbers)


def judge(claims: Sequence[Claim], numbers: Mapping[str, float]) -> list[Judged]:
    """Every claim with its verdict."""
    return [Judged(claim, claim.judge(numbers), numbers) for claim in claims]


def placeholders(text: str) -> list[str]:
    """The names of the numbers that a text shows."""
    return re.findall(r"\{(\w+)\}", text)


def filled(text: str, numbers: Mapping[str, float]) -> str:
    """The text with the numbers in their places, in three digits that count."""
    return re.sub(r"\{(\w+)\}", lambda match: digits(numbers[match[1]]), text)


def digits(value: float) -> str:
    """A number for people: 97.5, 0.00123, 3.1e-15, and whole numbers whole."""
    if not math.isfinite(value):
        return "∞" if value > 0 else "-∞" if value < 0 else "NaN"
    if value == round(value) and abs(value) < 1e6:
        return f"{value:.0f}"
    return f"{value:.3g}"


def counts(verdicts: Sequence[Verdict]) -> dict[Verdict, int]:
    """How often each verdict was given."""
    return {verdict: sum(given is verdict for given in verdicts) for verdict in Verdict}
