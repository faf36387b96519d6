"""A pool that trains nothing: runs whose learning curves are a formula, two at a time, that leave what runs leave."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dlrun.config.compose import Composed
from dlrun.runs.directory import RunDirectory
from dlrun.sweeps.jobs import Ended, Evaluated, Event, Job, Progressed, Started
from dlrun.tuning.settings import settings
from dlrun.tuning.study import Asked, StudyFolder

STEPS = 10  # of the optimizer in an epoch


class KilledError(Exception):
    """The process was killed here."""


@dataclass
class FakePool:
    """See the module.

    Args:
        curve: the validation accuracy of an epoch, from 1; or the status with which the run ends there.
        epochs: of a run.
        die_after: validations after which the process that searches is killed.

    Attributes:
        started: the number of every job, as often as it was submitted.
        trained: every epoch that was computed, by job.
        pruned_at: the epoch at which a job was told to stop.
    """

    curve: Callable[[Mapping[str, Any], int], float | str]
    epochs: int = 4
    size: int = 2
    die_after: int | None = None
    started: list[int] = field(default_factory=list)
    trained: dict[int, list[int]] = field(default_factory=dict)
    pruned_at: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.waiting: deque[Job] = deque()
        self.stops: set[int] = set()
        self.validations = 0
        self.stopping = False

    def __enter__(self) -> FakePool:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, job: Job) -> None:
        self.started.append(job.number)
        self.waiting.append(job)

    def answer(self, job: Job, stop: bool) -> None:
        if stop:
            self.stops.add(job.number)

    def stop(self) -> None:
        self.stopping = True

    def events(self) -> Iterator[Event]:
        running: deque[Iterator[Event]] = deque()
        while running or self.waiting:
            while self.waiting and len(running) < self.size:
                running.append(self._run(self.waiting.popleft()))
            one = running.popleft()
            ended = False
            for event in one:
                yield event
                if isinstance(event, Evaluated | Ended):
                    ended = isinstance(event, Ended)
                    break
            if not ended:
                running.append(one)

    def _run(self, job: Job) -> Iterator[Event]:
        run = job.run
        run.path.mkdir(parents=True, exist_ok=True)
        run.config.write_text(json.dumps(job.composed.config))
        done = [record["val/accuracy"] for record in run.read_metrics()]
        done = done[: len(done) // 2 * 2]  # a checkpoint at every second epoch
        yield Started(job)
        for epoch in range(len(done) + 1, self.epochs + 1):
            value = self.curve(job.composed.config["params"], epoch)
            if isinstance(value, str):
                yield self._ended(job, value, epoch, done)
                return
            self.trained.setdefault(job.number, []).append(epoch)
            done.append(value)
            records = [{"step": STEPS * (i + 1), "epoch": i + 1, "val/accuracy": v} for i, v in enumerate(done)]
            run.metrics.write_text("".join(json.dumps(record) + "\n" for record in records))
            self.validations += 1
            if self.die_after is not None and self.validations > self.die_after:
                raise KilledError
            if job.ask:
                yield Progressed(job, STEPS * epoch, STEPS * self.epochs, {})
                yield Evaluated(job, STEPS * epoch, float(epoch), {"val/accuracy": value, "val/loss": -value})
                if self.stopping:
                    yield Ended(job, "interrupted", {"status": "interrupted"})
                    return
                if job.number in self.stops:
                    self.pruned_at[job.number] = epoch
                    yield self._ended(job, "pruned", epoch, done)
                    return
        yield self._ended(job, "completed", self.epochs, done)

    def _ended(self, job: Job, status: str, epoch: int, values: Sequence[float]) -> Ended:
        best = max(values, default=0.0)
        summary = {
            "status": status,
            "epochs": epoch,
            "seconds": float(epoch),
            "parameters": job.composed.config["params"].get("width", 1) * 100,
            "best": {"metrics": {"val/accuracy": best, "val/loss": -best}},
            "metrics": {"test/accuracy": best} if job.composed.config["trainer"]["test"] else {},
        }
        error = "RuntimeError: no" if status == "failed" else None
        job.run.summary.write_text(json.dumps(summary))
        return Ended(job, status, summary, error)


class FakeComposer:
    """Composes at once: a configuration that is its parameters."""

    config_dir = None
    groups = ("optimizer",)

    def of(self, params: Mapping[str, Any], extra: Sequence[str] = (), run_dir: Path | None = None) -> Composed:
        trainer = {"epochs": 4, "eval_every": "1ep", "early_stopping": {"restore_best": True}}
        trainer["test"] = "trainer.test=true" in extra
        config = {"params": dict(params), "trainer": trainer, "seed": 0}
        assert run_dir is not None
        return Composed(config, {}, run_dir)


def asked(folder: Path, **given: Any) -> tuple[Asked, StudyFolder]:
    """A search over `x` in [0, 1], unless `given` says otherwise, and its folder."""
    tune = {"space": {"x": {"low": 0.0, "high": 1.0}}, "objectives": ["val/accuracy"], "budget": {"trials": 8}}
    tune |= {"storage": "journal", "pruner": "none", "sampler": "random", **given}
    composer = FakeComposer()
    made = settings("fake", tune)
    base = composer.of({}, run_dir=folder)
    study = StudyFolder(folder)
    study.trials.mkdir(parents=True, exist_ok=True)
    return Asked(made, None, composer, base, None, ""), study  # type: ignore[arg-type]


def runs(folder: StudyFolder) -> dict[str, dict[str, Any]]:
    """The summary of every run in a study's folder."""
    paths = sorted(folder.trials.iterdir())
    return {path.name: RunDirectory(path).read_json(path / "summary.json") for path in paths}
