"""A sweep from the words that ask for it, through Hydra: its sweepers and launchers, or dlrun's own."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.global_hydra import GlobalHydra

from dlrun.config.compose import CONFIG_NAME, open_hydra
from dlrun.config.explain import HYDRA_ERRORS, translate
from dlrun.config.sweep import quoted, sweep_words
from dlrun.errors import UsageError
from dlrun.sweeps.elsewhere import Jobs
from dlrun.sweeps.plugin import Request, plugins_for
from dlrun.sweeps.record import SweepRecord
from dlrun.sweeps.running import Result, View


@dataclass(frozen=True)
class Asked:
    """What became of a sweep; there are no results of one that another launcher than dlrun's has run."""

    exit_code: int
    results: list[Result]


def ask(
    overrides: Sequence[str],
    config_path: str | None,
    config_name: str | None,
    config_dir: str | None,
    many: bool,
    view: View,
) -> Asked:
    """Run a sweep. Raises: ConfigError or UsageError for what is asked wrongly."""
    asked = {
        "words": list(overrides),
        "config_path": config_path,
        "config_name": config_name,
        "config_dir": config_dir,
        "many": many,
        "cwd": str(Path.cwd()),
    }
    words = sweep_words(overrides, config_path, config_name, config_dir)
    hydra = open_hydra(config_path, config_dir)
    request, elsewhere = Request(asked, view, many), Jobs()
    try:
        with plugins_for(request):
            returned = hydra.multirun(config_name or CONFIG_NAME, elsewhere, words, with_log_configuration=False)
    except KeyboardInterrupt:
        if not request.results:
            print(f"dlrun: interrupted after {len(elsewhere.done)} jobs.", file=sys.stderr)
        return Asked(128 + signal.SIGINT, request.results)
    except OSError as error:
        if error.filename is None:
            raise
        raise UsageError(f"cannot write the sweep's folder {error.filename}: {error.strerror}.") from None
    except HYDRA_ERRORS as error:
        raise translate(error, hydra.config_loader) from None
    finally:
        GlobalHydra.instance().clear()
    code = max((result.exit_code for result in request.results), default=None)
    return Asked(elsewhere.report(returned) if code is None else code, request.results)


def go_on(folder: Path, view: View) -> int:
    """Go on with the sweep in a folder, as it was asked for. Returns: the exit code."""
    asked = SweepRecord(folder).content
    if "words" not in asked:
        raise UsageError(f"{folder} was not made by `dlrun train -m`; the command that made it goes on with it.")
    if asked["cwd"] != str(Path.cwd()) and Path(asked["cwd"]).is_dir():
        folder = folder.absolute()
        os.chdir(asked["cwd"])  # paths in its words are meant from there
    words = [word for word in asked["words"] if not word.startswith(("hydra.sweep.dir=", "hydra.launcher.fresh="))]
    words.append(f"hydra.sweep.dir={quoted(str(folder))}")
    places = asked["config_path"], asked["config_name"], asked["config_dir"]
    return ask(words, *places, asked["many"], view).exit_code
