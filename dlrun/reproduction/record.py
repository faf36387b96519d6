"""What a reproduction left: result.json beside plot.png and report.html. Torch-free, to be listed at once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dlrun.errors import DlrunError
from dlrun.glossary.claims import Claim, Judged, Verdict, filled
from dlrun.glossary.reading import Both
from dlrun.glossary.record import claim_dict
from dlrun.reproduction.entry import FULL, Reproduction
from dlrun.reproduction.jobs import Budget, seeds_of
from dlrun.runs.files import write_json
from dlrun.version import __version__

OUTPUTS = Path("outputs/reproduce")
RESULT, PICTURE, REPORT = "result.json", "plot.png", "report.html"


@dataclass(frozen=True)
class Outcome:
    """What became of a reproduction.

    Attributes:
        untested: claims that these runs cannot decide, each with what they would need.
        seconds: of this call, without the runs that were done before.
        run_seconds: of all its runs together, whenever they were done.
    """

    made: Reproduction
    budget: Budget
    judged: Sequence[Judged]
    untested: Sequence[tuple[Claim, str]]
    numbers: Mapping[str, float]
    seconds: float
    run_seconds: float

    @classmethod
    def of(
        cls,
        made: Reproduction,
        budget: Budget,
        numbers: Mapping[str, float],
        seconds: float = 0.0,
        run_seconds: float = 0.0,
    ) -> Outcome:
        """What these numbers make of the claims, of which some may need more than was done."""
        lacking = {claim.id: lacks(made.needs.get(claim.id, ()), budget) for claim in made.claims}
        judged = [Judged(c, c.judge(numbers), numbers) for c in made.claims if not lacking[c.id]]
        untested = [(c, lacking[c.id]) for c in made.claims if lacking[c.id]]
        return cls(made, budget, judged, untested, numbers, seconds, run_seconds)

    @property
    def agrees(self) -> bool:
        """Whether every verdict is the recorded one; with words of the user's own there is none to agree with."""
        return not self.budget.is_full or all(item.agrees for item in self.judged)

    @property
    def verdicts(self) -> list[Verdict]:
        return [item.verdict for item in self.judged]

    @property
    def notes(self) -> list[Both]:
        """What a reader of the source would miss, with the numbers in their places."""
        return [{lang: filled(text, self.numbers) for lang, text in note.items()} for note in self.made.notes]

    def to_dict(self) -> dict[str, Any]:
        """As result.json has it."""
        return {
            "id": self.made.name,
            "source": self.made.source,
            "seeds": seeds_of(self.made, self.budget),
            "words": list(self.budget.words),
            "options": list(self.budget.options),
            "as_recorded": self.budget.is_full,
            "claims": [claim_dict(item) for item in self.judged],
            "not_tested": [{"id": claim.id, "says": claim.says, "needs": need} for claim, need in self.untested],
            "printed": [
                {
                    "name": item.name,
                    "arm": item.arm,
                    "metric": item.metric,
                    "printed": item.value,
                    **{key: self.numbers.get(f"{item.name}_{key}") for key in ("mean", "std", "p")},
                }
                for item in self.made.printed
                if f"{item.name}_mean" in self.numbers
            ],
            "numbers": dict(self.numbers),
            "seconds": round(self.seconds, 2),
            "run_seconds": round(self.run_seconds, 2),
            "dlrun": __version__,
            "torch": version("torch"),
        }

    def write(self, folder: Path) -> None:
        write_json(folder / RESULT, self.to_dict())


def lacks(needs: Sequence[str], budget: Budget) -> str:
    """What a claim needs that the budget has not, as it is typed; "" if nothing."""
    missing = [f"{name}=true" for name in needs if name != FULL and name not in budget.options]
    if FULL in needs and not budget.is_full:
        missing.append(f"no {' '.join(budget.words)}")
    return ", ".join(missing)


def last_outcome(made: Reproduction, folder: Path) -> Outcome | None:
    """What the folder holds, judged by the claims as they are now; None if nothing, or nothing of now."""
    try:
        content = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        budget = Budget(content["seeds"], content["words"], content["options"])
        return Outcome.of(made, budget, content["numbers"], content["seconds"], content["run_seconds"])
    except (OSError, ValueError, KeyError, TypeError, DlrunError):
        return None
