"""From the words a user typed to a checked configuration, through Hydra.

Hydra composes; what it says when that fails is translated here into one sentence with the key, what was given, what
is allowed and the nearest right word. Nothing here imports torch.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from dlrun.config import resolvers
from dlrun.config.check import check, known_keys
from dlrun.config.location import CONF
from dlrun.errors import ConfigError, UsageError, did_you_mean

CONFIG_NAME = "train"
RUN_DIR = "outputs/runs/${now:%Y-%m-%d_%H-%M-%S}_${name}_${run_id:}"
NOTHING = {"callbacks": "none", "logger": "none", "augment": "none", "scheduler": "constant", "loss": "auto", "init": "default"}
# ValueError is what Hydra raises for a group given a number or null.
HYDRA_ERRORS = (HydraException, OmegaConfBaseException, ValueError)
SWEEP_DIR = "outputs/sweeps/${now:%Y-%m-%d_%H-%M-%S}_${sweep_id:}"


@dataclass
class Composed:
    """A checked configuration.

    Attributes:
        config: resolved to plain dictionaries and lists, without Hydra's node.
        hydra: Hydra's node, for the run directory.
        run_dir: where a single run is to be recorded.
        overrides: as typed.
    """

    config: dict[str, Any]
    hydra: DictConfig
    run_dir: Path
    overrides: list[str] = field(default_factory=list)

    @property
    def hydra_files(self) -> dict[str, str]:
        """What Hydra itself leaves in a run's .hydra folder."""
        return {
            "config.yaml": OmegaConf.to_yaml(OmegaConf.create(self.config)),
            "hydra.yaml": OmegaConf.to_yaml(OmegaConf.create({"hydra": self.hydra})),
            "overrides.yaml": OmegaConf.to_yaml(OmegaConf.create(self.overrides)),
        }


def compose(
    overrides: Sequence[str],
    *,
    config_path: str | None = None,
    config_name: str | None = None,
    config_dir: str | None = None,
) -> Composed:
    """Compose and check the configuration of one run.

    Args:
        overrides: Hydra's words: "model=cnn", "optimizer.lr=0.1", "+model.extra=1", "~logger".
        config_path, config_name: another primary config, such as a run's own config.yaml.
        config_dir: a folder with further choices for every group.

    Raises: ConfigError, one sentence per mistake.
    """
    hydra = open_hydra(config_path, config_dir)
    try:
        return _compose(hydra, list(overrides), config_name or CONFIG_NAME)
    finally:
        GlobalHydra.instance().clear()


def open_hydra(config_path: str | None, config_dir: str | None) -> Hydra:
    """Hydra, reading `config_path` (else dlrun's own conf/), then `config_dir`, then conf/.

    Raises: UsageError if a folder does not exist.
    """
    resolvers.register()
    GlobalHydra.instance().clear()
    primary = Path(config_path).expanduser().resolve() if config_path else CONF
    for key, folder in (("--config-path", primary), ("--config-dir", config_dir)):
        if folder is not None and not Path(folder).expanduser().is_dir():
            raise UsageError(f"{key}: there is no folder '{folder}'.")
    search = create_config_search_path(str(primary))
    if primary != CONF:
        search.append("dlrun", f"file://{CONF}")
    if config_dir:
        search.prepend("command-line", f"file://{Path(config_dir).expanduser().resolve()}", SearchPathQuery("schema", ""))
        use_folder(Path(config_dir))
    use_folder(Path.cwd())
    return Hydra.create_main_hydra2("dlrun", search)


def use_folder(folder: Path) -> None:
    """Let `_target_`s name modules in `folder` and beside it, as `python -m` would for the current folder."""
    for path in (folder.expanduser().resolve(), folder.expanduser().resolve().parent):
        if str(path) not in sys.path and path != Path(path.anchor):
            sys.path.append(str(path))


def translate(error: Exception, overrides: Sequence[str], base: DictConfig | None = None) -> ConfigError:
    """One of Hydra's or OmegaConf's exceptions as one sentence."""
    if isinstance(error, ConfigError):
        return error
    if isinstance(error.__cause__, ConfigError):
        return error.__cause__
    text = " ".join(str(error).split())
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _no_such_choice(error)
    if isinstance(error, MissingMandatoryValue):
        return ConfigError(f"a value is missing: {text}")
    if "Multiple values for" in text:
        group = text.split("Multiple values for ", 1)[1].split(".")[0]
        return ConfigError(f"{group} is given twice; keep one of them.")
    return ConfigError(text.rstrip(".") + ".")


