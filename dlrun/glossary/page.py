"""outputs/glossary/index.html: every term, its claims and its picture in one file that needs nothing else."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from dlrun.errors import UsageError
from dlrun.glossary.claims import Judged, Verdict, counts
from dlrun.glossary.entry import Entry
from dlrun.glossary.reading import LANGUAGES, Both
from dlrun.glossary.record import OUTPUTS, PICTURE, Record, read_record
from dlrun.glossary.words import SIGNS, WORDS
from dlrun.runs.files import write_text

CLASSES = {Verdict.HOLDS: "holds", Verdict.CORRECTED: "corrected", Verdict.FAILS: "fails", Verdict.UNSHOWN: "unshown"}
STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}
h1{font-size:1.6rem}
h2{margin:3rem 0 .2rem;border-top:1px solid #ccc;padding-top:1.5rem}
h3{font-size:1rem;margin:1.2rem 0 .3rem}
pre,code{font:14px/1.5 ui-monospace,monospace;background:#f4f4f2}
pre{padding:.6rem .9rem;overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.93rem}
td,th{text-align:left;vertical-align:top;padding:.4rem .6rem;
border-bottom:1px solid #ddd}
img{max-width:100%}
a{color:#0072B2}
.sub{color:#555}
nav a{margin-right:.9rem;white-space:nowrap}
.verdict{white-space:nowrap;font-weight:600}
.holds{color:#00664c}
.corrected{color:#0072B2}
.fails{color:#b34700}
.unshown{color:#7a3e9d}
#en:checked~* .es,#es:checked~* .en{display:none}
label{margin-right:1rem}
@media(prefers-color-scheme:dark){body{background:#16181a;color:#e6e6e6}
pre,code{background:#24272a}
img{background:#fff}
.holds{color:#4cc9a0}
.corrected,a{color:#6ab8ee}
.fails{color:#ff9a57}
.unshown{color:#c79be0}
.sub{color:#aaa}
td,th{border-color:#444}}

"""


def write_index(glossary: Mapping[str, Entry], lang: str, outputs: Path = OUTPUTS) -> Path:
    """Write the page of all that has been measured; terms that have not say how to. Returns: its path."""
    records = {name: record for name, entry in glossary.items() if (record := _known(entry, outputs / name))}
    path = outputs / "index.html"
    write_text(path, page(glossary, records, lang, outputs))
    return path


def _known(entry: Entry, folder: Path) -> Record | None:
    try:
        return read_record(entry, folder)
    except UsageError:
        return None


def page(glossary: Mapping[str, Entry], records: Mapping[str, Record], lang: str, outputs: Path) -> str:
    """The HTML; both languages are in it, `lang` is shown first."""
    verdicts = [verdict for record in records.values() for verdict in record.verdicts]
    total = " · ".join(chip(verdict, f"{number} ") for verdict, number in counts(verdicts).items())
    switch = "".join(
        f"<input type=radio name=lang id={each}{' checked' if each == lang else ''}><label for={each}>"
        f"{'English' if each == 'en' else 'español'}</label>"
        for each in LANGUAGES
    )
    links = " ".join(f'<a href="#{name}">{escape(entry.term)}</a>' for name, entry in glossary.items())
    sections = "".join(_section(entry, records.get(name), outputs / name, glossary) for name, entry in glossary.items())
    title = both({each: WORDS[each]["title"] for each in LANGUAGES})
    return (
        f"<!doctype html><html lang={lang}><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{escape(WORDS[lang]['title'])}</title><style>{STYLE}</style>{switch}<main><h1>{title}</h1>"
        f"<p>{total}</p><nav>{links}</nav>{sections}</main></html>\n"
    )


def _section(entry: Entry, record: Record | None, folder: Path, glossary: Mapping[str, Entry]) -> str:
    also = f"<p class=sub>{_word('also')}: {escape(', '.join(entry.aliases))}</p>" if entry.aliases else ""
    related = ", ".join(f'<a href="#{name}">{escape(glossary[name].term)}</a>' for name in entry.related)
    parts = [
        f"<section id={entry.name}><h2>{escape(entry.term)}</h2><p class=sub>{both(entry.line)}</p>",
        f"<p>{both(entry.definition)}</p>{also}<h3>{_word('formula')}</h3><pre>{escape(entry.formula)}</pre>",
        _hyperparameters(entry),
        f"<h3>{_word('in dlrun')}</h3><pre>{escape(chr(10).join(entry.words))}</pre>",
    ]
    if record is None:
        parts.append(f"<p>{_word('not measured')}: <code>dlrun glossary run {entry.name}</code></p>")
    else:
        picture = b64encode((folder / PICTURE).read_bytes()).decode()
        parts += [
            table(record.judged),
            f'<p><img alt="{escape(entry.term)}" src="data:image/png;base64,{picture}"></p>',
        ]
    return "".join(parts) + (f"<p>{_word('related')}: {related}</p>" if related else "") + "</section>"


def _hyperparameters(entry: Entry) -> str:
    if not entry.hyperparameters:
        return ""
    rows = "".join(
        f"<tr><td><code>{escape(h.name)}</code><td>{escape(h.typical)}<td>{both(h.meaning)}"
        for h in entry.hyperparameters
    )
    return (
        f"<h3>{_word('hyperparameters')}</h3><table><tr><th><th>{_word('typical')}<th>{_word('meaning')}{rows}</table>"
    )


def table(judged: Sequence[Judged], more: str = "") -> str:
    """Claims with what was measured and the verdict; `more` are rows after them."""
    head = "".join(f"<th>{_word(key)}" for key in ("claim", "measured", "verdict"))
    return f"<h3>{_word('claims')}</h3><table><tr>{head}{''.join(map(_row, judged))}{more}</table>"


def _row(item: Judged) -> str:
    claim = item.claim
    said = f"{both(claim.says)} <span class=sub>({_word('line')} {claim.line})</span>"
    shown = both({lang: item.shown(lang) for lang in LANGUAGES})
    wanted = ", ".join(f"{c.name} {c.text}" for c in claim.holds_if)
    shown += f"<br><small class=sub>{_word('wanted')} {escape(wanted)}</small>"
    verdict = chip(item.verdict)
    if item.verdict is Verdict.CORRECTED:
        shown += f"<br><b>{_word('correction')}:</b> {both(claim.correction)}"
    if not item.agrees:
        verdict += f"<br><span class=fails>{_word('changed')}{_word(claim.recorded)}</span>"
    return f"<tr><td>{said}<td>{shown}<td>{verdict}"


def chip(verdict: Verdict, before: str = "") -> str:
    """A verdict with its sign, in its colour."""
    return f"<span class='verdict {CLASSES[verdict]}'>{before}{SIGNS[verdict]} {_word(verdict)}</span>"


def _word(key: str) -> str:
    return both({lang: WORDS[lang][key] for lang in LANGUAGES})


def both(texts: Both) -> str:
    """A text in both languages, of which one is seen."""
    return "".join(f"<span class={lang}>{escape(texts[lang])}</span>" for lang in LANGUAGES)
