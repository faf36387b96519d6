"""Which runs can be trained together, by their configurations alone. Nothing here imports torch."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from dlrun.config.identity import canonical

# What may differ between the runs of a stack: it decides numbers, and never which operations are done.
FREE = (
    "name",
    "seed",
    "init",
    "optimizer",
    "scheduler",
    "data.label_noise",
    "trainer.clip",
    "trainer.early_stopping",
)

# What a stack does not do, by the key that asks for it.
REFUSED: dict[str, str] = {
    "trainer.accumulate": "it takes each batch as a whole; set it to 1",
    "trainer.compile": "it is not compiled; set it to false",
    "trainer.graph": "its steps are not captured in a CUDA graph; set it to auto or false",
    "trainer.sam": "it takes the gradient once in a step; set it to null",
    "trainer.penalty": "its objective is the loss alone; set it to null",
    "trainer.distill": "its objective is the loss alone; set it to null",
    "trainer.freeze": "all its weights learn at every step; set it to null",
    "trainer.swa": "its average is not that of one run; set it to null",
    "trainer.checkpoint_activations": "it keeps its activations; set it to false",
    "model.carry": "it does not carry states from batch to batch; set it to false",
}
LARGEST = 64  # runs in a stack: more gain nothing
PLAIN = {"trainer.accumulate": (1,), "trainer.graph": ("auto", False)}


def stacks(configs: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """Which configurations can be trained together: lists of their positions, in order; alone is what must be alone."""
    groups: dict[str, list[int]] = {}
    for position, config in enumerate(configs):
        key = f"alone {position}" if obstacle(config) else canonical(_bound(config))
        groups.setdefault(key, []).append(position)
    return list(groups.values())


def parts(stack: Sequence[int], workers: int) -> list[list[int]]:
    """The members of a stack dealt out to workers, as equally many to each as can be, two or more if there are."""
    count = max(min(workers, len(stack) // 2), -(-len(stack) // LARGEST), 1)
    return [list(stack[part::count]) for part in range(count)]


def obstacle(config: Mapping[str, Any]) -> str:
    """Why a run cannot be part of a stack, as a sentence; empty if nothing in its configuration is against it."""
    for key, why in REFUSED.items():
        value = _get(config, key)
        if value not in PLAIN.get(key, (None, False)):
            return f"{key}={value} cannot be trained in a stack: {why}."
    for name, node in (config.get("callbacks") or {}).items():
        if not str(node.get("_target_", "")).startswith("dlrun."):
            return f"callbacks.{name} cannot be trained in a stack: a callback may look at what is not there in one."
    data, optimizer = config["data"], config["optimizer"]
    if data.get("batch_size") == "auto":
        return "data.batch_size=auto cannot be trained in a stack: it is found for one run at a time; give a number."
    if data.get("loader") == "streaming":
        return "data.loader=streaming cannot be trained in a stack: its data live on the device; use auto or resident."
    if _get(config, "trainer.precision") == "fp16":
        return "trainer.precision=fp16 cannot be trained in a stack: each run scales its own loss; use fp32 or bf16."
    if str(optimizer.get("_target_", "")).endswith(".LBFGS"):
        return "optimizer=lbfgs cannot be trained in a stack: it evaluates the loss as often as it likes."
    if _get(config, "optimizer.param_groups.until"):
        return "optimizer.param_groups.until cannot be trained in a stack: all its weights learn at every step."
    if config["data"].get("label_noise") and _get(config, "loss.class_weights") == "balanced":
        return (
            "loss.class_weights=balanced with data.label_noise cannot be trained in a stack: each run has its own loss."
        )
    return ""


def _bound(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration without what may differ."""
    bound = copy.deepcopy(dict(config))
    for key in FREE:
        *parents, name = key.split(".")
        node: Any = bound
        for parent in parents:
            node = node.get(parent) or {}
        node.pop(name, None)
    return bound


def _get(config: Mapping[str, Any], key: str) -> Any:
    node: Any = config
    for name in key.split("."):
        node = node.get(name) if isinstance(node, Mapping) else None
    return node
