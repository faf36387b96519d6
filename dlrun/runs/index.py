"""What is known of many runs, kept beside them so that asking again opens one file and not thousands.

Each folder of runs may hold an `.index.jsonl`: a line for each run, with the times and sizes of the files it was made
from. An entry whose files have changed is made anew, one that cannot be read is too, and nobody depends on the index.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from dlrun.runs.files import write_text
from dlrun.runs.flat import frozen, read_flat

NAME = ".index.jsonl"
VERSION = 1  # of an entry's fields
WORTHWHILE = 20  # runs in a folder; fewer are read as quickly, and need no file among the user's
SOURCES = ("config.yaml", "provenance.json", "summary.json", "evaluation.json")
GROWING = "metrics.jsonl"  # read only while there is no summary
FIELDS = ("choices", "summary", "origin", "metrics", "problems")  # beside the configuration
FINISHED = frozenset({"completed", "early_stopped"})

Stamp = list[int]
Content = dict[str, Any]  # the fields of an Entry


@dataclass(frozen=True)
class Entry:
    """One run.

    Attributes:
        config: the resolved configuration, by dotted keys; its values are hashable.
        choices: what was chosen in each group of conf/: {"model": "mlp"}.
        summary: of summary.json; empty while there is none.
        origin: of provenance.json: "id", "started", "commit" (with "+" and a hash of what was not committed),
            "device", "fingerprint", "dlrun", "torch".
        metrics: by name: those of the best validation ("val/accuracy") and the final ones ("test/accuracy").
        problems: a sentence for each file that could not be read.
    """

    path: Path
    config: Mapping[str, Any]
    choices: Mapping[str, str] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)
    origin: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    problems: Sequence[str] = ()

    @property
    def status(self) -> str:
        """As in summary.json; without one "running", or "killed" if no process trains it any more."""
        known = self.summary.get("status")
        return str(known) if known else "running" if _is_locked(self.path) else "killed"

    @property
    def finished(self) -> bool:
        """Whether it came to the end that it was to have."""
        return self.summary.get("status") in FINISHED


class RunIndex:
    """Reads runs, by the index of their folder where it holds, and keeps what it had to read."""

    def __init__(self) -> None:
        self._kept: dict[Path, dict[str, tuple[Stamp, Content]]] = {}
        self._stale: set[Path] = set()

    def read(self, runs: Iterable[Path]) -> list[Entry]:
        """The entries of these run directories, in their order."""
        entries = []
        for run in runs:
            folder = run.parent
            if folder not in self._kept:
                self._kept[folder] = _load(folder / NAME)
            stamp = _stamp(str(run))
            known, content = self._kept[folder].get(run.name, (None, {}))
            if known != stamp:
                content = _content(str(run))
                self._kept[folder][run.name] = (stamp, content)
                self._stale.add(folder)
            entries.append(Entry(run, **content))
        return entries

    def save(self) -> None:
        """Write the indices that have changed, where there are many runs and the folder can be written."""
        for folder in self._stale:
            with suppress(OSError):
                there = set(os.listdir(folder))
                kept = {name: known for name, known in self._kept[folder].items() if name in there}
                if len(kept) >= WORTHWHILE:
                    write_text(folder / NAME, _text(kept))
        self._stale.clear()


def _text(kept: Mapping[str, tuple[Stamp, Content]]) -> str:
    """The lines of an index. The first holds one configuration, the others what differs from it."""
    base = next(iter(kept.values()))[1]["config"]
    lines: list[Any] = [[VERSION, base]]
    for name, (stamp, content) in kept.items():
        config = content["config"]
        changed = {key: value for key, value in config.items() if key not in base or base[key] != value}
        absent = [key for key in base if key not in config]
        lines.append([name, stamp, changed, absent, {key: content[key] for key in FIELDS}])
    return "".join(json.dumps(line, separators=(",", ":"), default=str) + "\n" for line in lines)


def _load(path: Path) -> dict[str, tuple[Stamp, Content]]:
    """The entries of an index by the names of the runs; none of another version, and no line that cannot be read."""
    kept: dict[str, tuple[Stamp, Content]] = {}
    try:
        first, *lines = path.read_text(encoding="utf-8").splitlines()
        version, base = json.loads(first)
        base = {key: frozen(value) for key, value in base.items()}
    except (OSError, ValueError, AttributeError):
        return {}
    for line in lines if version == VERSION else ():
        with suppress(ValueError, TypeError, AttributeError):
            name, stamp, changed, absent, content = json.loads(line)
            config = base | {key: frozen(value) for key, value in changed.items()}
            for key in absent:
                config.pop(key, None)
            if content.keys() == set(FIELDS):
                kept[name] = (stamp, content | {"config": config})
    return kept


def _stamp(run: str) -> Stamp:
    """Time and size of the files that an entry is made from; of one that is not there, nothing."""
    stamp: Stamp = []
    has_summary = False
    for name in (*SOURCES, GROWING):
        if name == GROWING and has_summary:
            break
        try:
            status = os.stat(f"{run}/{name}")
        except OSError:
            stamp += [0, -1]
            continue
        has_summary |= name == "summary.json"
        stamp += [status.st_mtime_ns, status.st_size]
    return stamp


def _content(run: str) -> dict[str, Any]:
    """The fields of an entry, read from the files of the run."""
    problems: list[str] = []
    summary = _json(f"{run}/summary.json", problems)
    return {
        "config": _config(run, problems),
        "choices": _choices(run),
        "summary": {key: value for key, value in summary.items() if key not in {"best", "metrics"}},
        "origin": _origin(_json(f"{run}/provenance.json", problems)),
        "metrics": _metrics(run, summary, problems),
        "problems": problems,
    }


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def _config(run: str, problems: list[str]) -> dict[str, Any]:
    try:
        return read_flat(_read(f"{run}/config.yaml"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        problems.append(f"config.yaml cannot be read: {' '.join(str(error).split())[:200]}")
        return {}


def _json(path: str, problems: list[str]) -> dict[str, Any]:
    try:
        return dict(json.loads(_read(path)))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError) as error:
        problems.append(f"{os.path.basename(path)} cannot be read: {error}")
        return {"status": "unreadable"} if path.endswith("summary.json") else {}


def _choices(run: str) -> dict[str, str]:
    """What Hydra noted of the groups: indented lines after `choices:`."""
    try:
        text = _read(f"{run}/.hydra/hydra.yaml")
    except (OSError, UnicodeDecodeError):
        return {}
    _, found, after = text.partition("\n    choices:\n")
    choices = {}
    for line in after.splitlines() if found else ():
        if not line.startswith("      "):
            break
        group, _, choice = line.strip().partition(": ")
        if "/" not in group and choice not in {"null", ""}:
            choices[group] = choice
    return choices


def _origin(provenance: Mapping[str, Any]) -> dict[str, Any]:
    git, device, packages = (_mapping(provenance.get(key)) for key in ("git", "device", "packages"))
    changes = str(git.get("diff") or "").encode()
    commit = str(git.get("commit") or "")[:12] + (f"+{hashlib.sha256(changes).hexdigest()[:6]}" if changes else "")
    return {
        "id": provenance.get("run_id"),
        "started": provenance.get("started"),
        "commit": commit or None,
        "device": device.get("name") or device.get("device"),
        "fingerprint": provenance.get("data_fingerprint"),
        "dlrun": provenance.get("dlrun"),
        "torch": packages.get("torch"),
    }


def _metrics(run: str, summary: Mapping[str, Any], problems: list[str]) -> dict[str, float]:
    """What was measured: at the best validation, at the end, by `dlrun evaluate`; else at the last validation."""
    evaluation = _json(f"{run}/evaluation.json", problems)
    found: dict[str, Any] = {}
    for split in evaluation.values():
        found |= _mapping(_mapping(split).get("best"))
    if summary:
        found |= _mapping(_mapping(summary.get("best")).get("metrics"))
        found |= _mapping(summary.get("metrics"))
    else:
        found |= _last_validation(f"{run}/{GROWING}")
    return {name: float(value) for name, value in found.items() if isinstance(value, (int, float))}


def _mapping(value: Any) -> Mapping[str, Any]:
    """A mapping as it is, and nothing for anything else: the file may have been written by hand."""
    return value if isinstance(value, Mapping) else {}


def _last_validation(path: str) -> dict[str, Any]:
    last: dict[str, Any] = {}
    with suppress(OSError, UnicodeDecodeError):
        for line in _read(path).splitlines():
            with suppress(ValueError):
                record = json.loads(line) if '"val/' in line else {}
                last = {name: value for name, value in record.items() if "/" in name} or last
    return last


def _is_locked(run: Path) -> bool:
    """Whether a process holds the lock of the run; see `RunDirectory.locked`."""
    try:
        with (run / ".lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
