"""The runs that words name: paths, folders of runs, sweeps, searches, run ids, `last`, globs."""

import glob
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from dlrun.errors import UsageError, did_you_mean
from dlrun.runs.directory import RUNS, STUDIES, SWEEPS, RunDirectory, find_run

OUTPUTS = RUNS.parent
MANY = (SWEEPS, STUDIES)  # where the folders of sweeps and searches are
DEPTH = 4  # folders below the one that is named


def find_runs(words: Sequence[str]) -> list[Path]:
    """The directories of all runs that words name, each once; without words all below outputs/.

    Raises: UsageError for a word that names none.
    """
    found: list[Path] = []
    for word in words:
        found += _named(word)
    if not words:
        found = runs_below(OUTPUTS)
        if not found:
            raise UsageError(f"there is no run yet below {OUTPUTS.absolute()}; begin one: dlrun train.")
    return list(dict.fromkeys(path.absolute() for path in found))


def find_folder(word: str, place: Path, record: str) -> Path | None:
    """The folder of many runs that `word` names, by its path, name or id; None if it names none, or several.

    Args:
        place: where such folders are.
        record: the file that each of them has.
    """
    if (Path(word) / record).is_file():
        return Path(word)
    if not re.fullmatch(r"[\w-]{4,}", word):
        return None
    found = [path.parent for path in place.glob(f"*{word}/{record}")]
    return found[0] if len(found) == 1 else None


def runs_below(folder: Path, depth: int = DEPTH) -> list[Path]:
    """Every run in a folder and the folders in it, by name; what is inside of a run is not looked at."""
    return [Path(run) for run in _below(str(folder), depth)]


def _below(folder: str, depth: int) -> Iterator[str]:
    # Plain strings and as few questions to the system as will do: there may be thousands.
    if all(os.path.exists(f"{folder}/{name}") for name in ("config.yaml", "provenance.json")):
        yield folder
    elif depth > 0:
        with suppress(OSError), os.scandir(folder) as entries:
            inner = sorted(entry.path for entry in entries if not entry.name.startswith(".") and entry.is_dir())
            for one in inner:
                yield from _below(one, depth - 1)


def _named(word: str) -> list[Path]:
    path = Path(word).expanduser()
    if path.is_dir():
        if found := runs_below(path):
            return found
        raise UsageError(f"{word} holds no run: there is no config.yaml with a provenance.json in it or below.")
    if any(mark in word for mark in "*?["):
        matches = [run for match in sorted(glob.glob(str(path))) for run in runs_below(Path(match))]
        if matches:
            return matches
        raise UsageError(f"'{word}' matches no run; without a pattern all below {OUTPUTS} are compared.")
    if path.exists():
        raise UsageError(f"{word} is a file; give the folder of a run or of runs.")
    folders = [match for place in MANY for match in place.glob(f"*{glob.escape(word)}") if match.is_dir()]
    if len(folders) == 1 and (found := runs_below(folders[0])):
        return found
    try:
        return [find_run(word).path]
    except UsageError as error:
        near = did_you_mean(word, [one.name for place in MANY for one in place.glob("*")])
        raise UsageError(f"{error}{'' if 'Did you mean' in str(error) else near}") from None


def shown(path: Path) -> str:
    """As short as can be typed."""
    return str(RunDirectory(path))
