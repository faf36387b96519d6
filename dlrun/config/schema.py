"""The settings that are dlrun's own, with their types, ranges and defaults. conf/ repeats the defaults for people to
read; a test holds the two together. Parts (a model, an optimizer) are described by their own signatures instead."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from dlrun.contracts import (
    Duration,
    Fraction,
    Interval,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Probability,
)
from dlrun.optim.rules import ParameterGroups

Threads = Annotated[int, Interval(1, 1024)]
Percentile = Annotated[float, Interval(0, 100, open_low=True)]
Score = Literal[
    "top2",
    "top5",
    "precision_macro",
    "recall_macro",
    "f1_macro",
    "precision_micro",
    "recall_micro",
    "f1_micro",
    "auroc",
    "average_precision",
    "nll",
    "brier",
    "ece",
]  # dlrun/metrics/scores.py


@dataclass(frozen=True)
class Clip:
    """Gradient clipping; null switches one off."""

    norm: PositiveFloat | None = None
    value: PositiveFloat | None = None
    per_parameter: PositiveFloat | None = None
    agc: PositiveFloat | None = None
    percentile: Percentile | None = None
    history: PositiveInt = 1000


@dataclass(frozen=True)
class GradientNoise:
    """Gaussian noise of variance eta / (1 + step)^gamma on every gradient."""

    eta: PositiveFloat = 0.01
    gamma: NonNegativeFloat = 0.55


@dataclass(frozen=True)
class Sam:
    """Sharpness-aware minimisation within `rho` of the weights."""

    rho: PositiveFloat = 0.05
    adaptive: bool = False


@dataclass(frozen=True)
class Lookahead:
    """Slow weights that go the part `alpha` of the way that `steps` updates have gone."""

    steps: PositiveInt = 5
    alpha: Annotated[float, Interval(0, 1, open_low=True)] = 0.5


@dataclass(frozen=True)
class Swa:
    """The equal average of the weights, `every` so often from `start` on; from there the learning rate is `lr`."""

    start: Duration = "75%"
    every: Duration = "1ep"
    lr: PositiveFloat | None = None


@dataclass(frozen=True)
class Penalty:
    """Added to the loss: l1 · Σ|w| + l2/2 · Σw² over the weights that are decayed."""

    l1: NonNegativeFloat = 0.0
    l2: NonNegativeFloat = 0.0


@dataclass(frozen=True)
class Distill:
    """Learn from the best weights of the run in the folder `run`: alpha · loss + (1 - alpha) · T² · KL."""

    run: str
    alpha: Fraction = 0.5
    temperature: PositiveFloat = 4.0


@dataclass(frozen=True)
class EarlyStopping:
    """Stop after `patience` evaluations without an improvement larger than `min_delta` of `monitor`."""

    patience: PositiveInt = 10
    min_delta: NonNegativeFloat = 0.0
    monitor: str | None = None
    restore_best: bool = True


@dataclass(frozen=True)
class Trainer:
    """How to train. Lengths (`Duration`) are steps, '2ep' or a fraction of the run."""

    epochs: PositiveInt = 30
    max_steps: PositiveInt | None = None
    device: str = "auto"
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = "auto"
    compile: bool = False
    graph: bool | Literal["auto"] = "auto"
    threads: Threads | None = None
    accumulate: PositiveInt = 1
    eval_every: Duration = "1ep"
    log_every: PositiveInt = 50
    metrics: Sequence[Score] = field(default_factory=list)
    tta: Literal["flip", "flip_translate"] | None = None
    checkpoint_every: Duration | None = None
    test: bool = True
    deterministic: bool = False
    clip: Clip = field(default_factory=Clip)
    gradient_noise: GradientNoise | None = None
    sam: Sam | None = None
    lookahead: Lookahead | None = None
    ema: Probability | None = None
    swa: Swa | None = None
    penalty: Penalty | None = None
    distill: Distill | None = None
    freeze: dict[str, Literal["always"] | Duration] | None = None
    checkpoint_activations: bool = False
    early_stopping: EarlyStopping | None = field(default_factory=EarlyStopping)


@dataclass(frozen=True)
class Data:
    """What every data set understands beside its factory's own arguments."""

    name: str | None = None
    batch_size: Literal["auto"] | PositiveInt = 128
    eval_batch_size: PositiveInt | None = None
    val_fraction: Annotated[float, Interval(0, 1, open_low=True, open_high=True)] = 0.1
    test_fraction: Annotated[float, Interval(0, 1, open_low=True, open_high=True)] = 0.2
    val_from: Literal["train", "test"] = "train"
    split: Literal["stratified", "random", "coin_flips"] = "stratified"
    split_seed: NonNegativeInt = 0
    folds: Annotated[int, Interval(2)] | None = None
    fold: NonNegativeInt = 0
    limit: PositiveInt | PositiveFloat | None = None
    label_noise: Fraction = 0.0
    imbalance: PositiveFloat | dict[str, Fraction] | None = None
    bootstrap: NonNegativeInt | None = None
    normalize: bool = True
    reconstruct: bool = False
    order: Literal["shuffled", "bucketed", "contiguous", "curriculum"] = "shuffled"
    curriculum_epochs: PositiveInt = 5
    drop_last: bool = False
    alternating_flip: bool = False
    loader: Literal["auto", "resident", "streaming"] = "auto"
    workers: NonNegativeInt = 2

    @property
    def chosen_batch_size(self) -> int:
        """`batch_size` as the number it is once a run is assembled."""
        assert isinstance(self.batch_size, int)
        return self.batch_size


@dataclass(frozen=True)
class Optimizer:
    """What every optimizer understands; the ranges hold for any class that uses these names."""

    param_groups: ParameterGroups | None = None
    lr: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 0.0
    momentum: Probability = 0.0
    betas: Sequence[Probability] = (0.9, 0.999)
    alpha: Fraction = 0.99
    rho: Probability = 0.9


@dataclass(frozen=True)
class Scheduler:
    """What every schedule understands: its unit and the warm-up before it."""

    interval: Literal["step", "epoch", "metric"] = "step"
    warmup: Duration = 0


@dataclass(frozen=True)
class Sweeper:
    """Which jobs a sweep has: hydra/sweeper=dlrun."""

    sampler: Literal["grid", "random", "sobol", "latin"] = "grid"
    samples: PositiveInt | None = None
    zip: Sequence[str] = field(default_factory=list)
    seed: NonNegativeInt = 0
    max_jobs: PositiveInt = 1000
    params: dict[str, str | int | float | bool] | None = None


@dataclass(frozen=True)
class Launcher:
    """How the jobs of a sweep are run: hydra/launcher=dlrun."""

    jobs: PositiveInt | None = None
    per_device: PositiveInt | Literal["auto"] = 1
    timeout: PositiveFloat | str | None = None
    memory: PositiveFloat | str | None = None
    retries: NonNegativeInt = 0
    fail_fast: bool = False
    stack: bool | Literal["auto"] = "auto"
    fresh: bool = False
