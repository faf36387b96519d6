"""A run's identity follows its configuration, whatever its order, and nothing else."""

import copy
import hashlib
import random
from typing import Any

import pytest

from dlrun.config.compose import compose
from dlrun.config.identity import canonical, differences, run_id


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    return compose([]).config


def shuffled(node: Any, generator: random.Random) -> Any:
    """The same mappings with their keys in another order."""
    if not isinstance(node, dict):
        return node
    keys = list(node)
    generator.shuffle(keys)
    return {key: shuffled(node[key], generator) for key in keys}


def leaves(node: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(node, dict) or not node:
        return [path]
    return [leaf for key, value in node.items() for leaf in leaves(value, (*path, key))]


def changed(config: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    """A copy with the value at `path` replaced by one that nobody would give."""
    other = copy.deepcopy(config)
    node = other
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = "changed"
    return other


def test_the_order_of_keys_does_not_matter(config: dict[str, Any]):
    others = [shuffled(config, random.Random(seed)) for seed in range(5)]
    assert {run_id(other) for other in others} == {run_id(config)}
    assert {canonical(other) for other in others} == {canonical(config)}


def test_every_value_but_the_name_matters(config: dict[str, Any]):
    paths = [path for path in leaves(config) if path != ("name",)]
    ids = {path: run_id(changed(config, path)) for path in paths}
    assert len({*ids.values(), run_id(config)}) == len(paths) + 1
    assert run_id(changed(config, ("name",))) == run_id(config)


def test_it_does_not_change_from_version_to_version():
    text = b'{"optimizer":{"betas":[0.9,0.999],"lr":0.001},"seed":0}'
    config = {"seed": 0, "optimizer": {"lr": 1e-3, "betas": [0.9, 0.999]}, "name": "x"}
    assert run_id(config) == hashlib.sha256(text).hexdigest()[:8]


def test_the_run_directory_is_called_by_it(config: dict[str, Any]):
    composed = compose([])
    assert composed.run_dir.name.endswith(f"_digits-mlp-adamw_{run_id(config)}")


def test_differences_name_every_place_and_nothing_else(config: dict[str, Any]):
    assert differences(config, shuffled(config, random.Random(0))) == []
    for path in leaves(config):
        (line,) = differences(config, changed(config, path))
        assert line.startswith(f"{'.'.join(path)}: ")
        assert line.endswith(' -> "changed"')


def test_differences_of_what_is_added_and_gone():
    old = {"a": {"b": 1, "c": [1, 2]}, "d": None}
    new = {"a": {"b": 1.5, "e": True}, "f": {"g": "x"}}
    assert differences(old, new) == [
        "a.b: 1 -> 1.5",
        "a.c: [1, 2] -> null",
        "a.e: null -> true",
        'f: null -> {"g": "x"}',
    ]
