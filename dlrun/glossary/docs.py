"""docs/glossary: the entries as Markdown in both languages, with the numbers and pictures of a real run.

`dlrun glossary run all` (or the one term that is new), then `python -m dlrun.glossary.docs`, in the checkout: writes
docs/glossary from conf/glossary and outputs/glossary. What has not been measured there keeps its numbers and picture.
Nothing is edited by hand; a test holds the pages to the YAMLs.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dlrun.errors import UsageError
from dlrun.glossary.claims import Judged, Verdict, counts
from dlrun.glossary.entry import Entry, read_glossary
from dlrun.glossary.reading import LANGUAGES
from dlrun.glossary.record import OUTPUTS, PICTURE, RESULT, Record, read_record
from dlrun.glossary.words import SIGNS, WORDS
from dlrun.runs.files import write_json, write_text

DOCS = Path("docs/glossary")
RESULTS = "results.json"
ABOUT = {
    "en": "Written by `python -m dlrun.glossary.docs` from conf/glossary and a run of `dlrun glossary run all`; not to "
    "be edited here. Quoted lines are of the course's glossary. [Español](es.md) · [How to add a term](README.md)",
    "es": "Escrito por `python -m dlrun.glossary.docs` a partir de conf/glossary y de `dlrun glossary run all`; no se "
    "edita aquí. Las líneas citadas son del glosario del curso. [English](en.md) · [Cómo añadir un término](README.md)",
}


def write(outputs: Path = OUTPUTS, docs: Path = DOCS) -> None:
    """Write pages, pictures and the numbers that are in them. Raises: UsageError if an entry was never measured."""
    glossary = read_glossary()
    measured = [name for name in glossary if (outputs / name / RESULT).is_file()]
    known = known_records({name: entry for name, entry in glossary.items() if name not in measured}, docs)
    fresh = {name: read_record(glossary[name], outputs / name) for name in measured}
    records = {name: fresh.get(name) or known[name] for name in glossary}
    pictures = docs / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    for old in pictures.glob("*.png"):
        if old.stem not in glossary:
            old.unlink()
    for name in measured:
        shutil.copyfile(outputs / name / PICTURE, pictures / f"{name}.png")
    write_json(docs / RESULTS, {name: {"numbers": dict(r.numbers)} for name, r in records.items()})
    for lang in LANGUAGES:
        write_text(docs / f"{lang}.md", page(glossary, records, lang))


def known_records(glossary: Mapping[str, Entry], docs: Path = DOCS) -> dict[str, Record]:
    """The records that the pages in `docs` were written from. Raises: UsageError for an entry that is not in them."""
    file = docs / RESULTS
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    unknown = [name for name in glossary if name not in content]
    if unknown:
        raise UsageError(
            f"{file} has no numbers of {', '.join(unknown)}: dlrun glossary run {unknown[0]}, then python -m "
            "dlrun.glossary.docs."
        )
    return {name: Record.of(entry, content[name]["numbers"], 0.0) for name, entry in glossary.items()}


def page(glossary: Mapping[str, Entry], records: Mapping[str, Record], lang: str) -> str:
    """The Markdown of all entries in one language."""
    said = WORDS[lang]
    total = counts([verdict for record in records.values() for verdict in record.verdicts])
    summary = " · ".join(f"{number} {SIGNS[verdict]} {said[verdict]}" for verdict, number in total.items())
    rows = [f"| | | {' | '.join(SIGNS.values())} |", "|---|---|" + "---|" * len(SIGNS)]
    for name, entry in glossary.items():
        numbers = counts(records[name].verdicts).values()
        rows.append(f"| [{entry.term}](#{name}) | {entry.line[lang]} | {' | '.join(str(n or '') for n in numbers)} |")
    sections = [_section(entry, records[name], lang, glossary) for name, entry in glossary.items()]
    return "\n".join([f"# {said['title']}\n", f"{ABOUT[lang]}\n", f"{summary}\n", *rows, "", *sections])


def _section(entry: Entry, record: Record, lang: str, glossary: Mapping[str, Entry]) -> str:
    said = WORDS[lang]
    parts = [
        f'<a id="{entry.name}"></a>\n\n## {entry.term}\n',
        f"*{entry.line[lang]}*\n",
        f"{entry.definition[lang]}\n",
    ]
    if entry.aliases:
        parts.append(f"{said['also']}: {', '.join(entry.aliases)}\n")
    parts.append(f"```\n{entry.formula}\n```\n")
    if entry.hyperparameters:
        parts.append(f"| {said['hyperparameters']} | {said['typical']} | {said['meaning']} |\n|---|---|---|")
        parts += [f"| `{h.name}` | {h.typical} | {h.meaning[lang]} |" for h in entry.hyperparameters]
        parts.append("")
    commands = "\n".join([*entry.words, f"dlrun glossary run {entry.name}"])
    parts.append(f"```bash\n{commands}\n```\n")
    parts.append(f"![{entry.term}](pictures/{entry.name}.png)\n")
    parts.append(f"| {said['claim']} | {said['measured']} | {said['verdict']} |\n|---|---|---|")
    parts += [_row(item, lang) for item in record.judged]
    related = " · ".join(f"[{glossary[name].term}](#{name})" for name in entry.related)
    return "\n".join([*parts, "", f"{said['related']}: {related}\n"])


def _row(item: Judged, lang: str) -> str:
    said, claim = WORDS[lang], item.claim
    shown = item.shown(lang)
    if item.verdict is Verdict.CORRECTED:
        shown += f"<br>**{said['correction']}:** {claim.correction[lang]}"
    wanted = ", ".join(f"{c.name} {c.text}" for c in claim.holds_if)
    cells = (
        f"{claim.says[lang]} ({said['line']} {claim.line})",
        f"{shown}<br><sub>{said['wanted']}: {wanted}</sub>",
        f"{SIGNS[item.verdict]} {said[item.verdict]}",
    )
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


if __name__ == "__main__":
    write()
