"""dlrun train: one run, or with -m a sweep."""

from __future__ import annotations

import argparse
import contextlib
import io
from collections.abc import Iterator, Sequence

from dlrun.commands.offers import CONFIG_FLAGS, overrides
from dlrun.config.catalog import Catalog, groups_text
from dlrun.errors import UsageError, did_you_mean
from dlrun.report.painter import at_hand
from dlrun.startup import loading

EXAMPLES = """\
dlrun train [OVERRIDES]        train one run, test it, record it

  dlrun train                                        digits, MLP, AdamW, cosine with warm-up
  dlrun train data=mnist model=cnn optimizer=sgd optimizer.lr=0.1 scheduler=onecycle
  dlrun train trainer.epochs=5 trainer.precision=bf16 trainer.clip.norm=1
  dlrun train trainer.early_stopping=null seed=3
  dlrun train 'augment=[translate,cutout]' data.limit=0.1
  dlrun train experiment=mnist_cnn                    a recipe: choices and values whose result is known
  dlrun train -m optimizer=sgd,adamw seed=0,1,2       every combination, one run each
  dlrun train --config-dir mine model=my_model        parts of your own: mine/model/my_model.yaml
  dlrun train --config-path RUN --config-name config  a recorded run again, RUN being its folder

A choice is GROUP=NAME, a value KEY=VALUE; `dlrun list GROUP` shows the choices of a group,
`dlrun list GROUP NAME` the keys of one, `dlrun plan OVERRIDES` what would run.

  -m, --multirun       run every combination of the values given with commas; the same command again goes on
                       where it stopped, and repeats nothing. hydra.launcher.jobs=N at a time, .per_device=N on a GPU,
                       .timeout=30m, .memory=8GB, .retries=1, .fail_fast=true, .stack=false, .fresh=true;
                       hydra.sweeper.sampler=random|sobol|latin .samples=20 .seed=1, .zip=[A,B], .max_jobs=1000
  --yes                more than hydra.sweeper.max_jobs are meant
  --cfg job [--resolve]  print the configuration and stop
  --info [WHAT]        Hydra's account of how it was composed
  --config-dir FOLDER  look for choices in FOLDER as well
  --config-path FOLDER --config-name NAME   begin with another configuration
  hydra.run.dir=FOLDER   record the run there; hydra.sweep.dir=FOLDER   the runs of -m
  --hydra-help         Hydra's own help
"""

FLAGS = ("--multirun", "--cfg", "--resolve", "--package", "--info", *CONFIG_FLAGS, "--hydra-help")
FLAG_VALUES = {
    "--cfg": ("job", "hydra", "all"),
    "-c": ("job", "hydra", "all"),
    "--info": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
}


def HELP() -> str:  # noqa: N802 - what every command calls its help
    """The examples, and every group with its choices."""
    return f"{EXAMPLES}\nChoices:\n{groups_text(Catalog())}"


def run(arguments: list[str]) -> int:
    """Train as the arguments say. Returns: the exit code."""
    words = parse_arguments(arguments)
    if words.multirun:
        return sweep(words)
    if words.cfg or words.info or words.hydra_help:
        return show(words)
    from dlrun.config.compose import compose

    composed = compose(
        words.overrides, config_path=words.config_path, config_name=words.config_name, config_dir=words.config_dir
    )
    # The configuration is right: only now is torch imported.
    with at_hand():
        with loading():
            from dlrun.experiment import exit_code, train
        from dlrun.runs.console import Console

        return exit_code(train(composed, Console()))


def offer(typed: Sequence[str], current: str) -> Iterator[str]:
    """What may come next, at a tab."""
    yield from FLAG_VALUES.get(typed[-1] if typed else "") or overrides(typed, current)


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """Hydra's own flags and the overrides, in any order.

    Raises: UsageError for a flag that does not exist, or that has nothing to act on.
    """
    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()

    def refuse(message: str) -> None:
        raise UsageError(f"{message}; see `dlrun train --help`.")

    parser.error = refuse
    parser.add_argument("--yes", action="store_true", help="run a sweep of more than hydra.sweeper.max_jobs")
    words: argparse.Namespace
    words, unknown = parser.parse_known_intermixed_args(arguments)
    if unknown:
        raise UsageError(_unknown_option(unknown[0], [flag for flag in parser._option_string_actions if flag != "-h"]))
    if words.shell_completion or words.experimental_rerun:
        raise UsageError("--shell-completion is `dlrun completion`, and --experimental-rerun `dlrun resume`, here.")
    shown = [flag for flag in ("cfg", "info", "hydra_help", "multirun") if getattr(words, flag)]
    if len(shown) > 1:
        raise UsageError(f"--{shown[0].replace('_', '-')} and --{shown[1]} do not go together; give one of them.")
    if words.yes and not words.multirun:
        raise UsageError("--yes says that a sweep of very many jobs is meant; it goes with -m.")
    for flag in ("resolve", "package"):
        if getattr(words, flag) and not words.cfg and not words.info:
            raise UsageError(f"--{flag} says what --cfg prints; write --cfg job --{flag}.")
    return words


def _unknown_option(word: str, flags: list[str]) -> str:
    if "=" in word and not word.startswith("--config"):
        return f"unknown option '{word}': settings have no dashes; write {word.lstrip('-')}."
    return f"unknown option '{word}'.{did_you_mean(word, flags)} See `dlrun train --help`."


def show(words: argparse.Namespace) -> int:
    """--cfg, --info and --hydra-help, answered by Hydra."""
    from hydra._internal.utils import get_args_parser
    from hydra.core.global_hydra import GlobalHydra

    from dlrun.config.compose import CONFIG_NAME, open_hydra, settle
    from dlrun.config.explain import HYDRA_ERRORS, translate
    from dlrun.config.overrides import read, refuse_sweep

    hydra = open_hydra(words.config_path, words.config_dir)
    loader, name = hydra.config_loader, words.config_name or CONFIG_NAME
    try:
        parsed = read(words.overrides, loader)
        refuse_sweep(parsed, loader)
        _, overrides = settle(hydra, parsed, name)
        if words.hydra_help:
            hydra.hydra_help(config_name=name, args_parser=get_args_parser(), args=words)
        elif words.cfg:
            with contextlib.redirect_stderr(io.StringIO()):  # Hydra writes of an unknown package and exits
                hydra.show_cfg(name, overrides, words.cfg, words.package, words.resolve)
        else:
            hydra.show_info(words.info, name, overrides)
    except SystemExit:
        raise UsageError(f"--package {words.package}: there is no such part; one is model or trainer.clip.") from None
    except HYDRA_ERRORS as error:
        raise translate(error, loader) from None
    finally:
        GlobalHydra.instance().clear()
    return 0


def sweep(words: argparse.Namespace) -> int:
    """Every combination of the values given with commas, one run directory each. Returns: the exit code.

    Jobs are run by `hydra/launcher=dlrun` in processes of their own, unless another launcher is chosen.
    """
    from dlrun.sweeps.asking import ask
    from dlrun.sweeps.table import view

    return ask(words.overrides, words.config_path, words.config_name, words.config_dir, words.yes, view()).exit_code
