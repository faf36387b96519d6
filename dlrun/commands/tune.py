"""dlrun tune: search for the best configuration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dlrun.commands.offers import options, overrides
from dlrun.commands.words import config_folder
from dlrun.config.catalog import Catalog
from dlrun.errors import UsageError

EXAMPLES = """\
dlrun tune tune=NAME [OVERRIDES]   search for the best configuration; bad trials are stopped early

  dlrun tune tune=mlp_digits                          30 trials; {folder}
  dlrun tune tune=mlp_mnist tune.budget.trials=20 tune.budget.time=30m
  dlrun tune tune=mlp_digits model.activation=gelu trainer.epochs=20     what all trials have
  dlrun tune tune=mlp_digits tune.sampler=gp tune.pruner=hyperband
  dlrun tune tune=mlp_digits 'tune.space.model.dropout={{low: 0.0, high: 0.3}}' ~tune.space.model.widths
  dlrun tune tune=mlp_digits 'tune.objectives=[val/accuracy,parameters]'     a Pareto front
  dlrun tune --config-dir mine tune=my_search         mine/tune/my_search.yaml
  dlrun resume outputs/tune/2026-11-21_10-00-00_mlp_digits_1a2b3c4d

The same command again goes on where it was, killed or not; with a larger tune.budget it searches further. Trials are
ordinary runs without a test; the winner is trained again from tune.seeds seeds and tested once each.
`dlrun list tune mlp_digits` shows a tune file; docs/tune.md, in the source of dlrun, says what one may hold.

  tune.sampler        tpe, gp, cmaes, random, qmc, grid, nsga2
  tune.pruner         median, hyperband, asha, patient, none
  tune.budget.trials, tune.budget.time=30m, tune.budget.device_hours; of one trial .trial_time=5m, .trial_memory=8GB
  tune.jobs           trials at a time; null: as many as the machine takes
  tune.storage        null: study.db in the search's folder; journal; FILE.db; the URL of a database
  tune.seeds          how often the winner is trained and tested; 0: not at all
  tune.defaults_first whether trial 0 is the configuration as it is without the search
  tune.folder         where to record it; null: in outputs/tune/
"""

FLAGS = ("--config-dir",)
OPTIONS = {
    "tune.sampler": ("tpe", "gp", "cmaes", "random", "qmc", "grid", "nsga2"),
    "tune.pruner": ("median", "hyperband", "asha", "patient", "none"),
    "tune.budget.trials": ("50",),
    "tune.budget.time": ("30m",),
    "tune.budget.device_hours": ("2",),
    "tune.budget.trial_time": ("10m",),
    "tune.budget.trial_memory": ("8GB",),
    "tune.objectives": ("[val/accuracy,seconds]",),
    "tune.storage": ("journal",),
    "tune.seeds": ("5",),
    "tune.jobs": ("2",),
}


def HELP() -> str:  # noqa: N802 - what every command calls its help
    """The examples, and every tune file."""
    names = "  ".join(choice.name for choice in Catalog().choices("tune"))
    return f"{EXAMPLES.format(folder='outputs/tune/<date_time>_mlp_digits_<id>/')}\nTune files: {names}\n"


def run(arguments: list[str]) -> int:
    """Tune. Returns: the exit code."""
    words, config_dir = config_folder(arguments, "tune tune=NAME")
    option = next((word for word in words if word.startswith("-")), None)
    if option in {"-m", "--multirun"}:
        raise UsageError("dlrun tune has no -m: what is searched is in the tune file, as tune.space.")
    if option is not None:
        raise UsageError(f"unknown option '{option}' of dlrun tune: it has --config-dir; see `dlrun tune --help`.")
    from dlrun.tuning.sitting import tune  # Hydra and rich; Optuna comes when the words are known to be right

    return tune(words, config_dir)


def offer(typed: Sequence[str], current: str) -> Iterator[str]:
    """What may come next, at a tab."""
    yield from options(OPTIONS, current) if current.startswith("tune.") else overrides(typed, current)
