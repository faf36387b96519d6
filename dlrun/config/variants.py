"""Configurations that differ from a known one in plain values, told without Hydra, which needs a tenth of a second."""

import copy
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf


def with_value(config: dict[str, Any], item: Override) -> dict[str, Any] | None:
    """A copy of the resolved configuration with one value changed; None if only Hydra can tell what it comes to.

    It holds where nothing `refers` to the key.
    """
    value, changed = item.value(), copy.deepcopy(config)
    *path, last = item.key_or_group.split(".")
    node: Any = changed
    for key in path:
        node = node.get(key) if isinstance(node, dict) else None
    is_node = isinstance(node, dict) and last in node and not isinstance(node[last], dict)
    if not is_node or isinstance(value, dict) or "${" in str(value):
        return None
    node[last] = value
    return changed


def refers(composed: DictConfig) -> bool:
    """Whether a value stands for another key's: by `${KEY}`, or in an interpolation that could name one."""
    raw = OmegaConf.to_container(composed, resolve=False)
    assert isinstance(raw, dict)
    text = str({key: value for key, value in raw.items() if key != "hydra"})
    return "${" in text.replace("${hydra:", "").replace("${oc.env:", "")
