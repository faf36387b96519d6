"""dlrun glossary: terms of optimisation, each with claims that are measured."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dlrun.commands.offers import folder_typed, options, positional
from dlrun.commands.verdicts import claims_table, columns, console, language, verdict_text
from dlrun.commands.words import config_folder, own_words, whole
from dlrun.errors import UsageError, did_you_mean
from dlrun.glossary.claims import Verdict, counts
from dlrun.glossary.words import SIGNS, WORDS

if TYPE_CHECKING:
    from dlrun.glossary.entry import Entry
    from dlrun.glossary.record import Record

HELP = """\
dlrun glossary [list]              the terms, and what became of their claims
dlrun glossary show TERM           what it is: formula, hyperparameters, how to have it in dlrun, claims
dlrun glossary run TERM            measure its claims, now and here; a table and a picture
dlrun glossary run all [jobs=2]    all of them, and outputs/glossary/index.html

  dlrun glossary show "gradient clipping" lang=es
  dlrun glossary run adamw
  dlrun glossary --config-dir mine run my_term      mine/glossary/my_term.yaml

TERM is a name of the list, an alias or the Spanish word, with or without accents. lang=en|es; else what LANG says.
Exit code 1 if a verdict is not the one that the entry records. Results: outputs/glossary/TERM/result.json, plot.png.
"""

ACTIONS = ("list", "show", "run")
FLAGS = ("--config-dir",)
OPTIONS = {"lang": ("en", "es"), "jobs": ("2",)}


def run(arguments: list[str]) -> int:
    """List, show or measure. Returns: the exit code. Raises: UsageError."""
    arguments, config_dir = config_folder(arguments, "glossary")
    own, words = own_words(arguments, OPTIONS)
    option = next((word for word in words if word.startswith("-")), None)
    if option is not None:
        raise UsageError(f"unknown option '{option}' of dlrun glossary; see `dlrun glossary --help`.")
    action, *terms = words or ["list"]
    if action not in ACTIONS:
        near = did_you_mean(action, ACTIONS) or f" For one term: dlrun glossary show '{action}'."
        raise UsageError(f"dlrun glossary does list, show TERM or run TERM, got '{action}'.{near}")
    lang, jobs = language(own.get("lang")), whole(own, "jobs", 1)
    if jobs is not None and (action != "run" or terms != ["all"]):
        raise UsageError("jobs is how many terms are measured at a time: it is for `dlrun glossary run all`.")
    if bool(terms) == (action == "list"):
        raise UsageError(
            f"dlrun glossary list takes no term, got '{' '.join(terms)}'; to see one: dlrun glossary show TERM."
            if terms
            else f"dlrun glossary {action} needs a TERM; `dlrun glossary` lists them."
        )
    from dlrun.glossary.entry import find_entry, read_glossary

    glossary = read_glossary(config_dir)
    if action == "list":
        return _list(glossary, lang)
    if action == "run" and terms == ["all"]:
        return _run(list(glossary.values()), glossary, lang, jobs or 2)
    entry = find_entry(" ".join(terms), glossary)
    return _show(entry, lang) if action == "show" else _run([entry], glossary, lang, 1)


def offer(typed: Sequence[str], current: str) -> Iterator[str]:
    """What may come next, at a tab."""
    words = [word for word in positional(typed) if "=" not in word]
    if "=" in current:
        yield from options(OPTIONS, current)
    elif not words:
        yield from ACTIONS
    elif len(words) == 1 and words[0] in ("show", "run"):
        from dlrun.config.location import files_of

        yield from ["all"] if words[0] == "run" else []
        yield from (path.stem for path in files_of("glossary", folder_typed(typed)))
    else:
        yield from options(OPTIONS, current)


def _list(glossary: Mapping[str, Entry], lang: str) -> int:
    made = columns("", "", *SIGNS.values())
    for entry in glossary.values():
        numbers = counts([claim.recorded for claim in entry.claims])
        made.add_row(f"[bold]{entry.name}[/]", entry.line[lang], *(str(number or "") for number in numbers.values()))
    out = console()
    out.print(made)
    every = counts([claim.recorded for entry in glossary.values() for claim in entry.claims])
    out.print(" · ".join(f"{number} {SIGNS[v]} {WORDS[lang][v]}" for v, number in every.items()), soft_wrap=True)
    out.print(f"dlrun glossary show {next(iter(glossary), 'TERM')} · dlrun glossary run all")
    return 0


def _show(entry: Entry, lang: str) -> int:
    out, said = console(), WORDS[lang]
    out.print(f"[bold]{entry.term}[/]: {entry.line[lang]}\n", soft_wrap=True)
    out.print(entry.definition[lang] + "\n", markup=False)
    out.print(f"{_indented(entry.formula)}\n", markup=False, soft_wrap=True)
    if entry.hyperparameters:
        made = columns(said["hyperparameters"], said["typical"], said["meaning"])
        for item in entry.hyperparameters:
            made.add_row(item.name, item.typical, item.meaning[lang])
        out.print(made)
    out.print(f"[bold]{said['in dlrun']}[/]")
    out.print(f"{_indented(chr(10).join(entry.words))}\n", markup=False, soft_wrap=True)
    out.print(f"[bold]{said['claims']}[/]")
    for claim in entry.claims:
        out.print(f"  {verdict_text(claim.recorded, lang)}: {claim.says[lang]}")
        if claim.recorded is Verdict.CORRECTED:
            out.print(f"    {said['correction']}: {claim.correction[lang]}")
    if entry.aliases:
        out.print(f"\n{said['also']}: {', '.join(entry.aliases)}")
    if entry.related:
        out.print(f"{said['related']}: {', '.join(entry.related)}")
    out.print(f"\n{said['repeat']}: [bold]dlrun glossary run {entry.name}[/]")
    return 0


def _run(entries: Sequence[Entry], glossary: Mapping[str, Entry], lang: str, jobs: int) -> int:
    from dlrun.glossary.page import write_index
    from dlrun.glossary.record import OUTPUTS
    from dlrun.glossary.runner import measure_all

    out, began = console(), time.perf_counter()
    records: list[Record] = []
    failed = 0
    for entry, outcome in measure_all(entries, OUTPUTS, jobs):
        if isinstance(outcome, str):
            failed += 1
            out.print(f"[bold red]{entry.term}[/] was not measured: {outcome}", soft_wrap=True)
            continue
        records.append(outcome)
        _print_record(outcome, lang, out)
    index = write_index(glossary, lang)
    if len(entries) > 1:
        total = counts([verdict for record in records for verdict in record.verdicts])
        summed = " · ".join(f"{number} {verdict_text(verdict, lang)}" for verdict, number in total.items())
        minutes = (time.perf_counter() - began) / 60
        out.print(f"[bold]{len(records)} terms, {sum(total.values())} claims[/]: {summed}, {minutes:.1f} min")
    out.print(f"{index}", soft_wrap=True)
    return int(failed > 0 or not all(record.agrees for record in records))


def _print_record(record: Record, lang: str, out: Any) -> None:
    from dlrun.glossary.record import OUTPUTS, PICTURE

    entry = record.entry
    out.print(f"\n[bold]{entry.term}[/], {record.seconds:.1f} s, {OUTPUTS / entry.name / PICTURE}", soft_wrap=True)
    out.print(claims_table(record.judged, lang))


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
