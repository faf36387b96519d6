"""From the words a user typed to a checked configuration, through Hydra. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from dlrun.config import resolvers
from dlrun.config.check import check
from dlrun.config.explain import HYDRA_ERRORS, explain_value, translate
from dlrun.config.identity import run_id
from dlrun.config.location import CONF, use_paths
from dlrun.config.overrides import groups, is_choice, read, refuse_sweep
from dlrun.config.places import placed, refuse_shadowed
from dlrun.errors import ConfigError, UsageError
from dlrun.yaml_text import yaml_text

CONFIG_NAME = "train"
RUN_DIR = "outputs/runs/${now:%Y-%m-%d_%H-%M-%S}_${folder:${name}}_${run_id:}"
SWEEP_DIR = "outputs/sweeps/${now:%Y-%m-%d_%H-%M-%S}_${sweep_id:}"
SWEEP_SUBDIR = "${hydra.job.num}_${folder:${hydra.job.override_dirname}}"


@dataclass
class Composed:
    """A checked configuration.

    Attributes:
        config: resolved to plain dictionaries and lists, without Hydra's node.
        hydra: Hydra's node, unresolved, for the run directory.
        run_dir: where a single run is to be recorded.
        overrides: as typed.
    """

    config: dict[str, Any]
    hydra: dict[str, Any]
    run_dir: Path
    overrides: list[str] = field(default_factory=list)

    @property
    def hydra_files(self) -> dict[str, str]:
        """What Hydra itself leaves in a run's .hydra folder."""
        return {
            "config.yaml": yaml_text(self.config),
            "hydra.yaml": yaml_text({"hydra": self.hydra}),
            "overrides.yaml": yaml_text(self.overrides),
        }


def settled(composed: Composed, config: dict[str, Any]) -> Composed:
    """The same with `config`, in which what was to be found out is a number; the folder is called by its run id."""
    old, new = run_id(composed.config), run_id(config)
    folder = composed.run_dir
    name = folder.name.removesuffix(old) + new if folder.name.endswith(old) else folder.name
    return replace(composed, config=config, run_dir=folder.with_name(name))


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
        parsed = read(overrides, hydra.config_loader)
        refuse_sweep(parsed, hydra.config_loader)
        return checked(hydra, parsed, config_name or CONFIG_NAME, overrides)[0]
    finally:
        GlobalHydra.instance().clear()


def open_hydra(config_path: str | None, config_dir: str | None) -> Hydra:
    """Hydra, reading `config_path` (else dlrun's own conf/), then `config_dir`, then conf/.

    Raises: UsageError if a folder does not exist.
    """
    resolvers.register()
    GlobalHydra.instance().clear()
    for key, given in (("--config-path", config_path), ("--config-dir", config_dir)):
        if given is not None and not Path(given).expanduser().is_dir():
            raise UsageError(f"{key} {given}: there is no such folder.")
    primary = Path(config_path).expanduser().resolve() if config_path else CONF
    search = create_config_search_path(str(primary))
    before_schema = SearchPathQuery("schema", "")  # which Hydra wants last
    if config_dir:
        folder = Path(config_dir).expanduser().resolve()
        search.prepend("command-line", f"file://{folder}", before_schema)
        use_paths([folder, folder.parent])
    if primary != CONF:
        search.prepend("dlrun", f"file://{CONF}", before_schema)
    use_paths([Path.cwd()])
    return Hydra.create_main_hydra2("dlrun", search)


def settle(hydra: Hydra, parsed: Sequence[Override], config_name: str) -> tuple[DictConfig, list[str]]:
    """Compose, giving a place to keys that are right though no YAML lists them.

    Returns: the configuration, and the overrides in the form in which Hydra takes them.
    Raises: ConfigError.
    """
    words = [str(item.input_line) for item in parsed]
    loader = hydra.config_loader

    def attempt(overrides: list[str]) -> DictConfig:
        composed: DictConfig = hydra.compose_config(config_name, overrides, RunMode.RUN, with_log_configuration=False)
        return composed

    try:
        return attempt(words), words
    except HYDRA_ERRORS as error:
        first = error
    fixed = [is_choice(item, loader) or item.key_or_group.startswith(("hydra/", "hydra.searchpath")) for item in parsed]
    try:
        base = attempt([word for word, is_fixed in zip(words, fixed, strict=True) if is_fixed])
        with open_dict(base):
            tree = {str(key): value for key, value in OmegaConf.to_container(base, resolve=False).items()}  # type: ignore[union-attr]
        known = groups(loader)
        repaired = [
            word if is_fixed else placed(item, tree, known)
            for word, item, is_fixed in zip(words, parsed, fixed, strict=True)
        ]
        if repaired == words:
            refuse_shadowed(parsed)
            raise translate(first, loader)
        return attempt(repaired), repaired
    except HYDRA_ERRORS as error:
        raise translate(error, loader) from None


def plain(composed: DictConfig) -> dict[str, Any]:
    """The resolved configuration without Hydra's node."""
    nodes = {key: composed._get_node(key) for key in composed if key != "hydra"}
    config = {
        str(key): OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else composed[key]
        for key, node in nodes.items()
    }
    return {key: value for key, value in config.items() if value is not None or key not in {"callbacks", "logger"}}


def checked(
    hydra: Hydra, parsed: Sequence[Override], config_name: str, typed: Sequence[str]
) -> tuple[Composed, list[str]]:
    """Compose and check. Returns: the configuration, and the overrides as Hydra takes them. Raises: ConfigError."""
    composed, words = settle(hydra, parsed, config_name)
    HydraConfig.instance().set_config(composed)
    _use_own_folders(composed)
    try:
        config = plain(composed)
        check(config)
        run_dir = OmegaConf.select(composed, "hydra.run.dir")
    except HYDRA_ERRORS as error:
        raise explain_value(error) from None
    if not str(run_dir).strip():
        raise ConfigError(f"hydra.run.dir must be a folder, got '{run_dir}'.")
    node = OmegaConf.to_container(composed.hydra, resolve=False, enum_to_str=True)
    return Composed(config, dict(node), Path(str(run_dir)).expanduser().absolute(), list(typed)), words  # type: ignore[arg-type]


def _use_own_folders(composed: DictConfig) -> None:
    """dlrun's folders where Hydra's defaults stand, as they do with another primary configuration."""
    with read_write(composed.hydra), open_dict(composed.hydra):
        if "${now:%Y-%m-%d}/${now:%H-%M-%S}" in unresolved(composed.hydra.run, "dir"):
            composed.hydra.run.dir = RUN_DIR
        if "multirun/" in unresolved(composed.hydra.sweep, "dir"):
            composed.hydra.sweep.dir, composed.hydra.sweep.subdir = SWEEP_DIR, SWEEP_SUBDIR


def unresolved(node: DictConfig, key: str) -> str:
    """The text of a value with its interpolations as written."""
    return str(node._get_node(key)._value())  # type: ignore[union-attr]
