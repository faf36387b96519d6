"""The jobs of a sweep as another of Hydra's launchers runs them (basic, joblib, submitit): each calls this."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from dlrun.config.check import check
from dlrun.config.compose import Composed, plain
from dlrun.errors import DlrunError
from dlrun.startup import loading
from dlrun.sweeps.jobs import score


class Jobs:
    """What Hydra calls for every job. One that fails is recorded and shown and does not keep the others from running.

    Attributes:
        done: the folders of the jobs, in order.
        failed: for each that failed, its folder's name and why.
    """

    def __init__(self) -> None:
        self.done: list[Path] = []
        self.failed: list[str] = []

    def __call__(self, config: DictConfig) -> float:
        node = HydraConfig.get()
        folder = Path(node.runtime.output_dir)
        self.done.append(folder)
        try:
            code, value = self._train(config, node, folder)
            if code > 128:
                raise KeyboardInterrupt
            why = f"exit code {code}" if code else ""
        except Exception as error:
            kind, value = "" if isinstance(error, DlrunError) else f"{type(error).__name__}: ", float("nan")
            why = kind + " ".join(str(error).split())
            print(f"dlrun: {why}", file=sys.stderr)
        if why:
            self.failed.append(f"{folder.name}: {why}")
        return value

    def report(self) -> int:
        """Say how they ended. Returns: the exit code."""
        if not self.done:
            print("the jobs were run by another launcher; dlrun compare shows what they came to")
            return 0
        folder = os.path.relpath(self.done[0].parent)
        print(f"{len(self.done) - len(self.failed)} of {len(self.done)} jobs finished, recorded in {folder}")
        for line in self.failed:
            print(f"failed: {line}", file=sys.stderr)
        return 1 if self.failed else 0

    @staticmethod
    def _train(config: DictConfig, node: Any, folder: Path) -> tuple[int, float]:
        with loading():
            from dlrun.experiment import exit_code, train
        from dlrun.runs.console import Console

        values = plain(config)
        check(values)
        hydra = OmegaConf.to_container(node, resolve=False, enum_to_str=True)
        overrides = list(map(str, node.overrides.task))
        run = train(Composed(values, dict(hydra), folder, overrides), Console())  # type: ignore[arg-type]
        _, value, _ = score(run.read_json(run.summary))
        return exit_code(run), float("nan") if value is None else value
