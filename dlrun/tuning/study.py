"""A study: what is searched, where it is recorded, and how the same one is found again.

outputs/tune/<date_time>_<name>_<id>/
  tune.json            what was asked and where it stands
  study.db             the trials, for Optuna
  trials/<n>_<…>/      one ordinary run each
  final/               the winner, trained again from several seeds and tested
  conf/experiment/best.yaml, plots/
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra

from dlrun.config.check import check
from dlrun.config.compose import CONFIG_NAME, Composed, checked, open_hydra, settle
from dlrun.config.identity import canonical
from dlrun.config.overrides import groups, parse, read, refuse_sweep
from dlrun.config.variants import refers, with_value
from dlrun.errors import ConfigError, ResumeError, UsageError
from dlrun.runs.files import write_json
from dlrun.tuning.settings import Settings, merged, settings
from dlrun.tuning.space import Space, Value, category, word

STUDIES = Path("outputs/tune")
NO_TEST = "trainer.test=false"


class Composer:
    """Composes the configurations of a search, all with the same Hydra.

    Hydra needs a tenth of a second for one. It does each set of choices once; what a value changes beside them can be
    told without it, where the value's place exists and nothing refers to another.
    """

    def __init__(self, words: Sequence[str], config_dir: str | None) -> None:
        self.words, self.config_dir = list(words), config_dir
        self._hydra = open_hydra(None, config_dir)
        self.groups = groups(self._hydra.config_loader)
        self._known: dict[tuple[str, ...], Composed | None] = {}

    def compose(self, extra: Sequence[str] = ()) -> Composed:
        """The configuration that the search's words and `extra`, which win, give. Raises: ConfigError."""
        words = merged(self.words, extra)
        loader = self._hydra.config_loader
        try:
            parsed = read(words, loader)
            refuse_sweep(parsed, loader)
            composed, _ = checked(self._hydra, parsed, CONFIG_NAME, words)
        finally:
            GlobalHydra.instance().clear()
        return composed

    def of(self, params: Mapping[str, Value], extra: Sequence[str] = (), run_dir: Path | None = None) -> Composed:
        """The configuration of a trial with these parameters, checked. Raises: ConfigError."""
        given = [*(word(key, value) for key, value in params.items()), *extra]
        composed = self._changed(given) or self.compose(given)
        return composed if run_dir is None else replace(composed, run_dir=run_dir.absolute())

    def _changed(self, given: Sequence[str]) -> Composed | None:
        """The configuration with values changed where they stand; None where only Hydra can tell what comes of it."""
        choices = tuple(text for text in given if text.partition("=")[0] in self.groups)
        if choices not in self._known:
            composed = self.compose(choices)
            node = settle(self._hydra, read(composed.overrides, self._hydra.config_loader), CONFIG_NAME)[0]
            self._known[choices] = None if refers(node) else composed
        base = self._known[choices]
        if base is None:
            return None
        config = base.config
        for text in given:
            item = parse(text, self._hydra.config_loader)
            if item.key_or_group in self.groups:
                continue
            changed = with_value(config, item)
            if changed is None:
                return None
            config = changed
        check(config)
        words = merged(self.words, given)
        hydra = {**base.hydra, "overrides": {**base.hydra["overrides"], "task": words}}
        return replace(base, config=config, hydra=hydra, overrides=words)


def check_space(composer: Composer, space: Space) -> str:
    """Compose and check few configurations in which every end and choice occurs.

    Returns: a hash of them.
    Raises: ConfigError.
    """
    known = []
    for params in space.corners():
        try:
            config = composer.of(params).config
            known.append({key: value for key, value in config.items() if key != "name"})
        except ConfigError as error:
            words = " ".join(word(key, value) for key, value in params.items())
            hint = ""
            if "unknown key" in str(error):
                hint = " A key that exists beside one choice only needs a condition, as in when: {optimizer: sgd}."
            first = str(error).splitlines()[0]
            raise ConfigError(f"tune.space allows {words}, which is refused: {first}{hint}") from None
    return hashlib.sha256(canonical({"ends": known}).encode()).hexdigest()


def default_params(composer: Composer, base: Composed, space: Space) -> tuple[dict[str, Value] | None, str]:
    """The search's own keys as the base configuration has them; None, and why, if the search could not find those."""
    params: dict[str, Value] = {}
    chosen = base.hydra["runtime"]["choices"]
    for dimension in space.dimensions:
        if not dimension.holds(params):
            continue
        if dimension.key in composer.groups:
            value = category(chosen.get(dimension.key))
        else:
            node: Any = base.config
            for part in dimension.key.split("."):
                node = node.get(part) if isinstance(node, Mapping) else None
            value = category(node)
        if not dimension.contains(value):
            return None, f"The default {word(dimension.key, value)} is not in the space, so it is not tried first."
        params[dimension.key] = float(value) if dimension.kind == "float" else value  # type: ignore[arg-type]
    return params, ""


