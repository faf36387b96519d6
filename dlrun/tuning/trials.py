"""One trial: an Optuna trial and the run that finds out its value."""

from __future__ import annotations

import math
import re
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlrun.config.compose import Composed
from dlrun.runs.directory import RunDirectory
from dlrun.tuning.objectives import COSTS, Objective, measured_names, values
from dlrun.tuning.space import Value
from dlrun.tuning.storage import BEGUN, OUTCOME, is_result, owner

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import Trial

ENDED = ("completed", "early_stopped", "pruned", "diverged")
FAILED = "failed"


@dataclass
class Running:
    """A trial under way.

    Attributes:
        steps: of the optimizer, at which it was validated; their count is what pruners are told.
        why: why it is to stop, once that is decided: "pruned" or "time".
        began: when, on the monotonic clock.
    """

    trial: Trial
    params: dict[str, Value]
    composed: Composed
    steps: set[int] = field(default_factory=set)
    total_steps: int | None = None
    epoch: float = 0.0
    why: str = ""
    began: float = field(default_factory=time.monotonic)

    @property
    def number(self) -> int:
        return int(self.trial.number)

    @property
    def run(self) -> RunDirectory:
        return RunDirectory(self.composed.run_dir)


class NotMeasuredError(Exception):
    """A run does not measure what the search is for."""


def label(params: Mapping[str, Value], digits: int = 3) -> str:
    """The parameters in short: "lr=0.0123,dropout=0.2"; a group keeps its name."""
    names = [key.rpartition(".")[2] for key in params]
    parts = []
    for key, name in zip(params, names, strict=True):
        value = params[key]
        text = f"{value:.{digits}g}" if isinstance(value, float) else str(value)
        parts.append(f"{key if names.count(name) > 1 else name}={text}")
    return ",".join(parts)


def folder_name(number: int, params: Mapping[str, Value]) -> str:
    """Of a trial's run: a number to sort by and what it tries, whatever characters are in that."""
    plain = re.sub(r"[\[\]{}' ]", "", label(params))
    return f"{number:03}_{re.sub(r'[^A-Za-z0-9_=,.+-]+', '-', plain)}"[:120].rstrip("-,.")


def mark(trial: Trial, folder: Path, run: Path, run_id: str = "") -> None:
    """Write down who runs the trial, what and where, before it begins."""
    path = str(run.relative_to(folder)) if run.is_relative_to(folder) else str(run)
    trial.set_user_attr(BEGUN, {**owner(folder), "run": path, "id": run_id})


def evaluated(r: Running, step: int, epoch: float, metrics: Mapping[str, Any], objectives: Sequence[Objective]) -> bool:
    """Report a validation. Returns: whether the trial should be pruned.

    Raises: NotMeasuredError if what the search is for is not measured.
    """
    r.steps.add(step)
    r.epoch = epoch
    for objective in objectives:
        if objective.name not in COSTS and objective.name not in metrics:
            raise NotMeasuredError(objective.name, measured_names(metrics))
    if len(objectives) > 1 or objectives[0].name in COSTS:
        return False  # Optuna prunes by one objective only, and a cost tells nothing on the way
    report(r, float(metrics[objectives[0].name]))
    if step == r.total_steps:  # all is paid for: its value is worth more than its end
        return False
    return bool(r.trial.should_prune())


def report(r: Running, value: float) -> None:
    """Tell the value at the validation that was the last. One that a resumed run repeats is known already."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "already reported"
        r.trial.report(value, len(r.steps))


def tell(
    study: Study,
    r: Running,
    status: str,
    summary: Mapping[str, Any],
    error: str | None,
    objectives: Sequence[Objective],
    *,
    needs_complete: bool = False,
    seconds: float = 0.0,
) -> list[float] | None:
    """Tell how a trial ended. Returns: its values, None if it has none that count.

    A diverged trial is told as pruned, so that the search keeps away from there; or with the worst values known, if the
    search learns from complete trials alone. One that failed says nothing about its parameters.

    Args:
        seconds: that it took, if its run could not say.

    Raises: NotMeasuredError if what the search is for was not measured.
    """
    from optuna.trial import TrialState

    found: list[float] | None = None
    if status in ("completed", "early_stopped"):
        found = _values(r, summary, objectives)
        if any(math.isnan(value) for value in found):
            found, status = None, "diverged"
    noted = {
        "status": "out_of_time" if status == "pruned" and r.why == "time" else status,
        "epochs": summary.get("epochs"),
        "seconds": summary.get("seconds", round(seconds, 2)),
        "loss": ((summary.get("best") or {}).get("metrics") or {}).get("val/loss"),
        "error": str(error or summary.get("error") or "")[:500],
    }
    r.trial.set_user_attr(OUTCOME, {key: value for key, value in noted.items() if value not in (None, "")})
    if found is not None:
        study.tell(r.trial, found)
    elif status == "diverged" and needs_complete and (bad := _worst(study, objectives)):
        study.tell(r.trial, bad)
    elif status in ("pruned", "diverged") and len(objectives) == 1:
        if status == "diverged" and objectives[0].name not in COSTS:
            r.steps.add(max(r.steps, default=0) + 1)
            report(r, math.nan)
        study.tell(r.trial, state=TrialState.PRUNED)
    else:
        study.tell(r.trial, state=TrialState.FAIL)
    return found


def _worst(study: Study, objectives: Sequence[Objective]) -> list[float]:
    """The worst value of each objective so far; none if there is no complete trial."""
    complete = [trial.values for trial in study.get_trials(deepcopy=False) if is_result(trial)]
    return [
        min(column) if objective.higher_is_better else max(column)
        for objective, column in zip(objectives, zip(*complete, strict=True), strict=False)
    ]


def _values(r: Running, summary: Mapping[str, Any], objectives: Sequence[Objective]) -> list[float]:
    stopping = r.composed.config["trainer"].get("early_stopping") or {}
    records = r.run.read_metrics()
    last: dict[str, Any] = next((record for record in reversed(records) if measured_names(record)), {})
    try:
        return values(objectives, summary, last, bool(stopping.get("restore_best", False)))
    except KeyError as error:
        raise NotMeasuredError(error.args[0], measured_names(last)) from None


def take_up(r: Running, objectives: Sequence[Objective]) -> None:
    """Take note of the validations that the run of a trial has recorded, and report those that are not yet."""
    records = {int(record["step"]): record for record in r.run.read_metrics() if measured_names(record)}
    name = objectives[0].name
    for step in sorted(records):
        r.steps.add(step)
        if len(objectives) == 1 and name not in COSTS and records[step].get(name) is not None:
            report(r, float(records[step][name]))
