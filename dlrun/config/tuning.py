"""The settings of a tune file, conf/tune/NAME.yaml, with their types, ranges and defaults."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from dlrun.contracts import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

SamplerName = Literal["tpe", "gp", "cmaes", "random", "qmc", "grid", "nsga2"]
PrunerName = Literal["median", "hyperband", "asha", "patient", "none"]


@dataclass(frozen=True)
class Sampler:
    """Where to look next. `startup` trials are drawn at random before a model of the results is made."""

    name: SamplerName = "tpe"
    seed: NonNegativeInt = 0
    startup: NonNegativeInt = 10
    points: PositiveInt = 5


@dataclass(frozen=True)
class Pruner:
    """Which trials stop early. Trials before `startup` and validations before `warmup` are left alone."""

    name: PrunerName = "median"
    startup: NonNegativeInt = 5
    warmup: NonNegativeInt = 0
    min_resource: PositiveInt = 1
    max_resource: PositiveInt | None = None
    reduction_factor: PositiveInt = 3
    patience: NonNegativeInt = 3
    min_delta: NonNegativeFloat = 0.0


@dataclass(frozen=True)
class Budget:
    """When to stop: whichever of the first three is reached first; and what one trial may take. null is no limit."""

    trials: PositiveInt | None = None
    time: PositiveFloat | str | None = None
    device_hours: PositiveFloat | None = None
    trial_time: PositiveFloat | str | None = None
    trial_memory: PositiveFloat | str | None = None


@dataclass(frozen=True)
class Tune:
    """What to search, where, and for how long."""

    space: Mapping[str, Any]
    objectives: Sequence[str]
    words: Sequence[str] = field(default_factory=list)
    sampler: SamplerName | Sampler = "tpe"
    pruner: PrunerName | Pruner = "median"
    budget: Budget = field(default_factory=Budget)
    storage: str | None = None
    seeds: NonNegativeInt = 5
    jobs: PositiveInt | None = None
    defaults_first: bool = True
    folder: str | None = None
