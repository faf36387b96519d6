"""What workers are given to do, and what becomes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dlrun.config.compose import Composed
from dlrun.config.identity import run_id
from dlrun.runs.directory import RunDirectory

OUTPUT = "output.log"  # what a job's process has printed
GOOD = ("completed", "early_stopped", "pruned")
DONE = ("completed", "early_stopped", "diverged", "pruned")  # statuses that the same run would come to again


@dataclass
class Job:
    """One run that is to be done.

    Attributes:
        number: from 0, in the order in which the jobs were asked for.
        composed: its configuration; `run_dir` is its folder.
        label: what it differs in, such as "optimizer=sgd,seed=1".
        ask: whether it waits after each validation for whoever runs the pool to say whether it is to go on.
    """

    number: int
    composed: Composed
    label: str
    ask: bool = False

    @property
    def id(self) -> str:
        """The hash of its resolved configuration: jobs with equal ids are the same job."""
        return run_id(self.composed.config)

    @property
    def run(self) -> RunDirectory:
        return RunDirectory(self.composed.run_dir)

    @property
    def status(self) -> str:
        """As its folder says: a status of summary.json, "interrupted" if it has begun and no more, "waiting" if not."""
        status = self.run.read_json(self.run.summary).get("status")
        return str(status) if status else "interrupted" if self.run.config.exists() else "waiting"


@dataclass(frozen=True)
class Started:
    """A worker has taken up a job."""

    job: Job


@dataclass(frozen=True)
class Progressed:
    """Some steps of a job are done.

    Attributes:
        metrics: the monitored one, by name, at the last validation; empty before the first.
    """

    job: Job
    step: int
    total_steps: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class Evaluated:
    """A job with `ask` has been validated and waits for `Pool.answer`."""

    job: Job
    step: int
    epoch: float
    metrics: dict[str, float]


@dataclass(frozen=True)
class Ended:
    """A job has ended, in whatever way.

    Attributes:
        status: as in summary.json; "failed" too when its process died, "interrupted" when the pool was told to stop it.
        summary: as in summary.json; {} if there is none.
        error: what went wrong, one sentence; or None.
        seconds: since it was given to a worker.
    """

    job: Job
    status: str
    summary: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Apart:
    """Jobs that were to be trained as one stack are done one by one; nothing of them has been written yet."""

    jobs: Sequence[Job]
    why: str


Event = Apart | Started | Progressed | Evaluated | Ended


def score(summary: dict[str, Any]) -> tuple[str, float | None, bool]:
    """The monitored metric at its best: name, value (None if there is none), and whether higher is better."""
    name = str(summary.get("monitor", ""))
    value = ((summary.get("best") or {}).get("metrics") or {}).get(name)
    return name, float(value) if isinstance(value, int | float) else None, bool(summary.get("higher_is_better", True))
