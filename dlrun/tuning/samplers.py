"""Optuna's samplers and pruners, by the names and settings of a tune file."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from dlrun.config.tuning import Pruner, Sampler

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler


def make_sampler(settings: Sampler, trial: int, *, is_conditional: bool) -> BaseSampler:
    """The sampler for one trial.

    What it draws depends on the seed, the trial's number and the results so far alone, so that a search that was killed
    and goes on does not draw again what it has drawn before.

    Args:
        trial: the number of the trial that is to be drawn.
        is_conditional: whether some keys exist under conditions only. TPE then models each set of keys that occur
            together; GP and CMA-ES model the keys that all trials have and draw the others at random.
    """
    from optuna import samplers
    from optuna.exceptions import ExperimentalWarning

    seed = int(np.random.SeedSequence([settings.seed, trial]).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        others = samplers.RandomSampler(seed=seed)
        match settings.name:
            case "tpe":
                return samplers.TPESampler(
                    seed=seed,
                    n_startup_trials=settings.startup,
                    multivariate=True,
                    group=is_conditional,
                    constant_liar=True,  # or trials asked at the same time would be near each other
                )
            case "gp":
                return samplers.GPSampler(
                    seed=seed,
                    n_startup_trials=settings.startup,
                    independent_sampler=others,
                    warn_independent_sampling=False,
                )
            case "cmaes":
                return samplers.CmaEsSampler(
                    seed=seed,
                    n_startup_trials=max(settings.startup, 1),
                    independent_sampler=others,
                    with_margin=True,  # or whole numbers and steps would be stuck on one value
                    warn_independent_sampling=False,
                )
            case "qmc":
                return samplers.QMCSampler(
                    seed=settings.seed,  # of the one sequence of which each trial takes the next point
                    scramble=True,
                    independent_sampler=others,
                    warn_asynchronous_seeding=False,
                    warn_independent_sampling=False,
                )
            case "nsga2":
                return samplers.NSGAIISampler(seed=seed, population_size=max(settings.startup, 2))
    return others  # random; and a grid, whose points wait in the study


def make_pruner(settings: Pruner, validations: int | None) -> BasePruner:
    """The pruner; the step it is told is the number of the validation, from 1.

    Args:
        validations: of a whole run, if that is known; Hyperband's largest resource.
    """
    from optuna import pruners
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        median = pruners.MedianPruner(n_startup_trials=settings.startup, n_warmup_steps=settings.warmup + 1)
        match settings.name:
            case "median":
                return median
            case "patient":
                return pruners.PatientPruner(median, patience=settings.patience, min_delta=settings.min_delta)
            case "asha":
                return pruners.SuccessiveHalvingPruner(
                    min_resource=settings.min_resource, reduction_factor=max(settings.reduction_factor, 2)
                )
            case "hyperband":
                return pruners.HyperbandPruner(
                    min_resource=settings.min_resource,
                    max_resource=settings.max_resource or validations or "auto",
                    reduction_factor=max(settings.reduction_factor, 2),
                )
    return pruners.NopPruner()
