"""The runs of a reproduction, through the sweep engine: what is done stays done, what was interrupted goes on."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dlrun.config import schema
from dlrun.config.compose import Composed, compose, settled
from dlrun.config.resolvers import folder_name
from dlrun.errors import UsageError
from dlrun.reproduction.entry import Reproduction
from dlrun.runs.directory import RunDirectory
from dlrun.sweeps.jobs import Job
from dlrun.sweeps.running import Result, View, run_sweep


@dataclass(frozen=True)
class Budget:
    """What the user wants otherwise than it is recorded.

    Attributes:
        seeds: how many, from 0; None: as recorded.
        words: for every run, after its own.
        options: of the reproduction, those that are wanted.
        jobs: at a time; None: as many as the machine has room for.
    """

    seeds: int | None = None
    words: Sequence[str] = ()
    options: Sequence[str] = ()
    jobs: int | None = None

    @property
    def is_full(self) -> bool:
        """Whether runs are as recorded; another number of seeds leaves them what they are."""
        return not self.words


def train_arms(
    made: Reproduction, jobs: Sequence[Job], folder: Path, budget: Budget, view: View
) -> dict[str, list[RunDirectory]]:
    """Train what is not trained yet. Returns: the runs of each arm, by seed; {} if nothing is trained for this one.

    Raises: Interrupted; UsageError if runs failed.
    """
    if not jobs:
        return {}
    settings = schema.Launcher(jobs=budget.jobs, fail_fast=True, stack=bool(made.runs and made.runs.stack))
    names = {job.id: f"{folder_name(job.label)}-{job.id}" for job in jobs}
    asked = {"reproduction": made.name, "seeds": budget.seeds, "with": list(budget.words)}
    result = run_sweep(jobs, folder, settings, asked, view, lambda job: names[job.id])
    return by_arm(jobs, result)


class Interrupted(Exception):  # noqa: N818 - as KeyboardInterrupt, it is no error
    """The user has stopped the runs; those that were done stay done."""


def jobs_of(made: Reproduction, budget: Budget) -> list[Job]:
    """Every arm with every seed, composed. Raises: ConfigError for a word that is wrong."""
    if made.runs is None:
        return []
    labelled = [
        (f"{arm},seed={seed}", composed)
        for arm, words in made.arms(budget.options).items()
        for seed, composed in enumerate(
            over_seeds([*words, *budget.words], budget.seeds or made.runs.seeds, made.config_dir)
        )
    ]
    return [Job(number, composed, label) for number, (label, composed) in enumerate(labelled)]


def over_seeds(words: Sequence[str], seeds: int, config_dir: str | None) -> list[Composed]:
    """The configuration of `words` with each seed from 0.

    Hydra needs a sixth of a second for one. Where the first and the last differ in their seed alone, nothing refers to
    it, and those between are like them. Raises: ConfigError.
    """

    def with_seed(seed: int) -> list[str]:
        return last_of_each_key([*words, f"seed={seed}"])

    if seeds < 3:
        return [compose(with_seed(seed), config_dir=config_dir) for seed in range(seeds)]
    first, last = (compose(with_seed(seed), config_dir=config_dir) for seed in (0, seeds - 1))
    if first.config | {"seed": seeds - 1} != last.config:
        between = [compose(with_seed(seed), config_dir=config_dir) for seed in range(1, seeds - 1)]
    else:
        between = [_seeded(first, seed, with_seed(seed)) for seed in range(1, seeds - 1)]
    return [first, *between, last]


def _seeded(composed: Composed, seed: int, words: list[str]) -> Composed:
    """The same with another seed, also where Hydra notes what was typed."""
    config = copy.deepcopy(composed.config) | {"seed": seed}
    name = re.sub(r"(?<![^,])seed=\d+", f"seed={seed}", composed.hydra["job"]["override_dirname"])
    hydra = {
        **composed.hydra,
        "job": {**composed.hydra["job"], "override_dirname": name},
        "overrides": {**composed.hydra["overrides"], "task": words},
    }
    return replace(settled(composed, config), hydra=hydra, overrides=words)


def last_of_each_key(words: Sequence[str]) -> list[str]:
    """The words without those whose key comes again: of a key the last counts."""
    last = {word.split("=", 1)[0].lstrip("+~"): word for word in words}
    return [word for word in words if last[word.split("=", 1)[0].lstrip("+~")] is word]


def by_arm(jobs: Sequence[Job], result: Result) -> dict[str, list[RunDirectory]]:
    """The folders of the jobs, arm by arm. Raises: Interrupted; UsageError if one has failed."""
    if result.status == "interrupted":
        raise Interrupted
    done = {job.id: job for job in result.jobs}
    failed = [job for job in result.jobs if result.ended.get(job.number, ("failed", {}))[0] == "failed"]
    if failed:
        why = next(iter(result.errors.values()), "a process ended")
        raise UsageError(f"{len(failed)} of {len(done)} runs failed or were stopped by one that did: {why}")
    arms: dict[str, list[RunDirectory]] = {}
    for job in jobs:
        arms.setdefault(job.label.rpartition(",seed=")[0], []).append(done[job.id].run)
    return arms


def seeds_of(made: Reproduction, budget: Budget) -> int:
    """How many seeds there are; 0 where nothing is trained."""
    return (budget.seeds or made.runs.seeds) if made.runs else 0


def machine_of(arms: Mapping[str, Sequence[RunDirectory]]) -> float:
    """Seconds that all the runs took together."""
    return sum(float(run.read_json(run.summary).get("seconds", 0)) for runs in arms.values() for run in runs)
