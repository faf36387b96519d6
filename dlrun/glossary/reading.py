"""The mappings of a YAML file, whose values are asked for by type; a complaint is one sentence that names the place."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from dlrun.errors import ConfigError, did_you_mean

LANGUAGES = ("en", "es")
Both = Mapping[str, str]  # a text by language


class Node:
    """A mapping of a YAML file, whose values are asked for by type; every complaint names the place.

    Args:
        where: what complaints call it, such as "glossary/adam.yaml, claims[0]".
        keys: those it may have.
    """

    def __init__(self, where: str, content: Any, keys: Collection[str]) -> None:
        if not isinstance(content, dict):
            raise ConfigError(f"{where} must be a mapping of keys to values, got {type(content).__name__}.")
        unknown = [key for key in content if key not in keys]
        if unknown:
            near = did_you_mean(str(unknown[0]), keys)
            raise ConfigError(f"{where} has no key '{unknown[0]}': must be one of {', '.join(sorted(keys))}.{near}")
        self.where, self.content = where, content

    def has(self, key: str) -> bool:
        return self.content.get(key) is not None

    def text(self, key: str) -> str:
        """A text that is not empty; a number is taken as it was written only in quotes."""
        return str(self._typed(key, str, "a text, in quotes where it looks like a number")).strip()

    def whole(self, key: str, least: int) -> int:
        value = self._typed(key, int, f"a whole number >= {least}")
        if isinstance(value, bool) or value < least:
            raise ConfigError(f"{self.where}: {key} must be a whole number >= {least}, got {value}.")
        return int(value)

    def texts(self, key: str) -> list[str]:
        """A list of texts; none where the key is missing."""
        value = self.content.get(key) or []
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ConfigError(f"{self.where}: {key} must be a list of texts, got {value!r}.")
        return list(value)

    def items(self, key: str, least: int = 1) -> list[Any]:
        value = self.content.get(key) or []
        if not isinstance(value, list) or len(value) < least:
            raise ConfigError(f"{self.where}: {key} must be a list of {least} or more, got {value!r}.")
        return value

    def mapping(self, key: str) -> dict[str, Any]:
        """A mapping that is not empty."""
        return {str(name): value for name, value in self._typed(key, dict, "a mapping").items()}

    def both(self, key: str) -> Both:
        """A text in every language."""
        value = self.content.get(key)
        if not isinstance(value, dict) or set(value) != set(LANGUAGES) or not all(_is_text(v) for v in value.values()):
            raise ConfigError(
                f"{self.where}: {key} must be a text in each of {' and '.join(LANGUAGES)}, got {value!r}."
            )
        return {lang: value[lang].strip() for lang in LANGUAGES}

    def _typed(self, key: str, kind: type, words: str) -> Any:
        value = self.content.get(key)
        if not isinstance(value, kind) or value in ("", {}):
            raise ConfigError(f"{self.where}: {key} must be {words}, got {value!r}.")
        return value


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
