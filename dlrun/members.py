"""Models of recorded runs that are evaluated, and whether they can be evaluated together."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from dlrun import splitting
from dlrun.assembly import Assembly
from dlrun.config.identity import differences
from dlrun.contracts import Task
from dlrun.errors import UsageError
from dlrun.recorded import OF_TRAINING, evaluated_weights, read_checkpoint, read_snapshots, reassemble
from dlrun.runs.directory import RunDirectory


@dataclass
class Member:
    """A model in evaluation mode, and the assembly of the run it is of."""

    a: Assembly
    model: nn.Module


def gather_members(runs: Sequence[RunDirectory], which: str, device_word: str | None) -> list[Member]:
    """The models of all runs, or all snapshots of the one."""
    if which != "snapshots":
        contents = [read_checkpoint(run, which) for run in runs]  # first: what is missing is said before data are read
        assemblies = [reassemble(run, content, device_word) for run, content in zip(runs, contents, strict=True)]
        return [Member(a, a.model.eval()) for a in assemblies]
    if len(runs) > 1:
        raise UsageError(f"checkpoint=snapshots evaluates the snapshots of one run together, got {len(runs)} runs.")
    contents = read_snapshots(runs[0])
    a = reassemble(runs[0], contents[0], device_word)
    members = [Member(a, copy.deepcopy(a.model).eval()) for _ in contents]
    for member, content in zip(members, contents, strict=True):
        member.model.load_state_dict(evaluated_weights(content))
    return members


def require_same_task(one: Assembly, other: Assembly, split: str, who: str) -> None:
    """Refuse runs that do not answer the same questions about the same examples.

    Bagged runs differ in what they were trained on, and by it in the scales of their inputs: their evaluated splits
    are the same if they are equal to the bit, or else if all settings that decide who is in them are.

    Args:
        who: the two, for the message.

    Raises: UsageError naming what differs.
    """
    names = ["task", "num_outputs", "class_names", "target_vocabulary", "horizon", "target_columns"]
    names += {Task.LANGUAGE_MODELLING: ["vocabulary"], Task.RECONSTRUCTION: ["mean", "std"]}.get(one.spec.task, [])
    for name in names:
        if getattr(one.spec, name) != getattr(other.spec, name):
            raise UsageError(
                f"{who} cannot be evaluated together: {name.replace('_', ' ')} of data={one.spec.name} and "
                f"data={other.spec.name} differ; give runs that predict the same."
            )
    parts = [getattr(a.splits, split) for a in (one, other)]
    if splitting.fingerprint_of(parts[0]) == splitting.fingerprint_of(parts[1]):
        return
    ignored = OF_TRAINING if split != "train" else set()
    ours, theirs = ({key: value for key, value in a.config["data"].items() if key not in ignored} for a in (one, other))
    changed = differences(ours, theirs, "data")
    # Stored inputs that another bootstrap has scaled are the same examples, but as targets they are others.
    if changed or split == "train" or one.spec.task is Task.RECONSTRUCTION:
        raise UsageError(
            f"{who} cannot be evaluated together: their {split} splits hold other examples "
            f"({'; '.join(changed) or 'other data'}); train them on the same data and split (data.split_seed)."
        )
