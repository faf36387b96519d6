"""Claims and their verdicts on a terminal, for the commands that measure them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from dlrun.errors import UsageError
from dlrun.glossary.claims import Judged, Verdict
from dlrun.glossary.words import SIGNS, WORDS

STYLES = {Verdict.HOLDS: "green", Verdict.CORRECTED: "cyan", Verdict.FAILS: "yellow", Verdict.UNSHOWN: "magenta"}


def language(given: str | None) -> str:
    """The language asked for, else the one that the environment speaks. Raises: UsageError for one there is not."""
    if given is None:
        spoken = next(filter(None, map(os.environ.get, ("LC_ALL", "LC_MESSAGES", "LANG"))), "en")
        return "es" if spoken.startswith("es") else "en"
    if given not in WORDS:
        raise UsageError(f"lang must be one of {', '.join(WORDS)}, got '{given}'.")
    return given


def claims_table(judged: Sequence[Judged], lang: str) -> Any:
    """Each claim, what was measured, and the verdict; one that is not the recorded one is marked."""
    said = WORDS[lang]
    made = columns(said["claim"], said["measured"], said["verdict"])
    for item in judged:
        shown = item.shown(lang)
        if item.verdict is Verdict.CORRECTED:
            shown += f"\n{said['correction']}: {item.claim.correction[lang]}"
        changed = "" if item.agrees else f"\n[bold red]{said['changed']}{said[item.claim.recorded]}[/]"
        made.add_row(escaped(item.claim.says[lang]), escaped(shown), verdict_text(item.verdict, lang) + changed)
    return made


def columns(*names: str) -> Any:
    """An empty table with columns of such names."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD)
    for name in names:
        made.add_column(name, overflow="fold")
    return made


def verdict_text(verdict: Verdict, lang: str) -> str:
    """A verdict with its sign, in its colour."""
    return f"[{STYLES[verdict]}]{SIGNS[verdict]} {WORDS[lang][verdict]}[/]"


def escaped(text: str) -> str:
    """A text that rich shows as it is."""
    from rich.markup import escape

    return escape(text)


def console() -> Any:
    """Where it is printed."""
    from rich.console import Console

    return Console(highlight=False)
