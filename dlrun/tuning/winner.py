"""After the search: the best trials, and the winner trained again from several seeds and then tested."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlrun.runs.directory import RunDirectory
from dlrun.sweeps.jobs import Ended, Job
from dlrun.tuning.objectives import Objective
from dlrun.tuning.search import Workers
from dlrun.tuning.storage import begun, is_result, outcome, owner
from dlrun.tuning.study import Asked, StudyFolder

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

DONE = ("completed", "early_stopped")


def best_trials(study: Study, objectives: Sequence[Objective]) -> list[FrozenTrial]:
    """The best trial; of several objectives the Pareto front, the best in the first objective first."""
    complete = [trial for trial in study.get_trials(deepcopy=False) if is_result(trial)]
    if not complete:
        return []
    if len(objectives) > 1:
        front = [trial for trial in study.best_trials if is_result(trial)]
        return sorted(front, key=lambda trial: rank(trial, objectives[0]))
    return [min(complete, key=lambda trial: rank(trial, objectives[0]))]


def rank(trial: FrozenTrial, objective: Objective) -> tuple[float, float, int]:
    """By which trials are sorted, the best first; of equal ones that with the lower loss, then the earlier."""
    sign = -1 if objective.higher_is_better else 1
    return sign * trial.values[0], float(outcome(trial).get("loss", 0.0)), trial.number


def described(trial: FrozenTrial, objectives: Sequence[Objective]) -> dict[str, Any]:
    """A trial for tune.json."""
    return {
        "number": trial.number,
        "values": {o.name: value for o, value in zip(objectives, trial.values, strict=True)},
        "params": dict(trial.params),
        "run": outcome(trial).get("run") or begun(trial).get("run"),
        "host": begun(trial).get("host"),
        "folder": begun(trial).get("folder"),
    }


def retrain(
    asked: Asked,
    folder: StudyFolder,
    best: FrozenTrial,
    workers: Workers,
    ended: Callable[[str, Mapping[str, Any]], None],
) -> dict[str, Any]:
    """Train the best configuration from several seeds and test each once; what has been done before stays.

    Args:
        ended: is called with the label and the summary of each run.

    Returns: for each test metric its values, by seed, their mean and standard deviation (n - 1).
    """
    jobs = final_jobs(asked, folder, best)
    summaries: dict[int, dict[str, Any]] = {}
    for job in jobs:
        summary = job.run.read_json(job.run.summary)
        if summary.get("status") in DONE:
            summaries[job.number] = summary
        elif summary.get("status") != "diverged":
            workers.submit(job)
    for event in workers.events():
        if isinstance(event, Ended):
            ended(event.job.label, event.summary)
            if event.status in DONE:
                summaries[event.job.number] = dict(event.summary)
    return {
        "trial": best.number,
        "runs": [str(job.run.path.relative_to(folder.path)) for job in jobs],
        "asked": len(jobs),
        "finished": len(summaries),
        "metrics": _gathered([summaries[number].get("metrics", {}) for number in sorted(summaries)]),
    }


def final_jobs(asked: Asked, folder: StudyFolder, best: FrozenTrial) -> list[Job]:
    """The winner's configuration, once for each seed, tested at the end."""
    first = int(asked.base.config.get("seed", 0))
    params = {key: value for key, value in best.params.items() if key != "seed"}
    jobs = []
    for number in range(asked.settings.seeds):
        seed = first + number
        path = folder.final / f"trial_{best.number}_seed_{seed}"
        composed = asked.composer.of(params, ["trainer.test=true", f"seed={seed}"], run_dir=path)
        jobs.append(Job(number, composed, f"seed={seed}"))
    return jobs


def _gathered(metrics: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    names = [name for name in (metrics[0] if metrics else {}) if all(name in each for each in metrics)]
    found = {}
    for name in names:
        values = [float(each[name]) for each in metrics]
        spread = statistics.stdev(values) if len(values) > 1 else None
        found[name] = {"mean": statistics.fmean(values), "std": spread, "values": values}
    return found


def run_of(folder: StudyFolder, trial: FrozenTrial) -> str:
    """Where the run of a trial is: a path, behind the name of its machine if that is another."""
    run, known = outcome(trial).get("run") or begun(trial)["run"], begun(trial)
    mine = owner(folder.path)
    if known.get("host", mine["host"]) != mine["host"]:
        return f"{known['host']}:{known['folder']}/{run}"
    return str(RunDirectory(Path(known.get("folder", mine["folder"])) / run))