def _compose(hydra: Hydra, overrides: list[str], config_name: str) -> Composed:
    typed, overrides = overrides, [_without_null(hydra, text) for text in overrides]
    overrides = [text for text in overrides if text]
    parsed = parse(overrides)
    for text, item in zip(overrides, parsed, strict=True):
        if item.is_sweep_override():
            raise ConfigError(
                f"{text} lists several values: add -m to run each, or write {_head(item)}=[a,b] if a list is meant."
            )
    try:
        composed = hydra.compose_config(config_name, list(overrides), RunMode.RUN, with_log_configuration=False)
    except HYDRA_ERRORS as error:
        composed = _second_try(hydra, overrides, parsed, config_name, error)
    HydraConfig.instance().set_config(composed)
    try:
        config = plain(composed)
        check(config)
        run_dir = Path(str(OmegaConf.select(composed, "hydra.run.dir"))).expanduser().absolute()
    except (HydraException, OmegaConfBaseException) as error:
        raise _interpolation_error(error) from None
    return Composed(config, composed.hydra, run_dir, typed)


def plain(composed: DictConfig) -> dict[str, Any]:
    """The resolved configuration without Hydra's node, and with dlrun's folders where Hydra's defaults stand."""
    with open_dict(composed):
        if "${now:%Y-%m-%d}/${now:%H-%M-%S}" in str(OmegaConf.to_container(composed.hydra.run, resolve=False)):
            composed.hydra.run.dir = RUN_DIR
        if "multirun/" in str(OmegaConf.to_container(composed.hydra.sweep, resolve=False)):
            composed.hydra.sweep.dir = SWEEP_DIR
    nodes = {key: composed._get_node(key) for key in composed if key != "hydra"}
    config = {
        str(key): OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else composed[key]
        for key, node in nodes.items()
    }
    return {key: value for key, value in config.items() if value is not None or key not in {"callbacks", "logger"}}


def parse(overrides: Sequence[str]) -> list[Override]:
    """Read overrides by Hydra's grammar. Raises: ConfigError naming the one that cannot be read."""
    parser = OverridesParser.create()
    parsed = []
    for text in overrides:
        if "=" not in text and not text.startswith("~"):
            raise ConfigError(f"'{text}' is not an override: write {text}=VALUE." + _help_for_word(text))
        try:
            parsed.append(parser.parse_override(text))
        except (OverrideParseException, HydraException) as error:
            reason = " ".join(str(error).split("\n")[0].split())
            raise ConfigError(
                f"cannot read '{text}': {reason}. Quote values with special characters: \"key='a=b'\"."
            ) from None
    return parsed


def _without_null(hydra: Hydra, text: str) -> str:
    """`logger=null` as the choice that means none, which Hydra itself meets with a traceback; "" for no choice at all.

    Raises: ConfigError for a group that cannot do without a choice.
    """
    group, _, value = text.partition("=")
    if "=" not in text or value not in ("null", "None", "") or group not in hydra.config_loader.list_groups(""):
        return text
    if group == "experiment":
        return ""
    if group in NOTHING:
        return f"{group}={NOTHING[group]}"
    options = [option for option in hydra.config_loader.get_group_options(group) if not option.startswith("_")]
    raise ConfigError(f"{group} must be chosen, one of {', '.join(options)}; got '{text}'.")


def _help_for_word(text: str) -> str:
    return " For help: dlrun train --help." if text in {"help", "-h"} else ""


def _no_such_choice(error: MissingConfigException) -> ConfigError:
    missing = str(error.missing_cfg_file)
    group, _, choice = missing.rpartition("/")
    options = [option for option in error.options or [] if not option.startswith("_")]
    if not group:
        return ConfigError(f"there is no configuration '{missing}'.{did_you_mean(choice, options)}")
    if not choice or choice == "None":
        return ConfigError(f"{group} must be chosen, one of {', '.join(options)}.")
    return ConfigError(f"{group}={choice}: must be one of {', '.join(options)}.{did_you_mean(choice, options)}")


