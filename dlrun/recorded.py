"""Using a recorded run: its model, its metrics on any split, its predictions for new inputs."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dlrun import assembly, build
from dlrun.assembly import Assembly
from dlrun.config.check import check
from dlrun.contracts import Batch, DataSpec, Task
from dlrun.engine import checkpoint
from dlrun.engine.device import choose_device
from dlrun.engine.loaders import Preparation
from dlrun.errors import ConfigError, UsageError
from dlrun.runs.directory import RunDirectory

PREDICT_BATCH = 1024


def load_model(
    run: RunDirectory, which: str = "best", device: torch.device | str = "cpu"
) -> tuple[nn.Module, DataSpec]:
    """A run's model with the weights of its best or last validation, in evaluation mode, without its data."""
    content = read_checkpoint(run, which)
    spec = DataSpec.from_dict(content["spec"])
    config = run.read_config()
    use_paths(run)
    model = build.build_model(config, spec).to(device)
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
    for field in ("task", "kind", "shape", "num_outputs", "class_names", "vocabulary", "mean", "std"):
        theirs, ours = getattr(spec, field), getattr(a.spec, field)
        if theirs != ours:
            raise ConfigError(
                f"trainer.distill.run={distill.run} was trained on other data: their {field} differs from that of "
                f"data={a.spec.name}; teacher and student must have the same data, split (data.split_seed) included."
            )
    return teacher


def evaluate(run: RunDirectory, split: str, which: str, device_word: str | None = None) -> dict[str, float]:
    """Loss and metrics of a run's best or last weights on one of its splits."""
    config = run.read_config()
    use_paths(run)
    check(config)
    content = read_checkpoint(run, which)
    a = assembly.assemble(config, device_word)
    if content["fingerprint"] != assembly.data_fingerprint(a):
        raise UsageError(
            f"{run}: the data are not those the run was trained on (their fingerprint differs), so its splits cannot "
            "be had again; bring them back (data.root, data.path)."
        )
    a.model.load_state_dict(evaluated_weights(content))
    return {f"{split}/{name}": value for name, value in a.evaluator(split)(a.model).items()}


def read_checkpoint(run: RunDirectory, which: str) -> dict[str, Any]:
    """best.pt or last.pt, verified, on the CPU. Raises: UsageError if there is none."""
    path = {"best": run.best, "last": run.last}[which]
    try:
        return checkpoint.load(path)
    except FileNotFoundError:
        raise UsageError(f"{run} has no {path.name} yet; train it further: dlrun resume {run}.") from None


def predict(run: RunDirectory, inputs: Tensor, which: str = "best", device_word: str = "cpu") -> Tensor:
    """A run's outputs for inputs as its data set stores them: uint8 images, encoded rows.

    Returns: (N, classes) probabilities, or (N, outputs) values in the target's own units; float32 on the CPU.
    """
    device = choose_device(device_word)
    model, spec = load_model(run, which, device)
    prepare = Preparation(spec, (), 0, device)
    outputs = []
    with torch.inference_mode():
        for part in inputs.split(PREDICT_BATCH):
            batch = prepare(Batch(part.to(device), torch.zeros(len(part))), 0)
            outputs.append(model(*batch.arguments).float().cpu())
    result = torch.cat(outputs)
    if spec.task is Task.CLASSIFICATION:
        return result.softmax(-1)
    if spec.task is Task.MULTILABEL:
        return result.sigmoid()
    if spec.target_std:
        return result * torch.tensor(spec.target_std) + torch.tensor(spec.target_mean)
    return result


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
