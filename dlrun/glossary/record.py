"""What a measurement left: result.json beside plot.png, in a folder for each entry. Torch-free, to be shown at once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dlrun.errors import UsageError
from dlrun.glossary.claims import Judged, Verdict, judge
from dlrun.glossary.entry import Entry
from dlrun.runs.files import write_json
from dlrun.version import __version__

OUTPUTS = Path("outputs/glossary")
RESULT, PICTURE = "result.json", "plot.png"


@dataclass(frozen=True)
class Record:
    """The outcome of one entry."""

    entry: Entry
    judged: Sequence[Judged]
    numbers: Mapping[str, float]
    seconds: float

    @classmethod
    def of(cls, entry: Entry, numbers: Mapping[str, float], seconds: float) -> Record:
        """What these numbers make of the entry's claims."""
        return cls(entry, judge(entry.claims, numbers), numbers, seconds)

    @property
    def verdicts(self) -> list[Verdict]:
        return [item.verdict for item in self.judged]

    @property
    def agrees(self) -> bool:
        """Whether every verdict is the one that is recorded."""
        return all(item.agrees for item in self.judged)

    def to_dict(self) -> dict[str, Any]:
        """As result.json has it."""
        return {
            "term": self.entry.term,
            "claims": [claim_dict(item) for item in self.judged],
            "numbers": dict(self.numbers),
            "seconds": round(self.seconds, 2),
            "dlrun": __version__,
            "torch": version("torch"),
        }

    def write(self, folder: Path) -> None:
        write_json(folder / RESULT, self.to_dict())


def read_record(entry: Entry, folder: Path) -> Record:
    """The record that a folder holds, judged by the claims as they are now.

    Raises: UsageError if there is none, or one of other numbers.
    """
    try:
        content = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        return Record.of(entry, content["numbers"], float(content["seconds"]))
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(f"{folder / RESULT} holds no result of now: dlrun glossary run {entry.name}.") from None


def claim_dict(item: Judged) -> dict[str, Any]:
    """A judged claim as result.json has it."""
    claim = item.claim
    return {
        "id": claim.id,
        "says": claim.says,
        "line": claim.line,
        "verdict": item.verdict,
        "recorded": claim.recorded,
        "holds_if": {c.name: {"wanted": c.text, "measured": item.numbers[c.name]} for c in claim.holds_if},
        "corrected_if": {c.name: {"wanted": c.text, "measured": item.numbers[c.name]} for c in claim.corrected_if},
        "refuted_if": {c.name: {"wanted": c.text, "measured": item.numbers[c.name]} for c in claim.refuted_if},
        "correction": claim.correction or None,
    }
