"""The door: several runs trained as one, each leaving an ordinary run directory."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from functools import partial

from dlrun.config.compose import Composed
from dlrun.config.identity import run_id
from dlrun.engine.device import describe_device
from dlrun.errors import UsageError
from dlrun.runs.console import Console
from dlrun.runs.directory import RunDirectory
from dlrun.runs.provenance import provenance
from dlrun.stacked.fit import CannotStackError, check_outputs, check_parts
from dlrun.stacked.members import Member, make_members
from dlrun.stacked.plan import FREE, obstacle, stacks
from dlrun.stacked.training import StackedTraining
from dlrun.stacked.worth import refuse_slow


def train_stack(
    composed: Sequence[Composed], consoles: Sequence[Console], *, forced: bool = True
) -> list[RunDirectory]:
    """Train, test and record several runs as one. How each has ended is in its summary.json.

    A run that diverges, stops early or fails leaves the stack, and the others go on. SIGINT and SIGTERM interrupt all.

    Args:
        consoles: one for each run.
        forced: also where it is not known to be faster than one run after the other.

    Raises: CannotStackError, and other DlrunErrors, before anything is written; StackBrokenError later.
    """
    refuse(composed)
    members = make_members(composed, consoles, check=None if forced else partial(refuse_slow, len(composed)))
    check_parts([member.training for member in members])
    training = StackedTraining(members)
    check_outputs(training.stack, training.batches)
    _create(composed, members)
    training.go()
    return [member.session.run for member in members]


def refuse(composed: Sequence[Composed]) -> None:
    """Raises: CannotStackError if the configurations cannot be trained together; UsageError if a folder is taken."""
    for item in composed:
        if reason := obstacle(item.config):
            raise CannotStackError(reason)
    groups = stacks([item.config for item in composed])
    if len(groups) > 1:
        raise CannotStackError(
            f"the runs of a stack may differ in {', '.join(FREE[1:])} and in nothing else, and these {len(composed)} "
            f"would make {len(groups)} stacks."
        )
    folders = [item.run_dir for item in composed]
    if len(set(folders)) < len(folders):
        raise UsageError("the runs of a stack need a folder each, and two of them have the same hydra.run.dir.")
    for folder in folders:
        run = RunDirectory(folder)
        if run.config.exists():
            raise UsageError(f"hydra.run.dir={run.path} already holds a run; choose another, or: dlrun resume {run}.")


def _create(composed: Sequence[Composed], members: Sequence[Member]) -> None:
    """Begin all run directories."""
    common = provenance(
        run_id="",
        command=["dlrun", *map(shlex.quote, sys.argv[1:])],
        fingerprint="",
        device=describe_device(members[0].session.a.device),
    )
    for item, member in zip(composed, members, strict=True):
        own = {"run_id": run_id(item.config), "data_fingerprint": member.session.header["fingerprint"]}
        member.session.run.create(item.config, common | own | {"stacked": len(members)}, item.hydra_files)
