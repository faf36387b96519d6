"""The search: ask for parameters, train, tell how it went, until the budget is spent."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dlrun.config.identity import canonical
from dlrun.config.tuning import Pruner
from dlrun.errors import ConfigError, DlrunError
from dlrun.sweeps.jobs import Ended, Evaluated, Job, Progressed
from dlrun.tuning import trials
from dlrun.tuning.samplers import make_pruner, make_sampler
from dlrun.tuning.storage import (
    OUTCOME,
    Heartbeat,
    begun,
    is_dead,
    is_ours,
    is_result,
    outcome,
    said_simply,
    where,
)
from dlrun.tuning.study import Asked, StudyFolder
from dlrun.tuning.trials import ENDED, NotMeasuredError, Running

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

LOST = "dlrun:lost"  # attribute of a trial whose machine has gone; it is tried again under another number
MOST_REPEATS = 50  # in a row: there is nothing left to be found
FAILURES = 3  # at the very beginning, after which nothing better is to be expected


class SearchFailedError(DlrunError):
    """A search came to nothing: every trial failed."""

    exit_code = 1


class Workers(Protocol):
    """What trains: dlrun.sweeps.pool.Pool."""

    size: int

    @property
    def stopping(self) -> bool:
        """Whether nothing more is begun."""

    def submit(self, job: Job) -> None:
        """Train it when there is room."""

    def events(self) -> Any:
        """What happens, until nothing is left to be done."""

    def answer(self, job: Job, stop: bool) -> None:
        """Let a job that waits after its validation go on, or not."""


def open_study(asked: Asked, folder: StudyFolder, storage: BaseStorage) -> Study:
    """The study of Optuna's in a storage, begun or found, its defaults and grid waiting in it.

    Raises: UsageError if the storage cannot be used.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    place = where(asked.settings.storage, folder.path)
    with said_simply(place):
        study = optuna.create_study(
            storage=storage,
            study_name=f"dlrun_{asked.id}",
            directions=[objective.direction for objective in asked.settings.objectives],
            pruner=make_pruner(
                Pruner("none") if asked.settings.needs_complete else asked.settings.pruner, asked.validations
            ),
            sampler=make_sampler(asked.settings.sampler, 0, is_conditional=asked.settings.space.is_conditional),
            load_if_exists=True,
        )
        _enqueue(asked, study)
    return study


def _enqueue(asked: Asked, study: Study) -> None:
    """Let the defaults, and a grid's points in a random order, wait to be asked; those that do not yet."""
    known = study.get_trials(deepcopy=False)
    if asked.defaults is not None and not known:
        study.enqueue_trial(dict(asked.defaults))
    if asked.settings.sampler.name == "grid":
        there = {canonical(trial.system_attrs.get("fixed_params", trial.params)) for trial in known}
        grid = [p for p in asked.settings.space.grid(asked.settings.sampler.points) if p != asked.defaults]
        random.Random(asked.settings.sampler.seed).shuffle(grid)
        for params in grid:
            if canonical(dict(params)) not in there:
                study.enqueue_trial(dict(params))


