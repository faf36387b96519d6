"""A run's identity: a hash of its resolved configuration."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def canonical(config: Mapping[str, Any]) -> str:
    """The configuration as one line of JSON that does not depend on the order of keys."""
    return json.dumps(config, sort_keys=True, separators=(",", ":"), default=str)


def run_id(config: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits; equal for configurations that differ in their display name alone."""
    content = canonical({key: value for key, value in config.items() if key != "name"})
    return hashlib.sha256(content.encode()).hexdigest()[:8]


def differences(old: Any, new: Any, key: str = "") -> list[str]:
    """Each place where two configurations differ, as `key: old -> new`."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        names = [*old, *(name for name in new if name not in old)]
        found = []
        for name in names:
            inner = f"{key}.{name}" if key else str(name)
            found += differences(old.get(name), new.get(name), inner)
        return found
    return [] if old == new else [f"{key}: {json.dumps(old, default=str)} -> {json.dumps(new, default=str)}"]
