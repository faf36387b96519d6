"""Lengths of training as users write them, turned into whole steps or epochs. Torch-free."""

import re
from collections.abc import Mapping
from typing import Any, Literal

from dlrun.errors import ConfigError

Unit = Literal["step", "epoch"]

TEXT = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(%|ep|epochs?|steps?)\s*")
ALLOWED = "write steps (500 or '500 steps'), epochs ('2ep') or a part of the run (0.05 or '5%')"


def parse(value: Any, key: str = "a length") -> tuple[float, Unit | Literal["plain", "part"]]:
    """Read a length: its amount, and whether that counts steps, epochs, parts of the run, or (a plain whole number)
    whatever the place counts in.

    Raises: ConfigError naming `key` if it is not a length.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value, "plain"
    if isinstance(value, float) and 0 <= value < 1:
        return value, "part"
    if isinstance(value, str) and (found := TEXT.fullmatch(value)):
        amount, unit = float(found[1]), found[2]
        if unit == "%":
            return amount / 100, "part"
        return amount, "epoch" if unit.startswith("ep") else "step"
    shown = f"'{value}'" if isinstance(value, str) else value
    raise ConfigError(f"{key} must be a length of training, got {shown}: {ALLOWED}")


def is_duration(value: Any) -> bool:
    """Whether `parse` can read `value`."""
    try:
        parse(value)
    except ConfigError:
        return False
    return True


def resolve(value: Any, *, unit: Unit, steps_per_epoch: int, total_steps: int, key: str = "a length") -> int:
    """A length in whole steps or epochs.

    Args:
        value: a plain whole number is taken to be in `unit`; see `parse` for the rest.
        unit: of the result.
        total_steps: what "100%" is, in optimizer steps.
        key: names the value in messages.

    Returns: the nearest whole number of `unit`, at least 1 for any positive length.
    Raises: ConfigError if `value` is not a length.
    """
    amount, kind = parse(value, key)
    if kind in ("plain", unit):
        exact = amount
    else:
        steps = amount * (total_steps if kind == "part" else steps_per_epoch if kind == "epoch" else 1)
        exact = steps if unit == "step" else steps / steps_per_epoch
    return max(1, round(exact)) if amount > 0 else 0


def resolve_arguments(
    arguments: Mapping[str, Any], *, unit: Unit, steps_per_epoch: int, total_steps: int
) -> dict[str, Any]:
    """The arguments of a schedule with every text that is a length, also within lists, made a whole number.

    Numbers are left as they are: 0.1 may be a factor, and 10 is already in `unit`.
    """

    def resolved(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [resolved(item) for item in value]
        if isinstance(value, str) and is_duration(value):
            return resolve(value, unit=unit, steps_per_epoch=steps_per_epoch, total_steps=total_steps)
        return value

    return {name: resolved(value) for name, value in arguments.items()}
