"""Reading `RUN key=value` arguments of the commands that work on a recorded run."""

from collections.abc import Mapping, Sequence

from dlrun.config.check import device_problem
from dlrun.errors import UsageError, did_you_mean
from dlrun.runs.directory import RunDirectory, find_run


def take_run(
    arguments: Sequence[str], command: str, known: Mapping[str, Sequence[str] | None]
) -> tuple[RunDirectory, dict[str, str]]:
    """The run that the first argument names, and the `key=value` words after it.

    Args:
        known: the keys the command understands, with the values allowed (None: any).

    Raises: UsageError for no run, two runs, or a key or value that is not known.
    """
    options = [word for word in arguments if word.startswith("-")]
    if options:
        raise UsageError(f"unknown option '{options[0]}' of dlrun {command}; see `dlrun {command} --help`.")
    names = [word for word in arguments if "=" not in word]
    if not names:
        raise UsageError(f"dlrun {command} needs a RUN: a path, a run id or 'last'.")
    if len(names) > 1:
        raise UsageError(f"dlrun {command} takes one RUN, got {' and '.join(names)}.")
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
    return find_run(names[0]), words
