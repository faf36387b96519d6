"""What a search is for: which number of a run, in which direction. No torch."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dlrun.errors import did_you_mean

# Of the names behind "val/"; all others, as accuracy, are better when higher.
ERRORS = ("loss", "mae", "rmse", "mape", "smape", "perplexity", "nll", "brier", "ece")
LOWER_IS_BETTER = frozenset((*ERRORS, "bits_per_character", "bits_per_word", "bits_per_token"))
COSTS: dict[str, Literal["minimize", "maximize"]] = {
    "seconds": "minimize",
    "parameters": "minimize",
    "steps": "minimize",
    "samples_per_second": "maximize",
}
TEXT = re.compile(r"(?:(minimize|maximize)\s+)?([\w/]+)")


@dataclass(frozen=True)
class Objective:
    """A number of a finished run.

    Attributes:
        name: a metric of validation, such as "val/accuracy", or one of `COSTS`, as summary.json has it.
        direction: minimize or maximize.
    """

    name: str
    direction: Literal["minimize", "maximize"]

    @property
    def higher_is_better(self) -> bool:
        return self.direction == "maximize"

    def better(self, value: float, other: float) -> bool:
        return value > other if self.higher_is_better else value < other


def read_objectives(given: Sequence[Any]) -> tuple[list[Objective], list[str]]:
    """The objectives of a tune file, and one sentence for each mistake."""
    found: list[Objective] = []
    problems: list[str] = []
    if not given:
        problems.append("tune.objectives is empty: name what is to be best, such as val/accuracy.")
    for text in map(str, given):
        matched = TEXT.fullmatch(text.strip())
        name = matched[2] if matched else ""
        typed: Literal["minimize", "maximize"] | None = None
        if matched and matched[1]:
            typed = "minimize" if matched[1] == "minimize" else "maximize"
        if name in COSTS:
            found.append(Objective(name, typed or COSTS[name]))
        elif name.startswith("val/") and len(name) > len("val/"):
            lower = name.removeprefix("val/") in LOWER_IS_BETTER
            found.append(Objective(name, typed or ("minimize" if lower else "maximize")))
        elif name.startswith("test/"):
            problems.append(f"tune.objectives: '{text}' would choose by the test data; choose by val/… instead.")
        else:
            known = ["val/accuracy", "val/loss", *COSTS]
            problems.append(
                f"tune.objectives: '{text}' is none; write a metric of validation, such as val/accuracy, or one of "
                f"{', '.join(COSTS)}, if need be with minimize or maximize before it.{did_you_mean(name, known)}"
            )
    names = [objective.name for objective in found]
    problems += [f"tune.objectives names {name} twice." for name in dict.fromkeys(names) if names.count(name) > 1]
    return found, problems


def values(
    objectives: Sequence[Objective], summary: Mapping[str, Any], last: Mapping[str, Any], restores_best: bool
) -> list[float]:
    """What a finished run came to.

    Args:
        summary: of summary.json.
        last: the record of its last validation.
        restores_best: whether the weights of the best validation are those that count, not the last.

    Raises: KeyError naming an objective that the run did not measure.
    """
    best = (summary.get("best") or {}).get("metrics") or {}
    measured = best if restores_best and best else last
    found = []
    for objective in objectives:
        source = summary if objective.name in COSTS else measured
        value = source.get(objective.name)
        if value is None:
            raise KeyError(objective.name)
        found.append(float(value) if isinstance(value, int | float) else math.nan)
    return found


def measured_names(record: Mapping[str, Any]) -> list[str]:
    """The objectives that a record of validation offers."""
    return [name for name in record if name.startswith("val/")]
