"""Reading the arguments of commands: runs, `key=value` words, the folder of --config-dir."""

import math
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress

from dlrun.config.check import OPTIONAL, PLAIN, REQUIRED, device_problem
from dlrun.errors import UsageError, did_you_mean
from dlrun.runs.directory import RunDirectory, find_run

OF_RUNS = (*PLAIN, *REQUIRED, *OPTIONAL, "experiment", "hydra")  # keys that a run's words begin with


def take_run(
    arguments: Sequence[str], command: str, known: Mapping[str, Sequence[str] | None]
) -> tuple[RunDirectory, dict[str, str]]:
    """The one run that an argument names, and the `key=value` words; else as `take_runs`."""
    names = [word for word in arguments if "=" not in word and not word.startswith("-")]
    if len(names) > 1:
        raise UsageError(f"dlrun {command} takes one RUN, got {' and '.join(names)}.")
    runs, words = take_runs(arguments, command, known)
    return runs[0], words


def take_runs(
    arguments: Sequence[str], command: str, known: Mapping[str, Sequence[str] | None]
) -> tuple[list[RunDirectory], dict[str, str]]:
    """The runs that arguments name, and the `key=value` words among them.

    Args:
        known: the keys the command understands, with the values allowed (None: any).

    Raises: UsageError for no run, or a key or value that is not known.
    """
    options = [word for word in arguments if word.startswith("-")]
    if options:
        raise UsageError(f"unknown option '{options[0]}' of dlrun {command}; see `dlrun {command} --help`.")
    names = [word for word in arguments if "=" not in word]
    if not names:
        raise UsageError(f"dlrun {command} needs a RUN: a path, a run id or 'last'.")
    words: dict[str, str] = {}
    for word in (word for word in arguments if "=" in word):
        key, _, value = word.partition("=")
        if key not in known:
            allowed = f"only {', '.join(known)}" if known else "no settings; a run is resumed as it was configured"
            raise UsageError(f"dlrun {command} does not know '{word}': it takes {allowed}.{did_you_mean(key, known)}")
        choices = known[key]
        if choices is not None and value not in choices:
            near = did_you_mean(value, choices)
            raise UsageError(f"{key} must be one of {', '.join(choices)}, got '{value}'.{near}")
        if key == "device" and (problem := device_problem(key, value)) is not None:
            raise UsageError(problem)
        words[key] = value
    return [find_run(name) for name in names], words


def own_words(arguments: Sequence[str], known: Collection[str]) -> tuple[dict[str, str], list[str]]:
    """The `key=value` words of the command's own among its arguments, and the others, which are the run's.

    Raises: UsageError for one that is given twice, and for a key that no run has and is nearly one of them.
    """
    own: dict[str, str] = {}
    others = []
    for word in arguments:
        key, equals, value = word.partition("=")
        if not equals or key not in known:
            if equals and not key.startswith("-") and (near := _one_of_its_own(key, known)):
                raise UsageError(f"unknown key '{key}', in {word}.{near}")
            others.append(word)
            continue
        if key in own:
            raise UsageError(f"{key} is given twice, as '{own[key]}' and '{value}'; leave one out.")
        own[key] = value
    return own, others


def _one_of_its_own(key: str, known: Collection[str]) -> str:
    """` Did you mean 'steps'?` if `key` is nearer to a key of the command than to those of runs, else nothing."""
    near = did_you_mean(key, known)
    return near if near == did_you_mean(key, [*known, *OF_RUNS]) else ""


def config_folder(arguments: Sequence[str], command: str) -> tuple[list[str], str | None]:
    """The arguments without --config-dir, and the folder that it names; None where it is not given.

    Raises: UsageError if it is given without one, or twice.
    """
    others: list[str] = []
    folder: str | None = None
    rest = iter(arguments)
    for word in rest:
        option, equals, value = word.partition("=")
        if option not in {"--config-dir", "-cd"}:
            others.append(word)
            continue
        if folder is not None:
            raise UsageError("--config-dir is given twice; it takes one folder.")
        folder = value if equals else next(rest, "")
        if not folder:
            raise UsageError(f"--config-dir needs a folder: dlrun {command} --config-dir FOLDER.")
    return others, folder


def whole(words: Mapping[str, str], key: str, least: int) -> int | None:
    """The whole number of a key, None where it is not given. Raises: UsageError if it is none, or below `least`."""
    text = words.get(key)
    if text is None:
        return None
    with suppress(ValueError):
        if (number := int(text)) >= least:
            return number
    raise UsageError(f"{key} must be a whole number >= {least}, got '{text}'.")


def real(words: Mapping[str, str], key: str, *, zero: bool) -> float | None:
    """The number of a key, above 0 or `zero` too, None where it is not given. Raises: UsageError for any other."""
    text = words.get(key)
    if text is None:
        return None
    with suppress(ValueError):
        number = float(text)
        if math.isfinite(number) and (number > 0 or (zero and number == 0)):
            return number
    raise UsageError(f"{key} must be a number {'>= 0' if zero else '> 0'}, got '{text}'.")