def _second_try(
    hydra: Hydra, overrides: list[str], parsed: list[Override], config_name: str, error: Exception
) -> DictConfig:
    """Compose without the overrides of values, to see which of them has no place, and say so.

    A key that the YAML does not list but the part's signature has is given its place: `optimizer.maximize=true`.
    """
    groups = [group for group in hydra.config_loader.list_groups("") if group != "hydra"]
    is_choice = [item.key_or_group in groups or item.key_or_group.startswith("hydra") for item in parsed]
    kept = [text for text, choice in zip(overrides, is_choice, strict=True) if choice]
    try:
        base = hydra.compose_config(config_name, kept, RunMode.RUN, with_log_configuration=False)
    except HYDRA_ERRORS as base_error:
        raise translate(base_error, kept) from None
    repaired = []
    for text, item, choice in zip(overrides, parsed, is_choice, strict=True):
        if choice or item.is_add() or item.is_force_add():
            repaired.append(text)
        else:
            repaired.append(_placed(text, item, base, groups))
    if repaired == overrides:
        _refuse_shadowed(parsed)
        raise translate(error, overrides, base) from None
    try:
        return hydra.compose_config(config_name, repaired, RunMode.RUN, with_log_configuration=False)
    except HYDRA_ERRORS as again:
        raise translate(again, overrides, base) from None


def _refuse_shadowed(parsed: list[Override]) -> None:
    """Refuse `a=null a.b=1`: the second has lost its place to the first."""
    for item in parsed:
        for other in parsed:
            inside = item.key_or_group.startswith(f"{other.key_or_group}.")
            if inside and not isinstance(other.value(), dict):
                raise ConfigError(f"{item.key_or_group} cannot be set: {other.input_line} leaves no such key; drop one.")


def _placed(text: str, item: Override, base: DictConfig, groups: list[str]) -> str:
    """`text`, with a + if it is a right key that the YAML does not list. Raises: ConfigError if it is no right key."""
    path = item.key_or_group.split(".")
    with open_dict(base):
        tree = OmegaConf.to_container(base, resolve=False)
    assert isinstance(tree, dict)
    node: Any = {key: value for key, value in tree.items() if key != "hydra"}
    for depth, key in enumerate(path):
        here = ".".join(path[:depth])
        if not isinstance(node, Mapping):
            raise ConfigError(
                f"{item.key_or_group} cannot be set: {here} is {'null' if node is None else node}, not a group of keys."
            )
        if key not in node:
            keys = set(map(str, node)) | (set(groups) if depth == 0 else set())
            if depth == 1:
                keys |= known_keys(path[0], node) - {"_target_"}
                if key in keys and depth == len(path) - 1:
                    return f"+{text}"
            if depth == 0 and key in groups:
                raise ConfigError(f"{item.key_or_group} cannot be set: {key} is not chosen; write {key}=NAME as well.")
            listed = ", ".join(sorted(k for k in keys if not re.match(r"_.*_$", k)))
            raise ConfigError(
                f"unknown key '{item.key_or_group}'.{did_you_mean(key, keys)} "
                f"{here or 'A configuration'} has {listed}."
            )
        node = node[key]
    return text


def _interpolation_error(error: Exception) -> ConfigError:
    if isinstance(error.__cause__, ConfigError):
        return error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    key = next((line.removeprefix("full_key: ") for line in lines if line.startswith("full_key: ")), "")
    return ConfigError(f"{key + ': ' if key else ''}{lines[0].rstrip('.')}.")


def check_sweep(
    overrides: Sequence[str], config_path: str | None, config_name: str | None, config_dir: str | None
) -> None:
    """Refuse a sweep before its first job if any value in it is wrong.

    Each value swept over is checked once, beside the first values of the other keys.

    Raises: ConfigError for the first that is wrong.
    """
    parsed = parse(overrides)
    swept = [i for i, item in enumerate(parsed) if item.is_sweep_override()]
    if not swept:
        raise ConfigError("-m has nothing to sweep over: give a key several values, such as optimizer=sgd,adamw or seed=range(5).")
    values = {i: list(parsed[i].sweep_string_iterator()) for i in swept}
    for i, choices in values.items():
        if not choices:
            raise ConfigError(f"'{overrides[i]}' sweeps over no value at all.")
    first = [f"{_head(item)}={values[i][0]}" if i in values else overrides[i] for i, item in enumerate(parsed)]
    for i in swept:
        for value in values[i]:
            job = [*first]
            job[i] = f"{_head(parsed[i])}={value}"
            compose(job, config_path=config_path, config_name=config_name, config_dir=config_dir)


def _head(item: Override) -> str:
    """An override up to its equals sign, with its + or ~."""
    text = str(item.input_line)
    return text[: text.index("=")]
