"""Times and sizes as people write them: "30m", "8GB"."""

from __future__ import annotations

import re

from dlrun.errors import ConfigError

SECONDS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
BYTES = {"": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40}


def seconds_of(value: int | float | str | None, key: str) -> float | None:
    """ "90", "30m" or "1.5h" as seconds. Raises: ConfigError."""
    return _number(value, key, {**SECONDS}, "a time such as 90, 30m or 2h")


def byte_count(value: int | float | str | None, key: str) -> int | None:
    """ "8GB" or a number of bytes as bytes; a GB is 2^30. Raises: ConfigError."""
    count = _number(
        value, key, {**BYTES, **{unit[:1]: size for unit, size in BYTES.items() if unit}}, "a size such as 800MB or 8GB"
    )
    return None if count is None else int(count)


def _number(value: int | float | str | None, key: str, units: dict[str, int], words: str) -> float | None:
    if value is None:
        return None
    match = re.fullmatch(r"\s*([0-9]+\.?[0-9]*(?:e[0-9]+)?)\s*([a-zA-Z]*)\s*", str(value))
    size = {unit.lower(): size for unit, size in units.items()}.get(match[2].lower()) if match else None
    if match is None or size is None or float(match[1]) == 0:
        raise ConfigError(f"{key} must be {words}, got '{value}'.")
    return float(match[1]) * size
