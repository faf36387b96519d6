"""dlrun reproduce: courses and papers, what they claim and print beside what comes out here."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlrun.commands.offers import folder_typed, options, overrides, positional
from dlrun.commands.verdicts import claims_table, columns, console, escaped, language, verdict_text
from dlrun.commands.words import config_folder, own_words, whole
from dlrun.errors import DlrunError, UsageError, did_you_mean
from dlrun.glossary.claims import counts, digits
from dlrun.glossary.words import SIGNS

if TYPE_CHECKING:
    from dlrun.reproduction.entry import Reproduction
    from dlrun.reproduction.jobs import Budget
    from dlrun.reproduction.record import Outcome

HELP = """\
dlrun reproduce [list]             what there is: source, minutes, what became of its claims
dlrun reproduce run ID [OPTIONS] [OVERRIDES]    train, measure, compare; a table, a picture and a page

  dlrun reproduce run slides                    all parts of the slides
  dlrun reproduce run slides_optimizers seeds=5
  dlrun reproduce run notebook long=true        with the runs of 4,000 epochs
  dlrun reproduce run notebook epochs=10        a changed experiment: what is printed for 200 epochs is not tested
  dlrun reproduce --config-dir mine run paper   mine/reproduce/paper.yaml

  seeds=N       of every arm, from 0; at least 2
  epochs=N      for trainer.epochs=N; that and other OVERRIDES, those of `dlrun train`, are for every run
  jobs=N        runs at a time
  lang=en|es    else what LANG says

