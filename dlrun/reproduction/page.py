"""report.html: one or more reproductions, their claims, numbers and pictures in one file that needs nothing else."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from html import escape
from pathlib import Path

from dlrun.glossary.claims import Claim, counts, digits
from dlrun.glossary.page import STYLE, both, chip, table
from dlrun.glossary.reading import LANGUAGES
from dlrun.reproduction.jobs import seeds_of
from dlrun.reproduction.record import PICTURE, REPORT, Outcome
from dlrun.reproduction.words import UNTESTED_SIGN, WORDS
from dlrun.runs.files import write_text


def write_report(outcomes: Sequence[Outcome], folder: Path, lang: str = "en") -> Path:
    """Write the page of some outcomes into a folder; their pictures are taken from it or from beside it.

    Returns: its path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / REPORT
    write_text(path, page(outcomes, folder.parent, lang))
    return path


def page(outcomes: Sequence[Outcome], outputs: Path, lang: str) -> str:
    """The HTML; both languages are in it, `lang` is shown first."""
    verdicts = [verdict for outcome in outcomes for verdict in outcome.verdicts]
    total = [chip(verdict, f"{number} ") for verdict, number in counts(verdicts).items()]
    untested = sum(len(outcome.untested) for outcome in outcomes)
    total += [f"{untested} {UNTESTED_SIGN} {_word('not tested')}"] if untested else []
    switch = "".join(
        f"<input type=radio name=lang id={each}{' checked' if each == lang else ''}><label for={each}>"
        f"{'English' if each == 'en' else 'español'}</label>"
        for each in LANGUAGES
    )
    sections = "".join(_section(outcome, outputs / outcome.made.name) for outcome in outcomes)
    return (
        f"<!doctype html><html lang={lang}><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{escape(outcomes[0].made.title[lang])}</title><style>{STYLE}</style>{switch}<main>"
        f"<p>{' · '.join(total)}</p>{sections}</main></html>\n"
    )


def _section(outcome: Outcome, folder: Path) -> str:
    made = outcome.made
    picture = b64encode((folder / PICTURE).read_bytes()).decode()
    rows = "".join(_untested(claim, need) for claim, need in outcome.untested)
    own = ""
    if not outcome.budget.is_full:
        words = escape(" ".join(outcome.budget.words))
        own = f"<p class=fails>{_word('own words')} <code>{words}</code></p>"
    notes = "".join(f"<li>{both(note)}" for note in outcome.notes)
    seeds = seeds_of(made, outcome.budget)
    taken = f"{digits(outcome.seconds)} s"
    if seeds:
        taken = f"{seeds} {_word('seeds')}, {taken}, {digits(outcome.run_seconds)} s {_word('in runs')}"
    return "".join(
        [
            f"<section id={made.name}><h2>{both(made.title)}</h2><p class=sub>{escape(made.source)}</p>",
            f"<p>{both(made.about)}</p>{own}",
            f"<p class=sub>{taken}</p>",
            f'<p><img alt="{escape(made.title["en"])}" src="data:image/png;base64,{picture}"></p>',
            _printed(outcome),
            table(outcome.judged, rows),
            f"<h3>{_word('notes')}</h3><ul>{notes}</ul>" if notes else "",
            f"<pre>{escape(command(outcome))}</pre></section>",
        ]
    )


def command(outcome: Outcome) -> str:
    """What to type for this outcome."""
    budget = outcome.budget
    seeds = [f"seeds={budget.seeds}"] if budget.seeds and outcome.made.runs else []
    options = [f"{name}=true" for name in budget.options]
    return " ".join(["dlrun reproduce run", outcome.made.name, *seeds, *options, *budget.words])


def _printed(outcome: Outcome) -> str:
    shown = [item for item in outcome.made.printed if f"{item.name}_mean" in outcome.numbers]
    if not shown:
        return ""
    rows = "".join(
        f"<tr><td>{escape(item.arm)}<td>{escape(item.metric)}<td>{digits(item.value)} "
        f"<span class=sub>({_word('line')} {item.line})</span><td>{digits(outcome.numbers[f'{item.name}_mean'])} ± "
        f"{digits(outcome.numbers[f'{item.name}_std'])}<td>{probability_text(outcome, item.name)}"
        for item in shown
    )
    head = "".join(f"<th>{text}" for text in ("", "", _word("printed"), _word("ours"), "p"))
    return f"<table><tr>{head}{rows}</table><p class=sub>{_word('what p is')}</p>"


def probability_text(outcome: Outcome, name: str) -> str:
    """p of a printed number; of a changed experiment it says nothing, so a sign in its place."""
    return digits(outcome.numbers[f"{name}_p"]) if outcome.budget.is_full else UNTESTED_SIGN


def _untested(claim: Claim, need: str) -> str:
    said = f"{both(claim.says)} <span class=sub>({_word('line')} {claim.line})</span>"
    return f"<tr><td>{said}<td>{_word('it needs')} <code>{escape(need)}</code><td>{UNTESTED_SIGN} {_word('not tested')}"


def _word(key: str) -> str:
    return both({lang: WORDS[lang][key] for lang in LANGUAGES})
