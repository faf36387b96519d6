"""Runs as Python objects, for notebooks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from dlrun.config.compose import compose
from dlrun.contracts import Task
from dlrun.evaluation import evaluate
from dlrun.experiment import train as train_experiment
from dlrun.new_inputs import read_inputs, read_texts
from dlrun.prediction import Predictor, load_predictor
from dlrun.runs.console import Console, Quiet
from dlrun.runs.directory import RunDirectory, find_run
from dlrun.sweeps import table
from dlrun.sweeps.asking import ask


class Run:
    """A recorded run. Everything is read from its directory, when it is asked for."""

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory

    @property
    def path(self) -> Path:
        return self._directory.path

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved configuration."""
        return self._directory.read_config()

    @cached_property
    def summary(self) -> dict[str, Any]:
        """summary.json: status, epochs, steps, seconds, best, metrics."""
        return self._directory.read_json(self._directory.summary)

    @property
    def status(self) -> str:
        return str(self.summary.get("status", "running"))

    @property
    def metrics(self) -> dict[str, float]:
        """The final metrics, such as "test/accuracy"."""
        return dict(self.summary.get("metrics", {}))

    @cached_property
    def history(self) -> dict[str, NDArray[np.float64]]:
        """Each recorded name as an array with one entry a record, NaN where the record does not have it."""
        records = self._directory.read_metrics()
        names = dict.fromkeys(name for record in records for name in record)

        def column(name: str) -> list[float]:
            return [math.nan if record.get(name) is None else float(record[name]) for record in records]

        return {name: np.array(column(name)) for name in names}

    @cached_property
    def model(self) -> nn.Module:
        """The model with its best weights, in evaluation mode, on the CPU."""
        return self._predictor.model

    def evaluate(
        self,
        split: str = "test",
        checkpoint: str = "best",
        *,
        temperature: float | Literal["fit"] | None = None,
        mc_dropout: int | None = None,
    ) -> dict[str, float]:
        """Loss and all metrics on a split, measured now; see `dlrun evaluate --help`. Nothing is written."""
        measured = evaluate([self._directory], split, checkpoint, temperature=temperature, mc_dropout=mc_dropout)
        return measured.last.metrics

    def predict(self, inputs: str | Sequence[str]) -> NDArray[np.float32] | list[str]:
        """What the best weights make of new inputs, given as for `dlrun predict`: files, folders or texts.

        Returns: (N, classes) probabilities; or (N, outputs) values in the target's own units; or, of a
            sequence-to-sequence run, N texts.
        """
        given = [inputs] if isinstance(inputs, str) else list(inputs)
        if self._predictor.spec.task is Task.SEQUENCE_TO_SEQUENCE:
            return self._predictor.translations(read_texts(given))
        _, tensors = read_inputs(given, self._predictor.spec, self.config["data"])
        return self._predictor.outputs(tensors).numpy()

    def generate(
        self, prompt: str, tokens: int = 200, *, temperature: float = 1.0, top_k: int | None = None, seed: int = 0
    ) -> str:
        """The prompt and what a language model says after it; temperature 0 always takes the likeliest token."""
        pieces = self._predictor.continued(prompt, tokens, temperature=temperature, top_k=top_k, seed=seed)
        return "".join(pieces)

    @cached_property
    def _predictor(self) -> Predictor:
        return load_predictor(self._directory)

    def __repr__(self) -> str:
        shown = ", ".join(f"{name} {value:.4g}" for name, value in self.metrics.items())
        return f"Run({self._directory}, {self.status}{', ' + shown if shown else ''})"


def train(overrides: Sequence[str] = (), *, config_dir: str | None = None, quiet: bool = False) -> Run:
    """See `dlrun.train`."""
    console = Console(view=Quiet()) if quiet else Console()
    return Run(train_experiment(compose(overrides, config_dir=config_dir), console))


def sweep(overrides: Sequence[str], *, config_dir: str | None = None, quiet: bool = False) -> list[Run]:
    """See `dlrun.sweep`."""
    results = ask(overrides, None, None, config_dir, False, table.Silent() if quiet else table.Lines()).results
    return [Run(job.run) for result in results for job in result.jobs if job.run.config.exists()]


def load(run: str) -> Run:
    """See `dlrun.load`."""
    return Run(find_run(run))
