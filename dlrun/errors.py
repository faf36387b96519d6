"""Every error dlrun shows a user: one sentence with the key, what was given, what is allowed, and the way out."""

import difflib
from collections.abc import Iterable, Sequence


class DlrunError(Exception):
    """Root of the tree; the command line prints it as one sentence and exits with `exit_code`."""

    exit_code = 2


class UsageError(DlrunError):
    """The command line itself is wrong: an unknown command, a missing argument, a run that does not exist."""


class ConfigError(DlrunError):
    """A configuration value is unknown, of the wrong type, out of range or in conflict with another."""


class ContractError(DlrunError):
    """Two parts do not fit together, or a part does not keep its contract: model and data, optimizer and model."""


class DataError(DlrunError):
    """Data are missing, unreadable, damaged or unfit for what was asked of them."""


class ResumeError(DlrunError):
    """A run cannot be continued exactly: nothing to resume, finished, or something it depends on has changed."""


class CheckpointError(DlrunError):
    """A checkpoint cannot be written or is damaged."""

    exit_code = 1


class MissingExtraError(DlrunError):
    """An optional dependency is needed and not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs an optional package: pip install 'dlrun[{extra}]'")


def did_you_mean(word: str, choices: Iterable[str], form: str = "{}") -> str:
    """` Did you mean 'x'?` for the choice nearest to `word`, or an empty string when none is near.

    Args:
        form: how a choice is written, with {} for it.
    """
    near = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return f" Did you mean '{form.format(near[0])}'?" if near else ""


FEW = 24


def one_of(names: Sequence[str], group: str) -> str:
    """`one of a, b, c` of the choices in a group; of many, where they are listed: a wall of names helps nobody."""
    if len(names) > FEW:
        return f"one of the {len(names)} that `dlrun list {group}` shows"
    return f"one of {', '.join(names)}"