class Search:
    """One sitting of a search.

    Args:
        ended: is called with each trial that has ended.
        seconds: of wall-clock time that earlier sittings took.
    """

    def __init__(
        self,
        asked: Asked,
        folder: StudyFolder,
        study: Study,
        ended: Callable[[FrozenTrial], None],
        seconds: float = 0.0,
    ) -> None:
        self.asked, self.settings, self.folder, self.study, self.ended = asked, asked.settings, folder, study, ended
        self.running: dict[int, Running] = {}
        self._before, self._began = seconds, time.monotonic()
        self.is_private = self.settings.storage in (None, "journal")
        self._repeats = 0
        over = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
        self._ended, self._failed = len(over), sum(outcome(trial).get("status") == trials.FAILED for trial in over)

    @property
    def seconds(self) -> float:
        """Of wall-clock time, over all sittings."""
        return self._before + time.monotonic() - self._began

    def go(self, workers: Workers) -> None:
        """Search until the budget is spent.

        Raises: ConfigError if the runs do not measure what is searched for; SearchFailedError if the first trials all
            fail; UsageError if the storage cannot be used any more.
        """
        with (
            said_simply(where(self.settings.storage, self.folder.path), opening=False),
            Heartbeat(self.study, self.running, needed=not self.is_private),
        ):
            try:
                self._take_up(workers)
                self._fill(workers)
                for event in workers.events():
                    self._handle(event, workers)
            except NotMeasuredError as error:
                name, known = error.args
                raise ConfigError(
                    f"tune.objectives: {name} is not measured here; a validation measures {', '.join(known)}."
                ) from None

    def _handle(self, event: Any, workers: Workers) -> None:
        match event:
            case Progressed(job=job):
                if job.number in self.running:
                    self.running[job.number].total_steps = event.total_steps
            case Evaluated(job=job):
                workers.answer(job, self._evaluated(self.running[job.number], event))
            case Ended(job=job):
                r = self.running.pop(job.number)
                self._end(r, event.status, event.summary, event.error, event.seconds)
                self._fill(workers)

    def _evaluated(self, r: Running, event: Evaluated) -> bool:
        prune = trials.evaluated(r, event.step, event.epoch, event.metrics, self.settings.objectives)
        if self._is_late() and event.step != r.total_steps:  # else all is paid for
            r.why = "time"
        elif prune:
            r.why = "pruned"
        return bool(r.why)

    def _end(
        self, r: Running, status: str, summary: Mapping[str, Any], error: str | None, seconds: float = 0.0
    ) -> None:
        if status == "interrupted":
            return  # still running, as far as the study knows: it goes on when the study does
        if self.study.get_trials(deepcopy=False)[r.number].state.is_finished():
            return  # another machine has taken this one for dead, and tries the same again
        needs_complete = self.settings.needs_complete
        trials.tell(
            *(self.study, r, status, summary, error, self.settings.objectives),
            needs_complete=needs_complete,
            seconds=seconds,
        )
        self._ended += 1
        self._failed += status not in ENDED
        self.ended(self.study.get_trials(deepcopy=False)[r.number])
        if self._ended == self._failed >= FAILURES:
            raise SearchFailedError(
                f"the first {self._failed} trials failed, the last with: {error or summary.get('error')}; see "
                f"{self.folder}/trials. Nothing more was tried."
            )

    def _take_up(self, workers: Workers) -> None:
        """Go on with what a sitting that was killed has begun."""
        from optuna.trial import Trial, TrialState

        for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if is_ours(frozen, self.folder.path, is_private=self.is_private):
                self._begin(Trial(self.study, frozen._trial_id), workers)

    def _give_up_lost(self) -> None:
        """What a machine has left that gives no sign of life is tried again under another number."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import Trial, TrialState

        for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if is_ours(frozen, self.folder.path, is_private=self.is_private) or not is_dead(frozen, time.time()):
                continue
            with suppress(UpdateFinishedTrialError):  # a third machine was quicker
                trial = Trial(self.study, frozen._trial_id)
                trial.set_user_attr(LOST, True)
                self.study.tell(trial, state=TrialState.FAIL)
                self.study.enqueue_trial(frozen.params)

    def _fill(self, workers: Workers) -> None:
        """Ask for trials as long as there are workers and budget."""
        if not self.is_private:
            self._give_up_lost()
        while not workers.stopping and len(self.running) < workers.size and not self._is_spent():
            known = [t for t in self.study.get_trials(deepcopy=False) if not _waits(t)]
            self.study.sampler = make_sampler(
                self.settings.sampler, len(known), is_conditional=self.settings.space.is_conditional
            )
            self._begin(self.study.ask(), workers)

    def _begin(self, trial: Any, workers: Workers) -> None:
        """Submit the run of a trial, from its start or where it stopped; or tell how it ended, if it has."""
        params = self.settings.space.suggest(trial)
        known = begun(trial).get("run")
        path = self.folder.path / known if known else self.folder.trials / trials.folder_name(trial.number, params)
        try:
            composed = self.asked.composer.of(params, run_dir=path)
        except ConfigError as error:
            self._refused(trial, params, path, error)
            return
        job = Job(trial.number, composed, trials.label(params), ask=True)
        if not known and self._is_told(trial, job):
            return
        r = Running(trial, params, composed)
        if known:
            trials.take_up(r, self.settings.objectives)
        else:
            trials.mark(trial, self.folder.path, path, job.id)
        summary = r.run.read_json(r.run.summary)
        self.running[r.number] = r
        if summary.get("status") in ENDED:  # it ended before that could be told
            self._end(self.running.pop(r.number), summary["status"], summary, None)
        else:
            workers.submit(job)

    def _is_told(self, trial: Any, job: Job) -> bool:
        """Whether the same run has been done before: it would come to the same, so that is told."""
        done = (t for t in self.study.get_trials(deepcopy=False) if begun(t).get("id") == job.id)
        same = next((t for t in done if is_result(t) or outcome(t).get("status") in ("pruned", "diverged")), None)
        if same is None:
            self._repeats = 0
            return False
        self._repeats += 1
        status = f"same as {same.number}" if is_result(same) else outcome(same)["status"]
        trial.set_user_attr(OUTCOME, outcome(same) | {"status": status, "seconds": 0.0, "run": begun(same)["run"]})
        if same.state.name == "COMPLETE":
            self.study.tell(trial, same.values)
        else:
            for step, value in same.intermediate_values.items():
                trial.report(value, step)
            self.study.tell(trial, state=same.state)
        self.ended(self.study.get_trials(deepcopy=False)[trial.number])
        return True

    def _refused(self, trial: Any, params: Any, path: Path, error: ConfigError) -> None:
        """A combination that cannot be: told as failed."""
        r = Running(trial, params, self.asked.base)
        trials.mark(trial, self.folder.path, path)
        self._end(r, trials.FAILED, {}, str(error).splitlines()[0])

    def _is_late(self) -> bool:
        return self.settings.seconds is not None and self.seconds >= self.settings.seconds

    def _is_spent(self) -> bool:
        """Whether no further trial may begin."""
        budget, all_trials = self.settings.budget, self.study.get_trials(deepcopy=False)
        known = [t for t in all_trials if not _waits(t) and LOST not in t.user_attrs]
        if (
            self._repeats >= MOST_REPEATS
            or self._is_late()
            or (budget.trials is not None and len(known) >= budget.trials)
        ):
            return True
        if self.settings.sampler.name == "grid" and not any(map(_waits, all_trials)):
            return True
        used = sum(float(outcome(t).get("seconds", 0.0)) for t in known)
        used += sum(time.monotonic() - r.began for r in self.running.values())
        return budget.device_hours is not None and used >= 3600 * budget.device_hours


def _waits(trial: FrozenTrial) -> bool:
    from optuna.trial import TrialState

    return trial.state == TrialState.WAITING
