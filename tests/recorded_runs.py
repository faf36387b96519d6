"""Run directories without a training: the files that are read of a run, with the numbers a test wants."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

CONFIG: dict[str, Any] = {
    "name": "digits-mlp-adamw",
    "seed": 0,
    "data": {"name": "digits", "_target_": "dlrun.data.embedded.digits", "batch_size": 64, "limit": None},
    "optimizer": {"_target_": "torch.optim.AdamW", "_partial_": True, "lr": 1e-3, "betas": [0.9, 0.999]},
    "model": {"_target_": "dlrun.models.mlp.mlp", "widths": [256, 128], "dropout": 0.0},
    "augment": {},
    "trainer": {"epochs": 20, "max_steps": None, "accumulate": 1, "ema": None},
}
SGD = {"optimizer": {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.1, "momentum": 0.9}}
HYDRA = """\
hydra:
  runtime:
    choices:
      logger: none
      model: {model}
      optimizer: {optimizer}
      hydra/env: default
    verbose: false
"""


def config_of(**settings: Any) -> dict[str, Any]:
    """CONFIG with some keys changed: config_of(seed=1, **{"optimizer.lr": 0.1})."""
    config: dict[str, Any] = json.loads(json.dumps(CONFIG))
    for key, value in settings.items():
        *groups, last = key.split(".")
        inner = config
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[last] = value
    return config


def make_run(
    path: Path,
    settings: Mapping[str, Any] | None = None,
    *,
    val: float | None = 0.9,
    test: float | None = None,
    status: str | None = "completed",
    choices: Mapping[str, str] | None = None,
    summary: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
    curve: Mapping[int, float] | None = None,
) -> Path:
    """Write a run directory.

    Args:
        settings: as for `config_of`.
        val, test: accuracies; None was not measured.
        status: of summary.json; None leaves no summary.
        curve: val/accuracy by step.
    """
    (path / ".hydra").mkdir(parents=True)
    (path / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(config_of(**(settings or {})))))
    if choices:
        (path / ".hydra" / "hydra.yaml").write_text(HYDRA.format(**{"model": "mlp", "optimizer": "adamw", **choices}))
    known = {"run_id": f"{abs(hash(path.name)):08x}"[:8], "started": f"2026-11-26T10:00:00+00:00 {path.name}"}
    known |= {"data_fingerprint": "f25c36974983bb98", "device": {"name": "cpu"}, **(provenance or {})}
    (path / "provenance.json").write_text(json.dumps(known))
    if status is not None:
        best = (
            {"epoch": 9.0, "step": 189, "metrics": {"val/accuracy": val, "val/loss": 0.5}} if val is not None else None
        )
        content = {"status": status, "epochs": 20.0, "steps": 420, "seconds": 2.0, "parameters": 51594}
        content |= {"monitor": "val/accuracy", "best": best, **(summary or {})}
        content["metrics"] = {} if test is None else {"test/accuracy": test}
        (path / "summary.json").write_text(json.dumps(content))
    records = [
        {"step": step, "epoch": step / 21, "time": step / 100, "val/accuracy": v} for step, v in (curve or {}).items()
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return path
