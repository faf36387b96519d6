"""What a recorded run holds: its model, without its data or put together with them again."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dlrun import assembly, build
from dlrun.assembly import Assembly
from dlrun.config.check import check
from dlrun.config.identity import differences
from dlrun.contracts import DataSpec
from dlrun.engine import checkpoint
from dlrun.errors import ConfigError, UsageError
from dlrun.runs.directory import RunDirectory

# Settings of `data` that change only what is trained on, or how fast.
OF_TRAINING = {
    *("bootstrap", "limit", "label_noise", "imbalance", "order", "curriculum_epochs", "drop_last"),
    *("batch_size", "eval_batch_size", "loader", "workers", "alternating_flip"),
}


def load_model(
    run: RunDirectory, which: str = "best", device: torch.device | str = "cpu"
) -> tuple[nn.Module, DataSpec]:
    """A run's model with the weights of its best or last validation, in evaluation mode, without its data."""
    content = read_checkpoint(run, which)
    spec = DataSpec.from_dict(content["spec"])
    config = run.read_config()
    use_paths(run)
    model = build.build_model({**config, "init": None}, spec).to(device)
    model.load_state_dict(evaluated_weights(content))
    return model.eval(), spec


def load_teacher(a: Assembly) -> nn.Module | None:
    """The model of the run that `trainer.distill` names, on the device, or None if it names none.

    Raises: ConfigError if the folder holds no run, or the run's data are not read and labelled as these are.
    """
    distill = a.settings.distill
    if distill is None:
        return None
    run = RunDirectory(Path(distill.run))
    if not run.config.exists():
        raise ConfigError(f"trainer.distill.run={distill.run} holds no run; give the folder of one that is trained.")
    teacher, spec = load_model(run, device=a.device)
    same = ("task", "kind", "shape", "num_outputs", "class_names", "vocabulary", "target_vocabulary", "mean", "std")
    changed = [field for field in same if getattr(spec, field) != getattr(a.spec, field)]
    if not changed and read_checkpoint(run, "best")["fingerprint"] != assembly.data_fingerprint(a):
        # Bagged or thinned, the same data have other fingerprints; what decides on splits and scales must be equal.
        theirs, ours = (
            {key: value for key, value in config["data"].items() if key not in OF_TRAINING}
            for config in (run.read_config(), a.config)
        )
        changed = differences(theirs, ours, "data")
    if changed:
        raise ConfigError(
            f"trainer.distill.run={distill.run} was trained on other data: their {changed[0]} differs from that of "
            f"data={a.spec.name}; teacher and student must have the same data, split (data.split_seed) included."
        )
    return teacher


def read_checkpoint(run: RunDirectory, which: str) -> dict[str, Any]:
    """best.pt or last.pt, verified, on the CPU. Raises: UsageError if there is none."""
    path = {"best": run.best, "last": run.last}[which]
    try:
        return checkpoint.load(path)
    except FileNotFoundError:
        raise UsageError(f"{run} has no {path.name}{_why_not(run, path)}.") from None


def _why_not(run: RunDirectory, path: Path) -> str:
    """What can be said, and done, where a checkpoint is not."""
    status = str(run.read_json(run.summary).get("status", "running"))
    others = [word for word, other in (("best", run.best), ("last", run.last)) if other != path and other.exists()]
    instead = f"; what is left: checkpoint={others[0]}" if others else ""
    if status in ("completed", "early_stopped"):
        return f", though it is {status.replace('_', ' ')}: the file has been removed since{instead}"
    if status == "diverged":
        return f": it diverged before they were saved{instead}"
    return f" yet; train it further: dlrun resume {run}"


def read_snapshots(run: RunDirectory) -> list[dict[str, Any]]:
    """The weights a run has kept on its way, oldest first. Raises: UsageError if there are none."""
    paths = sorted(
        run.checkpoints.glob("snapshot_*.pt"), key=lambda path: [int(n) for n in re.findall(r"\d+", path.name)]
    )
    if not paths:
        raise UsageError(
            f"{run} has kept no snapshots (checkpoints/snapshot_*.pt); only runs trained with callbacks=snapshots do."
        )
    return [checkpoint.load(path) for path in paths]


def reassemble(run: RunDirectory, content: Mapping[str, Any], device_word: str | None = None) -> Assembly:
    """All parts of a run put together again, the model with the weights of a checkpoint, to be evaluated.

    Raises: UsageError if the data are not those that the checkpoint was trained on.
    """
    config = run.read_config()
    use_paths(run)
    check(config)
    a = assembly.assemble({**config, "init": None}, device_word)  # its file may be gone, and its weights are replaced
    a.config = config
    if content["fingerprint"] != assembly.data_fingerprint(a):
        raise UsageError(
            f"{run}: the data are not those the run was trained on (their fingerprint differs), so its splits cannot "
            "be had again; bring them back (data.root, data.path)."
        )
    a.model.load_state_dict(evaluated_weights(content))
    return a


def use_paths(run: RunDirectory) -> None:
    """Find the user's own modules where the run found them."""
    known = run.read_json(run.provenance).get("python_path", [])
    sys.path += [path for path in known if path not in sys.path]


def evaluated_weights(content: Mapping[str, Any]) -> dict[str, Any]:
    """The weights to evaluate in a checkpoint: best.pt's, or last.pt's averaged ones where there are."""
    if "model" in content:
        return dict(content["model"])
    train_state = content["state"]["train"]
    average = train_state["average"]
    return dict(average["module"] if average else train_state["model"])
