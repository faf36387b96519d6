"""dlrun train: one run, or with -m a sweep."""

import argparse
import os
import signal
import sys
from pathlib import Path

from dlrun.config.catalog import Catalog, groups_text
from dlrun.errors import DlrunError, UsageError

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
    from dlrun.experiment import exit_code, train
    from dlrun.runs.console import Console

    return exit_code(train(composed, Console()))


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """Hydra's own flags and the overrides. Raises: UsageError for a flag that does not exist."""
    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()

    def refuse(message: str) -> None:
        raise UsageError(f"{message}; see `dlrun train --help`.")

    parser.error = refuse  # type: ignore[method-assign,assignment]
    return parser.parse_args(arguments)


def show(words: argparse.Namespace) -> int:
    """--cfg, --info and --hydra-help, answered by Hydra."""
    from hydra._internal.utils import get_args_parser
    from hydra.core.global_hydra import GlobalHydra

    from dlrun.config.compose import CONFIG_NAME, open_hydra, translate

    hydra = open_hydra(words.config_path, words.config_dir)
    name = words.config_name or CONFIG_NAME
    try:
        if words.hydra_help:
            hydra.hydra_help(config_name=name, args_parser=get_args_parser(), args=words)
        elif words.cfg:
            hydra.show_cfg(name, words.overrides, words.cfg, words.package, words.resolve)
        else:
            hydra.show_info(words.info, name, words.overrides)
    except Exception as error:
        raise translate(error, words.overrides) from None
    finally:
        GlobalHydra.instance().clear()
    return 0


def sweep(words: argparse.Namespace) -> int:
    """Every combination of the values given with commas, one run directory each, by Hydra's sweeper and launcher.

    A job that fails is recorded and shown and does not keep the others from running. Returns: 1 if any failed.
    """
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import DictConfig, OmegaConf

    from dlrun.config.compose import CONFIG_NAME, Composed, check_sweep, open_hydra, plain, translate

    check_sweep(words.overrides, words.config_path, words.config_name, words.config_dir)
    hydra = open_hydra(words.config_path, words.config_dir)
    failed: list[str] = []
    done: list[Path] = []

    def job(config: DictConfig) -> None:
        from dlrun.config.check import check
        from dlrun.experiment import exit_code, train
        from dlrun.runs.console import Console

        node = HydraConfig.get()
        folder = Path(node.runtime.output_dir)
        done.append(folder.parent)
        overrides = [str(item) for item in OmegaConf.to_container(node.overrides.task)]  # type: ignore[union-attr]
        try:
            values = plain(config)
            check(values)
            code = exit_code(train(Composed(values, node, folder, overrides), Console()))
        except DlrunError as error:
            print(f"dlrun: {error}", file=sys.stderr)
            code = error.exit_code
        if code > 128:
            raise KeyboardInterrupt
        if code:
            failed.append(f"{folder.name}: {' '.join(overrides)}")

    try:
        hydra.multirun(words.config_name or CONFIG_NAME, job, words.overrides, with_log_configuration=False)
    except KeyboardInterrupt:
        print(f"dlrun: interrupted after {len(done)} jobs, recorded in {done[0] if done else '-'}", file=sys.stderr)
        return 128 + signal.SIGINT
    except DlrunError:
        raise
    except Exception as error:
        if os.environ.get("DLRUN_DEBUG"):
            raise
        raise translate(error, words.overrides) from None
    finally:
        GlobalHydra.instance().clear()
    print(f"{len(done) - len(failed)} of {len(done)} jobs finished, recorded in {os.path.relpath(done[0])}")
    for line in failed:
        print(f"failed: {line}", file=sys.stderr)
    return 1 if failed else 0

