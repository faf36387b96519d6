"""A run's config.yaml as dotted keys, read without building it: thousands of them are wanted at once.

Loading one takes OmegaConf 40 ms and libyaml 2; what dlrun writes is so regular that lines can be taken one at a time,
and most scalars are those of the run before. Whatever does not look like that is left to libyaml.
"""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import yaml  # type: ignore[import-untyped]

LINE = re.compile(r"( *)(?:(- )(.+)|([\w./-]+):(?: (.+))?)")
SPECIAL = tuple("&*!|>%@`?#")  # anchors, tags, blocks of text: more than a line says what they are
FLOAT = re.compile(r"[-+]?(?:[0-9][0-9_]*)(?:\.[0-9_]*)?[eE][-+]?[0-9]+$")


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML as OmegaConf has it: 1e-3 is a number, and no text is a date."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+0123456789"))


class _IrregularError(ValueError):
    """The text is not what dlrun writes."""


def read_flat(text: str) -> dict[str, Any]:
    """The leaves of a YAML mapping by dotted keys; a list is a leaf, and so is an empty mapping.

    Raises: yaml.YAMLError or ValueError if it is none.
    """
    try:
        return _read_lines(text.splitlines())
    except (_IrregularError, yaml.YAMLError):
        content = yaml.load(text, Loader=_Loader)
    if not isinstance(content, Mapping):
        raise ValueError(f"a mapping is expected, got {type(content).__name__}")
    return dict(flatten(content))


def flatten(content: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings by dotted keys."""
    for key, value in content.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _read_lines(lines: list[str]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    open_keys: list[tuple[int, str]] = []  # indentation and dotted name of the mappings around the line
    deepest = 0  # the next line may stand no further in
    waiting = ""  # a key whose value is on the lines after it
    for line in lines:
        match = LINE.fullmatch(line)
        if match is None:
            raise _IrregularError
        indent, dash, item, name, value = match.groups()
        depth = len(indent)
        if dash:
            if not waiting or item.startswith("- ") or (": " in item and item[0] not in "'\"") or item.endswith(":"):
                raise _IrregularError
            flat.setdefault(waiting, []).append(_scalar(item))
            deepest = open_keys[-1][0]
            continue
        if depth > deepest or (waiting and waiting not in flat and depth < deepest):
            raise _IrregularError
        while open_keys and open_keys[-1][0] >= depth:
            open_keys.pop()
        key = str(_scalar(name))
        dotted = f"{open_keys[-1][1]}.{key}" if open_keys else key
        if value is None:
            open_keys.append((depth, dotted))
            waiting, deepest = dotted, depth + 2
        else:
            flat[dotted] = _scalar(value)
            waiting, deepest = "", depth
    if waiting and waiting not in flat:
        raise _IrregularError
    return flat


def parse_scalar(text: str) -> Any:
    """A value as it would be read from a configuration; the text itself if it is no YAML."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError:
        return text


@cache
def _scalar(text: str) -> Any:
    """One value; the same text is the same object, which nobody changes."""
    if text.startswith(SPECIAL):
        raise _IrregularError
    return yaml.load(text, Loader=_Loader)
