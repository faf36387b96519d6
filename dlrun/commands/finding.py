"""What `dlrun doctor` finds: one line each."""

import importlib.metadata
from dataclasses import dataclass

OK, NOTE, WARNING, ERROR = "ok", "note", "warning", "error"


@dataclass(frozen=True)
class Finding:
    """One line of the report; `way_out` says what to do about a warning or an error."""

    level: str
    what: str
    detail: str = ""
    way_out: str = ""


def installed(package: str) -> str | None:
    """The version of an installed package, without importing it; None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def in_a_line(error: Exception) -> str:
    """What an exception says, on one line of bearable length."""
    return " ".join(str(error).split())[:200]
