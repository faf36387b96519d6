"""One sitting of `dlrun tune`: search until the budget is spent, train the winner again, leave pictures and a table."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlrun.config.identity import run_id
from dlrun.sweeps.devices import Leases
from dlrun.sweeps.interruption import Interrupted
from dlrun.sweeps.pool import Pool
from dlrun.tuning.recipe import command, write_experiment
from dlrun.tuning.search import Search, SearchFailedError, open_study
from dlrun.tuning.settings import read_settings
from dlrun.tuning.show import Teller, kind
from dlrun.tuning.storage import closed_afterwards, open_storage, require, where
from dlrun.tuning.study import Asked, StudyFolder, ask, ask_again, begin, find, is_study
from dlrun.tuning.winner import best_trials, described, retrain, run_of

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

INTERRUPTED = 128 + signal.SIGINT
PoolMaker = Callable[[Asked], AbstractContextManager[Any]]


def tune(words: Sequence[str], config_dir: str | None, make_pool: PoolMaker | None = None) -> int:
    """Begin the study that the words ask for, or go on with it. Returns: the exit code.

    Raises: DlrunError before anything is written if something about it is wrong.
    """
    asked = ask(read_settings(words, config_dir), config_dir)
    require()
    options = ["--config-dir", config_dir] if config_dir else []
    folder = find(asked)
    shared = asked.settings.storage not in (None, "journal")
    storage = open_storage(where(asked.settings.storage, folder.path)) if shared else None  # before anything is written
    if not is_study(folder.path):
        begin(folder, asked, shlex.join(["dlrun", "tune", *options, *words]))
    return sit(asked, folder, make_pool or pool_for, storage)


def resume_study(folder: Path, make_pool: PoolMaker | None = None) -> int:
    """Go on with the study in a folder, as it was asked. Returns: the exit code."""
    require()
    study = StudyFolder(folder)
    return sit(ask_again(study), study, make_pool or pool_for)


def pool_for(asked: Asked) -> AbstractContextManager[Any]:
    """The workers for a search's trials."""
    return Pool(Leases([asked.base.config], asked.settings.jobs), asked.settings.limits)


def sit(asked: Asked, folder: StudyFolder, make_pool: PoolMaker, storage: BaseStorage | None = None) -> int:
    """Search, retrain, draw, tell. Returns: the exit code."""
    settings = asked.settings
    with folder.locked(), closed_afterwards(storage or open_storage(where(settings.storage, folder.path))) as storage:
        content = folder.read() | {"tune": settings.given}
        study = open_study(asked, folder, storage)
        teller = Teller(settings.objectives, settings.budget.trials)
        _greet(asked, folder, study, teller)

        def ended(trial: FrozenTrial) -> None:
            teller.ended(trial)
            _record(folder, content, study, asked, search.seconds)

        search = Search(asked, folder, study, ended, float(content.get("seconds", 0.0)))
        with make_pool(asked) as pool, Interrupted(pool) as interrupted:
            search.go(pool)
            best = best_trials(study, settings.objectives)
            content["status"] = "interrupted" if interrupted.count else "searched"
            _record(folder, content, study, asked, search.seconds)
            if best and settings.seeds and not interrupted.count:
                teller.say(f"Trial {best[0].number} is trained again from {settings.seeds} seeds and tested:")
                content["test"] = retrain(
                    asked, folder, best[0], pool, lambda label, summary: teller.say(f"  {_line(label, summary)}")
                )
        if interrupted.count:
            folder.write(content | {"status": "interrupted"})
            teller.say(f"Interrupted; go on with: dlrun resume {folder}")
            return INTERRUPTED
        if not best:
            folder.write(content | {"status": "failed"})
            raise SearchFailedError(f"no trial came to its end, so there is no best one; see {folder}/trials.")
        lines = _leave(asked, folder, study, best)
        folder.write(content | {"status": "completed"})
        teller.finish(_ended(study), best, content.get("test") or {}, lines)
    return 0


def _greet(asked: Asked, folder: StudyFolder, study: Study, teller: Teller) -> None:
    s = asked.settings
    teller.say(f"tune {s.name}: {len(s.space.dimensions)} keys, {s.sampler.name}, pruner {s.pruner.name}, {folder}")
    if s.needs_complete and s.pruner.name != "none":
        why = (
            "as pruners compare one number"
            if len(s.objectives) > 1
            else f"as {s.sampler.name} learns from whole trials"
        )
        teller.say(f"Nothing is pruned, {why}.")
    if asked.note:
        teller.say(asked.note)
    known = _ended(study)
    teller.known(known)
    if known:
        best = f", best {teller.best.values[0]:.4g}" if teller.best else ""
        teller.say(f"{len(known)} trials are done already{best}.")


def _ended(study: Study) -> list[FrozenTrial]:
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]


def _record(folder: StudyFolder, content: dict[str, Any], study: Study, asked: Asked, seconds: float) -> None:
    """Bring tune.json up to date."""
    trials, objectives = _ended(study), asked.settings.objectives
    counts: dict[str, int] = {}
    for trial in trials:
        name = kind(trial)
        counts[name] = counts.get(name, 0) + 1
    best = best_trials(study, objectives)
    content |= {
        "seconds": round(seconds, 1),
        "objectives": [f"{o.direction} {o.name}" for o in objectives],
        "trials": {"ended": len(trials), **counts},
        "best": [described(trial, objectives) for trial in best],
    }
    folder.write(content)


def _leave(asked: Asked, folder: StudyFolder, study: Study, best: Sequence[FrozenTrial]) -> list[str]:
    """Write the winner's recipe and the pictures. Returns: lines that say where they are."""
    run = run_of(folder, best[0])
    lines = [f"search   {folder}", f"best     {run}"]
    composed = asked.composer.of(best[0].params, run_dir=folder.path)
    shown = os.path.relpath(folder.best.parents[1])
    again = command(folder.best, asked.config_dir, shown)
    reached = ", ".join(f"{o.name} {v:.5g}" for o, v in zip(asked.settings.objectives, best[0].values, strict=True))
    head = [
        again,
        f"{reached}: the best of {len(_ended(study))} trials of `{folder.read()['command']}`.",
        f"With trainer.test=false it is trial {best[0].number}, run {run_id(composed.config)}.",
    ]
    if write_experiment(folder.best, asked.composer, composed, head, list(best[0].params)):
        lines.append(f"again    {again}")
    else:
        lines.append(f"again    dlrun train --config-path {run} --config-name config trainer.test=true")
    from dlrun.tuning.plots import draw_study  # matplotlib takes half a second, and is needed at the end only

    pictures = draw_study(study, asked.settings.objectives, asked.settings.space, best[0], folder.plots)
    if pictures:
        lines.append(f"plots    {os.path.relpath(folder.plots)}/ {', '.join(path.name for path in pictures)}")
    return lines


def _line(label: str, summary: Any) -> str:
    metrics = "  ".join(f"{name} {value:.4f}" for name, value in (summary.get("metrics") or {}).items())
    return f"{label}  {summary.get('status', 'failed')}  {metrics}"
