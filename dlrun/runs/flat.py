"""A run's config.yaml as dotted keys, read without building it: thousands of them are wanted at once.

Loading one takes OmegaConf 40 ms and libyaml 2. But the runs of a sweep have most of it in common, so the text is cut
before each key that is not indented, and a piece that has been read before is not read again.
"""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import yaml  # type: ignore[import-untyped]

PIECE = re.compile(r"\n(?=[A-Za-z_])")
FLOAT = re.compile(r"[-+]?[0-9][0-9_]*(?:\.[0-9_]*)?[eE][-+]?[0-9]+$")


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML as OmegaConf has it: 1e-3 is a number, and no text is a date."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+0123456789"))


def read_flat(text: str) -> dict[str, Any]:
    """The leaves of a YAML mapping by dotted keys, all of them hashable: a list is a tuple, an empty mapping ().

    Raises: yaml.YAMLError or ValueError if it is none.
    """
    flat: dict[str, Any] = {}
    try:
        for piece in PIECE.split(text):
            flat |= _read(piece)
        return flat
    except (yaml.YAMLError, ValueError):  # a text that cannot be cut there, or cannot be read
        return _read(text)


def flatten(content: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings by dotted keys."""
    for key, value in content.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", frozen(value)


def frozen(value: Any) -> Any:
    """A value that can be a key of a dictionary."""
    if isinstance(value, list | tuple):
        return tuple(map(frozen, value))
    if isinstance(value, Mapping):
        return tuple((key, frozen(inner)) for key, inner in value.items())
    return value


def parse_value(text: str) -> Any:
    """A value as it would be read from a configuration; the text itself if it is no YAML."""
    try:
        return frozen(yaml.load(text, Loader=_Loader))
    except yaml.YAMLError:
        return text


@cache
def _read(text: str) -> dict[str, Any]:
    content = yaml.load(text, Loader=_Loader)
    if not isinstance(content, Mapping):
        raise ValueError(f"a mapping is expected, got {type(content).__name__}")
    return dict(flatten(content))
