"""dlrun train: one run, or with -m a sweep."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlrun.config.catalog import Catalog, groups_text
from dlrun.errors import DlrunError, UsageError, did_you_mean
from dlrun.report.painter import at_hand
from dlrun.startup import loading

if TYPE_CHECKING:
    from omegaconf import DictConfig

EXAMPLES = """\
dlrun train [OVERRIDES]        train one run, test it, record it

  dlrun train                                        digits, MLP, AdamW, cosine with warm-up
  dlrun train data=mnist model=cnn optimizer=sgd optimizer.lr=0.1 scheduler=onecycle
  dlrun train trainer.epochs=5 trainer.precision=bf16 trainer.clip.norm=1
  dlrun train trainer.early_stopping=null seed=3
  dlrun train augment=[translate,cutout] data.limit=0.1
  dlrun train -m optimizer=sgd,adamw seed=0,1,2       every combination, one run each
  dlrun train --config-dir mine model=my_model        parts of your own: mine/model/my_model.yaml
  dlrun train --config-path RUN --config-name config  a recorded run again

A choice is GROUP=NAME, a value KEY=VALUE; `dlrun list GROUP` shows the choices of a group,
`dlrun list GROUP NAME` the keys of one, `dlrun plan OVERRIDES` what would run.

  -m, --multirun       run every combination of the values given with commas
  --cfg job [--resolve]  print the configuration and stop
  --info [WHAT]        Hydra's account of how it was composed
  --config-dir DIR     look for choices in DIR as well
  --config-path DIR --config-name NAME   begin with another configuration
  hydra.run.dir=DIR    record the run in DIR
  --hydra-help         Hydra's own help
"""


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


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """Hydra's own flags and the overrides, in any order.

    Raises: UsageError for a flag that does not exist, or that has nothing to act on.
    """
    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()

    def refuse(message: str) -> None:
        raise UsageError(f"{message}; see `dlrun train --help`.")

    parser.error = refuse
    words: argparse.Namespace
    words, unknown = parser.parse_known_intermixed_args(arguments)
    if unknown:
        raise UsageError(_unknown_option(unknown[0], [flag for flag in parser._option_string_actions if flag != "-h"]))
    if words.shell_completion or words.experimental_rerun:
        raise UsageError("--shell-completion is `dlrun completion`, and --experimental-rerun `dlrun resume`, here.")
    shown = [flag for flag in ("cfg", "info", "hydra_help", "multirun") if getattr(words, flag)]
    if len(shown) > 1:
        raise UsageError(f"--{shown[0].replace('_', '-')} and --{shown[1]} do not go together; give one of them.")
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
    """Every combination of the values given with commas, one run directory each, by Hydra's sweeper and launcher.

    A job that fails is recorded and shown and does not keep the others from running. Returns: 1 if any failed.
    """
    from hydra.core.global_hydra import GlobalHydra

    from dlrun.config.compose import CONFIG_NAME, open_hydra
    from dlrun.config.explain import HYDRA_ERRORS, translate
    from dlrun.config.sweep import compose_once, sweep_words

    overrides = sweep_words(words.overrides, words.config_path, words.config_name, words.config_dir)
    hydra = open_hydra(words.config_path, words.config_dir)
    compose_once(hydra.config_loader)
    jobs = Jobs()
    try:
        with at_hand():
            hydra.multirun(words.config_name or CONFIG_NAME, jobs, overrides, with_log_configuration=False)
    except KeyboardInterrupt:
        print(f"dlrun: interrupted after {len(jobs.done)} jobs, recorded in {jobs.folder}.", file=sys.stderr)
        return 128 + signal.SIGINT
    except OSError as error:
        raise UsageError(f"cannot write the sweep's folder {error.filename}: {error.strerror}.") from None
    except HYDRA_ERRORS as error:
        raise translate(error, hydra.config_loader) from None
    finally:
        GlobalHydra.instance().clear()
    print(f"{len(jobs.done) - len(jobs.failed)} of {len(jobs.done)} jobs finished, recorded in {jobs.folder}")
    for line in jobs.failed:
        print(f"failed: {line}", file=sys.stderr)
    return 1 if jobs.failed else 0


class Jobs:
    """What Hydra calls for every job of a sweep.

    Attributes:
        done: the folders of the jobs, in order.
        failed: for each that failed, its folder's name and why.
    """

    def __init__(self) -> None:
        self.done: list[Path] = []
        self.failed: list[str] = []

    @property
    def folder(self) -> str:
        return os.path.relpath(self.done[0].parent) if self.done else "-"

    def __call__(self, config: DictConfig) -> None:
        from hydra.core.hydra_config import HydraConfig

        node = HydraConfig.get()
        folder = Path(node.runtime.output_dir)
        self.done.append(folder)
        try:
            code = self._train(config, node, folder)
            if code > 128:
                raise KeyboardInterrupt
            why = f"exit code {code}" if code else ""
        except Exception as error:
            kind = "" if isinstance(error, DlrunError) else f"{type(error).__name__}: "
            why = kind + " ".join(str(error).split())
            print(f"dlrun: {why}", file=sys.stderr)
        if why:
            self.failed.append(f"{folder.name}: {why}")

    @staticmethod
    def _train(config: DictConfig, node: Any, folder: Path) -> int:
        from dlrun.config.check import check
        from dlrun.config.compose import Composed, plain

        with loading():
            from dlrun.experiment import exit_code, train
        from dlrun.runs.console import Console

        values = plain(config)
        check(values)
        overrides = list(map(str, node.overrides.task))
        return exit_code(train(Composed(values, node, folder, overrides), Console()))
