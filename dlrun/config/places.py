"""Where a value may be set: keys that the YAML files list, and those that a part understands beside them."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.types import Override

from dlrun.config.check import NAMED_PARTS, keys_of_group, known_keys, takes_any_key
from dlrun.config.values import shown
from dlrun.errors import ConfigError, did_you_mean


def placed(item: Override, tree: Mapping[str, Any], groups: Sequence[str]) -> str:
    """An override as Hydra will take it: with ++ if its key is right and no YAML lists it.

    Such are an argument that only the part's signature has (`optimizer.maximize=true`), the keys of a mapping that may
    have any (`optimizer.param_groups.lr_factors={head: 10}`), and those of a group that is null (`trainer.sam.rho=1`).

    Args:
        tree: the configuration without overrides of values.
        groups: of which something can be chosen.

    Raises: ConfigError if the key is no right key.
    """
    text, path = str(item.input_line), item.key_or_group.split(".")
    if item.is_add() or item.is_force_add():
        return text
    node: Any = tree
    for depth, key in enumerate(path):
        here = ".".join(path[:depth])
        if node is None and depth == len(path) - 1 and (keys := keys_of_group(path[:depth])):
            if key not in keys:
                raise _unknown(item, key, here, sorted(keys))
            return f"++{text}"  # one key of a group that is null switches the group on
        if not isinstance(node, Mapping):
            raise ConfigError(f"{item.key_or_group} cannot be set: {here} is {shown(node)}, not a group of keys.")
        if key not in node:
            if _belongs(path, depth, node, tree):
                return text if item.is_delete() else f"++{text}"
            raise _unknown(item, key, here, _keys(path, depth, node, groups))
        node = node[key]
    if isinstance(node, Mapping) and isinstance(item.value(), dict):
        return f"++{text}"  # Hydra refuses new keys in a mapping; dlrun.config.check knows which are right
    return text


def refuse_shadowed(parsed: Sequence[Override]) -> None:
    """Refuse `a=null a.b=1`: the second has lost its place to the first."""
    for item in parsed:
        for other in parsed:
            inside = item.key_or_group.startswith(f"{other.key_or_group}.")
            if inside and not other.is_delete() and not isinstance(other.value(), dict | str):
                raise ConfigError(
                    f"{item.key_or_group} cannot be set: {other.input_line} leaves no such key; drop one."
                )


def _belongs(path: Sequence[str], depth: int, node: Mapping[str, Any], tree: Mapping[str, Any]) -> bool:
    """Whether the key at `depth`, the last of the path, may be added to `node`."""
    if depth != len(path) - 1 or path[0] == "hydra":
        return False
    if depth == _depth_of_part(path):
        return path[-1] in known_keys(path[0], node)
    return depth > 1 and takes_any_key(path[0], tree[path[0]], path[1:depth])


def _depth_of_part(path: Sequence[str]) -> int:
    """How deep the arguments of a part lie: model.widths, but augment.cutout.size."""
    return 2 if path[0] in NAMED_PARTS else 1


def _keys(path: Sequence[str], depth: int, node: Mapping[str, Any], groups: Sequence[str]) -> list[str]:
    keys = set(map(str, node))
    if depth == 0:
        keys |= set(groups)
    elif depth == _depth_of_part(path) and path[0] != "hydra":
        keys |= known_keys(path[0], node)
    return sorted(key for key in keys if not re.fullmatch("_.*_", key))


def _unknown(item: Override, key: str, here: str, keys: Sequence[str]) -> ConfigError:
    if not here and key in keys:
        return ConfigError(f"{item.key_or_group} cannot be set: no {key} is chosen; write {key}=NAME as well.")
    owner = f"{here} has {', '.join(keys) or 'no keys'}" if here else f"The keys are {', '.join(keys)}"
    above, below = here.split(".") if here else [], item.key_or_group.removeprefix(f"{here}.").split(".")[1:]
    hint = did_you_mean(key, keys, ".".join([*above, "{}", *below]) if below else "{}")
    return ConfigError(f"unknown key '{item.key_or_group}' in '{item.input_line}'.{hint} {owner}.")
