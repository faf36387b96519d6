"""The best configuration as an experiment file: choices, and every value that they do not already give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from dlrun.config.compose import Composed, compose
from dlrun.errors import ConfigError
from dlrun.runs.files import write_text
from dlrun.tuning.study import Composer

APART = ("name",)  # made of the choices' names
_GONE = object()


def write_experiment(
    path: Path, composer: Composer, best: Composed, head: Sequence[str], keys: Sequence[str] = ()
) -> bool:
    """Write the experiment that composes to the configuration `best`, tested at the end as an ordinary run is.

    Args:
        path: .../experiment/NAME.yaml.
        head: lines of comment.
        keys: that are written even where the choices give the same value.

    Returns: whether it does compose to that; False, and nothing written, for one that no such file can express.
    """
    text = experiment_text(composer, best, head, keys)
    if text is None:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    try:
        again = recomposed(path, composer.config_dir)
    except ConfigError:
        again = {}
    if _without_name(again) != _tested(best.config):
        path.unlink()
        return False
    return True


def recomposed(path: Path, config_dir: str | None) -> dict[str, Any]:
    """What `dlrun train` makes of an experiment file. Raises: ConfigError."""
    return compose(words_for(path, config_dir)[1], config_dir=words_for(path, config_dir)[0]).config


def words_for(path: Path, config_dir: str | None) -> tuple[str, list[str]]:
    """The folder for --config-dir and the overrides with which the experiment file is chosen."""
    folder, choice = path.parents[1], f"experiment={path.stem}"
    if config_dir is None:
        return str(folder), [choice]
    return str(config_dir), [f"hydra.searchpath=[file://{folder}]", choice]


def command(path: Path, config_dir: str | None, shown: str) -> str:
    """The command that trains the experiment; `shown` is its folder as it can be typed."""
    if config_dir is None:
        return f"dlrun train --config-dir {shown} experiment={path.stem}"
    return f"dlrun train --config-dir {config_dir} hydra.searchpath=[file://{path.parents[1]}] experiment={path.stem}"


def experiment_text(composer: Composer, best: Composed, head: Sequence[str], keys: Sequence[str] = ()) -> str | None:
    """The file's text; None where it would have to take a key away, which no file can."""
    chosen = best.hydra["runtime"]["choices"]
    choices = {
        group: list(chosen[group])
        if isinstance(chosen[group], Sequence) and not isinstance(chosen[group], str)
        else chosen[group]
        for group in composer.groups
        if chosen.get(group) is not None and group != "experiment"
    }
    plain = Composer([f"{group}={_listed(choice)}" for group, choice in choices.items()], composer.config_dir)
    found = _changes(plain.compose().config, _tested(best.config))
    if found is _GONE:
        return None
    found = found if isinstance(found, dict) else {}
    for key in keys:
        if key not in composer.groups:
            _copy(best.config, found, key.split("."))
    defaults = [{f"override /{group}": choice} for group, choice in choices.items()]
    body = {"defaults": defaults, **found}
    comment = "".join(f"# {line}\n" for line in head)
    return "# @package _global_\n" + comment + _dump(body)


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """Floats as YAML 1.1 reads them back: 1e-05 would be a text, 1.0e-05 is a number."""


def _float(dumper: Any, value: float) -> Any:
    text = repr(value)
    if "e" in text and "." not in text:
        text = text.replace("e", ".0e")
    return dumper.represent_scalar("tag:yaml.org,2002:float", text)


_Dumper.add_representer(float, _float)


def _dump(body: Mapping[str, Any]) -> str:
    return str(yaml.dump(dict(body), Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True))


def _listed(choice: Any) -> str:
    return f"[{','.join(map(str, choice))}]" if isinstance(choice, list) else str(choice)


def _tested(config: Mapping[str, Any]) -> dict[str, Any]:
    return _without_name({**config, "trainer": {**config["trainer"], "test": True}})


def _without_name(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in APART}


def _copy(source: Mapping[str, Any], target: dict[str, Any], path: Sequence[str]) -> None:
    """Set in `target` what `source` has at a path."""
    *parents, last = path
    for key in parents:
        source, target = source[key], target.setdefault(key, {})
    target[last] = source[last]


def _changes(old: Any, new: Any) -> Any:
    """What must be written over `old` to make it `new`; `_GONE` if that is impossible, None if they are equal."""
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return new
    found: dict[str, Any] = {}
    for key in old:
        if key not in new and key not in APART:
            return _GONE
    for key, value in new.items():
        if key in old and old[key] == value and type(old[key]) is type(value):
            continue
        inner = _changes(old[key], value) if key in old else value
        if inner is _GONE:
            return _GONE
        found[key] = inner
    return found
