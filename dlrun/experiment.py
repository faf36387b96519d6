"""One experiment from a composed configuration: build, train, test, record. The one door to training."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import torch

from dlrun import assembly
from dlrun.config.check import check
from dlrun.config.compose import Composed, settled
from dlrun.config.identity import differences, run_id
from dlrun.engine import checkpoint
from dlrun.engine.device import describe_device
from dlrun.engine.memory import release
from dlrun.errors import DlrunError, ResumeError
from dlrun.recorded import use_paths
from dlrun.runs.console import Console
from dlrun.runs.directory import RunDirectory
from dlrun.runs.provenance import provenance
from dlrun.session import FINISHED, GoOnError, Judge, Session


def train(composed: Composed, console: Console, judge: Judge | None = None) -> RunDirectory:
    """Train, test and record one run.

    Args:
        judge: called after each validation with the training and what was measured; it may set the training's status.

    Raises: DlrunError before anything is written if something does not fit; RunFailedError if training raised.
    """
    return _within_memory(console, judge, lambda: _begin(composed, console, judge))


def _begin(composed: Composed, console: Console, judge: Judge | None) -> RunDirectory:
    a = assembly.assemble(composed.config)
    composed = settled(composed, a.config)
    run = RunDirectory(composed.run_dir)
    fingerprint = assembly.data_fingerprint(a)
    session = Session(a, run, fingerprint, console, judge)
    run.create(
        composed.config,
        provenance(
            run_id=run_id(composed.config),
            command=["dlrun", *map(shlex.quote, sys.argv[1:])],
            fingerprint=fingerprint,
            device=describe_device(a.device),
        ),
        composed.hydra_files,
    )
    session.go(None)
    return run


def resume(run: RunDirectory, console: Console, judge: Judge | None = None) -> RunDirectory:
    """Continue a run exactly where its last intact checkpoint stands.

    Raises: ResumeError if there is nothing to continue, or configuration or data have changed.
    """
    return _within_memory(console, judge, lambda: _go_on(run, console, judge=judge))


def _within_memory(console: Console, judge: Judge | None, sit: Callable[[], RunDirectory]) -> RunDirectory:
    """Train by `sit`; when memory runs out in mid-run, let go of everything and go on from the last checkpoint."""
    while True:
        try:
            return sit()
        except GoOnError as error:  # with it goes the traceback, and with that all that was on the device
            sit = partial(_go_on, error.run, console, error.micro_batch_size, judge)
        release()


def _go_on(
    run: RunDirectory, console: Console, micro_batch_size: int | None = None, judge: Judge | None = None
) -> RunDirectory:
    """Continue a run, with micro-batches of at most that many examples."""
    config, known = run.read_config(), run.read_json(run.provenance)
    use_paths(run)
    check(config)
    _refuse_finished(run)
    _refuse_edited(run, config, known)
    threads = (known.get("device") or {}).get("threads")
    state, warnings = checkpoint.load_last(run.last, run.previous)
    # Weights come from the checkpoint, if there is one; the file of an initialisation may be gone.
    a = assembly.assemble(config if state is None else {**config, "init": None}, threads=threads)
    a.config = config
    fingerprint = assembly.data_fingerprint(a)
    if known.get("data_fingerprint") not in (None, fingerprint):
        raise ResumeError(
            f"{run}: the data are not those the run began with (fingerprint {fingerprint}, then "
            f"{known['data_fingerprint']}); bring them back (data.root, data.path) or begin a new run."
        )
    for warning in warnings:
        console.warn(warning)
    if threads not in (None, torch.get_num_threads()):
        console.warn(
            f"The run began with {threads} CPU threads and goes on with {torch.get_num_threads()}: sums are taken in "
            f"another order, so the last bits may differ. OMP_NUM_THREADS={threads} restores it."
        )
    Session(a, run, fingerprint, console, judge).go(state, micro_batch_size)
    return run


def _refuse_finished(run: RunDirectory) -> None:
    status = run.read_json(run.summary).get("status")
    again = f"To train anew with other settings: dlrun train --config-path {run} --config-name config trainer.epochs=N."
    if status in FINISHED:
        raise ResumeError(f"{run} is {status.replace('_', ' ')}; there is nothing to resume. {again}")
    if status == "diverged":
        raise ResumeError(f"{run} diverged and would again: resuming repeats the same steps. {again}")


def _refuse_edited(run: RunDirectory, config: dict[str, Any], known: Mapping[str, Any]) -> None:
    if known.get("run_id") in (None, run_id(config)):
        return
    changes: list[str] = []
    with suppress(DlrunError):
        content, _ = checkpoint.load_last(run.last, run.previous)
        changes = differences(json.loads(content["config"]), config) if content else []
    listed = "; ".join(changes) or "its hash differs"
    raise ResumeError(
        f"{run.config} has been edited since the run began ({listed}); undo that, or begin a new run: "
        f"dlrun train --config-path {run} --config-name config."
    )


def exit_code(run: RunDirectory) -> int:
    """0 for a finished or pruned run, 128 + the signal for an interrupted one, 1 for a divergence."""
    summary = run.read_json(run.summary)
    if summary.get("status") == "interrupted":
        return 128 + int(summary["signal"])
    return 0 if summary.get("status") in (*FINISHED, "pruned") else 1
