"""A tune file and the words typed beside it, read and checked. Neither torch nor Optuna is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.errors import MissingConfigException
from hydra.types import RunMode
from omegaconf import OmegaConf

from dlrun.config.check import check_dataclass
from dlrun.config.compose import open_hydra
from dlrun.config.explain import HYDRA_ERRORS, translate
from dlrun.config.overrides import listed, parse
from dlrun.config.tuning import Budget, Pruner, Sampler
from dlrun.errors import ConfigError, UsageError
from dlrun.sweeps.pool import Limits
from dlrun.sweeps.units import byte_count, seconds_of
from dlrun.tuning.objectives import Objective, read_objectives
from dlrun.tuning.space import Space
from dlrun.tuning.space_file import read_space

LARGEST_GRID = 10_000
SCHEMES = ("sqlite://", "postgresql", "mysql", "mariadb", "oracle", "mssql")


@dataclass(frozen=True)
class Settings:
    """What a search is, once everything about it is known to make sense.

    Attributes:
        name: of the tune file.
        given: the whole of it as plain values, to be kept and read again.
        words: overrides that every trial has; those that were typed stand last.
        seconds: of wall-clock time that may be used, None without limit.
        limits: what one trial may take.
    """

    name: str
    given: dict[str, Any]
    words: list[str]
    space: Space
    objectives: list[Objective]
    sampler: Sampler
    pruner: Pruner
    budget: Budget
    seconds: float | None
    limits: Limits
    storage: str | None
    seeds: int
    jobs: int | None
    defaults_first: bool
    folder: str | None

    @property
    def needs_complete(self) -> bool:
        """Whether the search learns from complete trials alone, so that pruned ones would be asked for again."""
        return self.sampler.name in ("gp", "cmaes", "nsga2") or len(self.objectives) > 1


def read_settings(typed: Sequence[str], config_dir: str | None) -> Settings:
    """The settings that `dlrun tune WORDS` asks for.

    Raises: UsageError or ConfigError, one sentence for each mistake.
    """
    hydra = open_hydra(None, config_dir)
    loader = hydra.config_loader
    names = [word.partition("=")[2] for word in typed if word.startswith("tune=")]
    if len(names) != 1 or not names[0]:
        known = listed("tune", loader)
        raise UsageError(f"dlrun tune needs one tune=NAME, {known}; got {len(names) or 'none'}.")
    own = [word for word in typed if word.lstrip("+~").startswith("tune.")]
    others = [word for word in typed if word not in own and not word.startswith("tune=")]
    given = _composed(names[0], hydra, loader)
    for word in own:
        _set(given, word, loader)
    words = given.get("words") or []
    given["words"] = merged(words, others) if isinstance(words, list) else words
    return settings(names[0], given)


def settings(name: str, given: dict[str, Any]) -> Settings:
    """The checked settings of a tune file. Raises: ConfigError, one sentence for each mistake."""
    problems = check_dataclass("tune", given, "dlrun.config.tuning.Tune")
    if problems:
        raise ConfigError("\n".join(problems))
    space, wrong_space = read_space(given["space"])
    objectives, wrong_objectives = read_objectives(given["objectives"])
    sampler = Sampler(**_named(given.get("sampler", "tpe")))
    pruner = Pruner(**_named(given.get("pruner", "median")))
    budget = Budget(**(given.get("budget") or {}))
    seconds, limits, wrong_time = _limits(budget)
    problems = [*wrong_space, *wrong_objectives, *wrong_time, *_storage(given.get("storage"))]
    if space is not None and not problems:
        problems = _together(space, objectives, sampler, budget, seconds) + _pruner(given.get("pruner"))
    if problems or space is None:
        raise ConfigError("\n".join(problems))
    return Settings(
        name=name,
        given=given,
        words=list(map(str, given.get("words") or [])),
        space=space,
        objectives=objectives,
        sampler=sampler,
        pruner=pruner,
        budget=budget,
        seconds=seconds,
        limits=limits,
        storage=_absolute(given.get("storage")),
        seeds=given.get("seeds", 5),
        jobs=given.get("jobs"),
        defaults_first=given.get("defaults_first", True),
        folder=given.get("folder"),
    )


def merged(words: Sequence[str], typed: Sequence[str]) -> list[str]:
    """Both, without those words whose key has been typed."""
    keys = {_key(word) for word in typed}
    return [word for word in map(str, words) if _key(word) not in keys] + list(typed)


def _key(word: str) -> str:
    return word.lstrip("+~").partition("=")[0]


def _composed(name: str, hydra: Any, loader: ConfigLoader) -> dict[str, Any]:
    """The tune file with what its defaults list brings, as plain values."""
    if name.startswith(("_", ".", "/")) or name not in loader.get_group_options("tune"):
        raise translate(MissingConfigException("", missing_cfg_file=f"tune/{name}"), loader)
    try:
        composed = hydra.compose_config(f"tune/{name}", [], RunMode.RUN, with_log_configuration=False)
        plain = OmegaConf.to_container(composed.get("tune") or OmegaConf.create({}), resolve=True)
    except HYDRA_ERRORS as error:
        raise translate(error, loader) from None
    if not isinstance(plain, dict):
        raise ConfigError(f"tune={name} must hold keys and values.")
    return {str(key): value for key, value in plain.items()}


def _set(given: dict[str, Any], word: str, loader: ConfigLoader) -> None:
    """Change one value as `tune.budget.trials=20` says; keys of the space have dots of their own."""
    item = parse(word, loader)
    if item.is_sweep_override():
        raise ConfigError(f"{word} gives several values, and a search has one; of a list write [a,b].")
    if item.is_delete() and not str(item.key_or_group).startswith("tune.space."):
        raise ConfigError(f"{word}: only keys of tune.space can be taken away; give a value.")
    path, node = item.key_or_group.split(".")[1:], given
    if path[0] == "space" and len(path) > 1:
        space = node.setdefault("space", {})
        rest = path[1:]
        known = [n for n in range(len(rest), 0, -1) if ".".join(rest[:n]) in space]
        size = known[0] if known and not _is_dimension(item) else len(rest)
        key, path, node = ".".join(rest[:size]), rest[size:], space
        if not path:
            if item.is_delete():
                node.pop(key, None)
            else:
                node[key] = item.value()
            return
        if not isinstance(node[key], dict):
            raise ConfigError(f"{word} cannot be set: tune.space.{key} is a list of choices; give it as a whole.")
        node = node[key]
    for key in path[:-1]:
        inner = node.get(key)
        if isinstance(inner, str) and key in ("sampler", "pruner"):
            inner = node[key] = {"name": inner}
        elif inner is None:
            inner = node[key] = {}
        if not isinstance(inner, dict):
            raise ConfigError(f"{word} cannot be set: tune.{key} is no group of keys.")
        node = inner
    node[path[-1]] = item.value()


def _is_dimension(item: Any) -> bool:
    """Whether an override gives all that there is to say of a key, and not one of its settings."""
    value = None if item.is_delete() else item.value()
    return isinstance(value, Mapping) and ("low" in value or "choices" in value)


def _named(given: Any) -> dict[str, Any]:
    return dict(given) if isinstance(given, Mapping) else {"name": given}


def _limits(budget: Budget) -> tuple[float | None, Limits, list[str]]:
    """The seconds of the whole, the limits of a trial, and what is wrong with them."""
    try:
        trial = Limits(
            seconds_of(budget.trial_time, "tune.budget.trial_time"),
            byte_count(budget.trial_memory, "tune.budget.trial_memory"),
        )
        return seconds_of(budget.time, "tune.budget.time"), trial, []
    except ConfigError as error:
        return None, Limits(), [str(error)]


def _absolute(storage: str | None) -> str | None:
    """The same file wherever the search is gone on with from."""
    if storage is None or storage == "journal" or "://" in storage:
        return storage
    return str(Path(storage).expanduser().absolute())


def _storage(text: str | None) -> list[str]:
    if text is None or text == "journal" or text.endswith((".db", ".log", ".journal")) or text.startswith(SCHEMES):
        return []
    return [
        "tune.storage must be null (study.db in the search's folder), journal, a file FILE.db or FILE.journal, or the "
        f"URL of a database such as postgresql://user@host/name, got '{text}'."
    ]


def _pruner(given: Any) -> list[str]:
    """Settings that a pruner does not have."""
    own = {
        "median": ("startup", "warmup"),
        "patient": ("startup", "warmup", "patience", "min_delta"),
        "asha": ("min_resource", "reduction_factor"),
        "hyperband": ("min_resource", "max_resource", "reduction_factor"),
        "none": (),
    }
    settings = _named(given or "median")
    has = own[settings.pop("name", "median")]
    return [
        f"tune.pruner.{key} is no setting of this pruner, which has {', '.join(has) or 'none'}; leave it out."
        for key in settings
        if key not in has
    ]


def _together(
    space: Space, objectives: Sequence[Objective], sampler: Sampler, budget: Budget, seconds: float | None
) -> list[str]:
    """Settings that are fine alone and impossible together."""
    problems = []
    if budget.trials is None and seconds is None and budget.device_hours is None and sampler.name != "grid":
        problems.append("tune.budget has no limit: give trials=50, time=30m or device_hours=2.")
    if sampler.name == "cmaes" and len(objectives) > 1:
        problems.append("tune.sampler=cmaes takes one objective; for several use tpe, gp or nsga2.")
    if sampler.name == "cmaes" and sum(d.kind != "categorical" and not d.when for d in space.dimensions) < 2:
        problems.append(
            "tune.sampler=cmaes needs two ranges without conditions at least, as it searches along directions between "
            "them; use tpe."
        )
    if sampler.name == "grid" and (size := space.grid_size(sampler.points)) > LARGEST_GRID:
        problems.append(
            f"tune.sampler=grid would have {size:,} points, and {LARGEST_GRID:,} at most are allowed: take away keys, "
            f"or lower tune.sampler.points={sampler.points}."
        )
    return problems