The same command again goes on where it stopped, and repeats no run. Results: outputs/reproduce/ID/report.html (needs
no other file), result.json, plot.png, runs/. Exit code 1 if a verdict is not the one that is recorded.
"""

ACTIONS = ("list", "run")
FLAGS = ("--config-dir",)
OPTIONS = {"seeds": ("5",), "epochs": ("10",), "jobs": ("2",), "lang": ("en", "es")}


def run(arguments: list[str]) -> int:
    """List or run. Returns: the exit code. Raises: UsageError."""
    arguments, config_dir = config_folder(arguments, "reproduce")
    if not arguments or arguments[0] == "list":
        own, words = own_words(arguments[1:], ("lang",))
        if words:
            raise UsageError(f"dlrun reproduce list takes no '{words[0]}'; to run one: dlrun reproduce run ID.")
        lang = language(own.get("lang"))
        from dlrun.reproduction.entry import read_all

        return _list(read_all(config_dir), lang)
    action, *words = arguments
    if action not in ACTIONS:
        near = did_you_mean(action, ACTIONS) or f" To run one: dlrun reproduce run '{action}'."
        raise UsageError(f"dlrun reproduce does list or run ID, got '{action}'.{near}")
    option = next((word for word in words if word.startswith("-")), None)
    if option is not None:
        raise UsageError(f"unknown option '{option}' of dlrun reproduce; see `dlrun reproduce --help`.")
    if not words or "=" in words[0]:
        raise UsageError("dlrun reproduce run needs an ID; `dlrun reproduce list` shows them.")
    from dlrun.reproduction.entry import find, read_all

    known = read_all(config_dir)
    made = find(words[0], known)
    parts = [known[name] for name in made.parts] or [made]
    more = {name for part in parts for name in part.options}
    own, others = own_words(words[1:], (*OPTIONS, *more))
    stray = next((word for word in others if "=" not in word and not word.startswith("~")), None)
    if stray is not None:
        raise UsageError(f"dlrun reproduce run takes one ID and KEY=VALUE, got '{stray}' after '{words[0]}'.")
    epochs = whole(own, "epochs", 1)
    others += [f"trainer.epochs={epochs}"] if epochs else []
    lang, seeds, jobs = language(own.get("lang")), whole(own, "seeds", 2), whole(own, "jobs", 1)
    wanted = [name for name in more if name in own and _truth(name, own[name])]
    if others and not any(part.runs for part in parts):
        raise UsageError(f"{made.name} trains no runs, so it takes no '{others[0]}'.")
    return _run(made, parts, lambda part: _budget(part, seeds, others, wanted, jobs), lang)


def offer(typed: Sequence[str], current: str) -> Iterator[str]:
    """What may come next, at a tab."""
    words = [word for word in positional(typed) if "=" not in word]
    if not words:
        yield from ACTIONS
    elif len(words) == 1 and words[0] == "run":
        from dlrun.config.location import files_of

        yield from (path.stem for path in files_of("reproduce", folder_typed(typed)))
    elif words[0] == "run":
        from dlrun.reproduction.entry import read_all

        known = read_all(folder_typed(typed))
        own = known[words[1]].options if words[1] in known else {}
        yield from options(OPTIONS | dict.fromkeys(own, ("true", "false")), current)
        yield from overrides(typed, current)


def _truth(name: str, text: str) -> bool:
    if text not in ("true", "false"):
        raise UsageError(f"{name} must be true or false, got '{text}'.")
    return text == "true"


def _budget(part: Reproduction, seeds: int | None, words: Sequence[str], wanted: Sequence[str], jobs: Any) -> Budget:
    from dlrun.reproduction.jobs import Budget

    options = [name for name in wanted if name in part.options]
    return Budget(seeds, words if part.runs else (), options, jobs)


def _list(known: Mapping[str, Reproduction], lang: str) -> int:
    from dlrun.reproduction.record import OUTPUTS, last_outcome

    made = columns("", "", "min", "recorded", "last")
    inner = {part for each in known.values() for part in each.parts}
    for name, each in known.items():
        shown = f"  {name}" if name in inner else f"[bold]{name}[/]"
        last = last_outcome(each, OUTPUTS / name)
        text = escaped(each.title[lang]) + ("" if name in inner else f"\n{escaped(each.source)}; {each.hardware}")
        for option, more in each.options.items():
            text += f"\n{option}=true: {escaped(more.says[lang])}, {digits(more.minutes)} min"
        recorded = _signs(counts([claim.recorded for claim in each.claims]))
        made.add_row(shown, text, digits(each.minutes), recorded, _last(last))
    out = console()
    out.print(made)
    out.print("dlrun reproduce run ID")
    return 0


def _signs(numbers: Mapping[Any, int]) -> str:
    return " ".join(f"{number}{SIGNS[verdict]}" for verdict, number in numbers.items() if number)


def _last(outcome: Outcome | None) -> str:
    if outcome is None:
        return "—"
    from dlrun.reproduction.words import UNTESTED_SIGN

    untested = f" {len(outcome.untested)}{UNTESTED_SIGN}" if outcome.untested else ""
    own = "" if outcome.budget.is_full else f"\n{' '.join(outcome.budget.words)}"
    return _signs(counts(outcome.verdicts)) + untested + own


def _run(made: Reproduction, parts: Sequence[Reproduction], budget: Any, lang: str) -> int:
    from dlrun.reproduction.jobs import Interrupted, jobs_of

    began = time.perf_counter()
    jobs = {part.name: jobs_of(part, budget(part)) for part in parts}  # so every word is right before the first begins
    from dlrun.reproduction.measure import reproduce
    from dlrun.reproduction.page import write_report
    from dlrun.reproduction.record import OUTPUTS
    from dlrun.sweeps.table import view

    out = console()
    outcomes: list[Outcome] = []
    failed = 0
    for part in parts:
        try:
            outcomes.append(reproduce(part, jobs[part.name], OUTPUTS, budget(part), view()))
        except Interrupted:
            return 130
        except DlrunError as error:
            if len(parts) == 1:
                raise
            failed += 1
            out.print(f"[bold red]{part.name}[/] was not measured: {escaped(str(error))}", soft_wrap=True)
            continue
        _show(outcomes[-1], lang, out, OUTPUTS / part.name)
    if made.parts and outcomes:
        report = write_report(outcomes, OUTPUTS / made.name, lang)
        total = counts([verdict for outcome in outcomes for verdict in outcome.verdicts])
        summed = " · ".join(f"{number} {verdict_text(verdict, lang)}" for verdict, number in total.items())
        minutes = (time.perf_counter() - began) / 60
        out.print(f"[bold]{len(outcomes)} parts, {sum(total.values())} claims[/]: {summed}, {minutes:.1f} min")
        out.print(str(report), soft_wrap=True)
    return int(failed > 0 or not all(outcome.agrees for outcome in outcomes))


def _show(outcome: Outcome, lang: str, out: Any, folder: Path) -> None:
    from dlrun.reproduction.page import command, probability_text
    from dlrun.reproduction.record import REPORT
    from dlrun.reproduction.words import UNTESTED_SIGN, WORDS

    said, made = WORDS[lang], outcome.made
    out.print(f"\n[bold]{escaped(made.title[lang])}[/], {outcome.seconds:.1f} s, {folder / REPORT}", soft_wrap=True)
    if not outcome.budget.is_full:
        out.print(f"[bold]{said['own words']}[/] {escaped(' '.join(outcome.budget.words))}", soft_wrap=True)
    shown = [item for item in made.printed if f"{item.name}_mean" in outcome.numbers]
    if shown:
        table = columns("", "", said["printed"], said["ours"], "p")
        for item in shown:
            mean, std = (digits(outcome.numbers[f"{item.name}_{key}"]) for key in ("mean", "std"))
            p = probability_text(outcome, item.name)
            table.add_row(item.arm, item.metric, digits(item.value), f"{mean} ± {std}", p)
        out.print(table)
    made_table = claims_table(outcome.judged, lang)
    for claim, need in outcome.untested:
        text = f"{UNTESTED_SIGN} {said['not tested']}"
        made_table.add_row(escaped(claim.says[lang]), escaped(f"{said['it needs']} {need}"), text)
    out.print(made_table)
    for note in outcome.notes:
        out.print(f"- {escaped(note[lang])}")
    out.print(f"[bold]{escaped(command(outcome))}[/]", soft_wrap=True)