@dataclass(frozen=True)
class Asked:
    """A search that makes sense, not yet begun.

    Attributes:
        base: the configuration without any parameter of the search.
        defaults: its parameters, to be tried first; None with `note` saying why not.
        reach: a hash of the configurations at the ends of the space, which know what is in the files of its choices.
    """

    settings: Settings
    config_dir: str | None
    composer: Composer
    base: Composed
    defaults: dict[str, Value] | None
    note: str
    reach: str = ""

    @property
    def id(self) -> str:
        """Eight hexadecimal digits. The budget and what comes after the search are no part of it."""
        s = self.settings
        config = {key: value for key, value in self.base.config.items() if key != "name"}
        content = {
            "config": config,
            "space": s.given["space"],
            "objectives": [f"{o.direction} {o.name}" for o in s.objectives],
            "sampler": vars(s.sampler),
            "pruner": vars(s.pruner),
            "storage": s.storage,
            "reach": self.reach,
        }
        return hashlib.sha256(canonical(content).encode()).hexdigest()[:8]

    @property
    def validations(self) -> int | None:
        """Of a whole trial; None if only training tells."""
        trainer = self.base.config["trainer"]
        every = re.fullmatch(r"(\d+)\s*ep(ochs?)?", str(trainer["eval_every"]))
        keys = ("trainer.epochs", "trainer.max_steps", "trainer.eval_every")
        if trainer.get("max_steps") is not None or not every or any(k in self.settings.space.by_key for k in keys):
            return None
        return max(int(trainer["epochs"]) // int(every[1]), 1)


def ask(given: Settings, config_dir: str | None) -> Asked:
    """Compose what a search is about, and everything that it could come upon at its ends. Raises: ConfigError."""
    composer = Composer(merged(given.words, [NO_TEST]), config_dir)
    base = composer.compose()
    reach = check_space(composer, given.space)
    defaults, note = default_params(composer, base, given.space) if given.defaults_first else (None, "")
    return Asked(given, config_dir, composer, base, defaults, note, reach)


class StudyFolder:
    """Names of the files in a study's folder, and tune.json."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.record = self.path / "tune.json"
        self.trials = self.path / "trials"
        self.final = self.path / "final"
        self.plots = self.path / "plots"
        self.best = self.path / "conf" / "experiment" / "best.yaml"

    def read(self) -> dict[str, Any]:
        """tune.json. Raises: UsageError if it cannot be read."""
        try:
            content = json.loads(self.record.read_text(encoding="utf-8"))
            return dict(content)
        except (OSError, ValueError) as error:
            raise UsageError(f"{self} is not a search of dlrun tune: tune.json cannot be read ({error}).") from None

    def write(self, content: Mapping[str, Any]) -> None:
        write_json(self.record, content)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from working on the same study. Raises: UsageError if another does."""
        with (self.path / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UsageError(f"{self} is being tuned by another process.") from None
            yield

    def __str__(self) -> str:
        here = Path.cwd()
        return str(self.path.relative_to(here)) if self.path.is_relative_to(here) else str(self.path)


def is_study(path: Path) -> bool:
    """Whether `path` is the folder of a study."""
    return (path / "tune.json").is_file()


def find(asked: Asked) -> StudyFolder:
    """The folder in which the same search was begun before, or the name of a new one.

    Raises: UsageError if tune.folder holds something else.
    """
    wanted = asked.settings.folder
    if wanted is None:
        earlier = sorted(path for path in STUDIES.glob(f"*_{asked.id}") if is_study(path))
        name = re.sub(r"[/\s]+", "-", asked.settings.name)
        path = earlier[-1] if earlier else STUDIES / f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{name}_{asked.id}"
    else:
        path = Path(wanted).expanduser()
    folder = StudyFolder(path)
    if is_study(path):
        if (known := folder.read().get("id")) != asked.id:
            raise UsageError(f"tune.folder={wanted} holds another search ({known}); choose another folder.")
        return folder
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(f"tune.folder={wanted} is not empty and holds no search; choose another folder.")
    return folder


def begin(folder: StudyFolder, asked: Asked, command: str) -> None:
    """Make the folder of a new study. Raises: UsageError if it cannot be written."""
    try:
        folder.trials.mkdir(parents=True, exist_ok=True)
        folder.write(
            {
                "id": asked.id,
                "name": asked.settings.name,
                "command": command,
                "config_dir": asked.config_dir and str(Path(asked.config_dir).expanduser().absolute()),
                "tune": asked.settings.given | {"storage": asked.settings.storage},
                "status": "running",
                "seconds": 0.0,
            }
        )
    except OSError as error:
        raise UsageError(f"the search's folder {folder} cannot be written: {error.strerror or error}.") from None


def ask_again(folder: StudyFolder) -> Asked:
    """What the study in a folder was asked. Raises: ResumeError if dlrun now composes something else from it."""
    content = folder.read()
    asked = ask(settings(content["name"], content["tune"]), content.get("config_dir"))
    if asked.id != content["id"]:
        raise ResumeError(
            f"{folder} cannot be continued: its words now give another configuration (id {asked.id}, then "
            f"{content['id']}), as a file in conf/ has changed; undo that, or begin a new search: {content['command']}"
        )
    return asked
