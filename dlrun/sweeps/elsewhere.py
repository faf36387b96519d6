"""The jobs of a sweep as another of Hydra's launchers runs them (basic, joblib, submitit): each calls this."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from dlrun.config.check import check
from dlrun.config.compose import Composed, plain
from dlrun.errors import DlrunError
from dlrun.runs.directory import RunDirectory
from dlrun.runs.files import write_json
from dlrun.startup import loading
from dlrun.sweeps.jobs import GOOD, score


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
            _leave(folder, why)
        if why:
            self.failed.append(f"{folder.name}: {why}")
        return value

    def report(self, returned: Any = None) -> int:
        """Say how they ended.

        Args:
            returned: by Hydra's sweeper. Other processes, as joblib's or submitit's, have noted what is here there.

        Returns: the exit code.
        """
        if not self.done:
            self.done = [Path(one.hydra_cfg.hydra.runtime.output_dir) for one in _job_returns(returned)]
            ended = [(folder.name, RunDirectory(folder)) for folder in self.done]
            summaries = [(name, run.read_json(run.summary)) for name, run in ended]
            self.failed = [
                f"{name}: {summary.get('error') or summary.get('status', 'it left no summary')}"
                for name, summary in summaries
                if summary.get("status") not in GOOD
            ]
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


def _leave(folder: Path, why: str) -> None:
    """Note why a job failed that did not come so far as to note it itself."""
    run = RunDirectory(folder)
    if not run.summary.exists():
        with suppress(OSError):
            write_json(run.summary, {"status": "failed", "error": why})


def _job_returns(returned: Any) -> Iterator[Any]:
    """The JobReturns in what a sweeper gives: lists of lists of them, or nothing."""
    if hasattr(returned, "hydra_cfg"):
        yield returned
    elif isinstance(returned, list | tuple):
        for inner in returned:
            yield from _job_returns(inner)
