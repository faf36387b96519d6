"""A sweep's overrides: every value checked before the first job, folders named by what differs, jobs composed."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep, ValueType
from omegaconf import DictConfig, OmegaConf, open_dict

from dlrun.config import schema
from dlrun.config.check import check, check_dataclass
from dlrun.config.compose import CONFIG_NAME, SWEEP_SUBDIR, checked, open_hydra, plain, settle, unresolved
from dlrun.config.overrides import head, is_choice, parse, read
from dlrun.config.resolvers import folder_name
from dlrun.config.variants import refers, with_value
from dlrun.errors import ConfigError

OWN = "hydra_plugins.dlrun."  # Hydra takes plugins of such names only
MANY = 10_000_000  # values of a range that are looked at
PLUGINS = {"hydra/sweeper": "dlrun", "hydra/launcher": "dlrun"}


def sweep_words(
    overrides: Sequence[str], config_path: str | None, config_name: str | None, config_dir: str | None
) -> list[str]:
    """The overrides of a sweep as Hydra takes them, after refusing it if any value in it is wrong.

    Each value swept over is checked once, beside the first values of the other keys; of a range, its ends. The jobs'
    folders are named by what differs between them.

    Raises: ConfigError for the first value that is wrong.
    """
    name = config_name or CONFIG_NAME
    hydra = open_hydra(config_path, config_dir)
    try:
        loader = hydra.config_loader
        parsed = read(overrides, loader)
        if config_path or config_name:  # another primary configuration than dlrun's, which chooses these
            typed = {item.key_or_group for item in parsed}
            parsed += [parse(f"{group}={name}", loader) for group, name in PLUGINS.items() if group not in typed]
        params = _with_params(hydra, parsed, name)
        parsed = params + parsed
        values = _swept(parsed)
        first = [
            parse(f"{head(item)}={values[i][0]}", loader) if i in values else item for i, item in enumerate(parsed)
        ]
        base, settled = checked(hydra, first, name, overrides)
        node = HydraConfig.instance().cfg.hydra
        if not params:
            _refuse_params(node, next(item for i, item in enumerate(parsed) if i in values))
        for i, choices in values.items():
            for text in choices[1:]:
                job = parse(f"{head(parsed[i])}={text}", loader)
                changed = None if is_choice(job, loader) else with_value(base.config, job)
                if changed is None:
                    checked(hydra, [*first[:i], job, *first[i + 1 :]], name, [])
                    if not params:
                        _refuse_params(HydraConfig.instance().cfg.hydra, parsed[i])
                else:
                    check(changed)
    finally:
        GlobalHydra.instance().clear()
    words = [
        _as_settled(item, values[i], word) if i in values else word
        for i, (item, word) in enumerate(zip(parsed, settled, strict=True))
    ]
    return words + _recording(node, parsed, values)


def is_own(node: DictConfig) -> bool:
    """Whether `hydra.sweeper` or `hydra.launcher` is dlrun's."""
    return str(node.get("_target_")).startswith(OWN)


def plugin_settings(node: DictConfig, key: str) -> Any:
    """The settings of dlrun's own sweeper or launcher, checked. Raises: ConfigError.

    Args:
        node: `hydra.sweeper` or `hydra.launcher`.
        key: "sweeper" or "launcher".
    """
    values = OmegaConf.to_container(node, resolve=True)
    assert isinstance(values, dict)
    own = {str(name): value for name, value in values.items() if name != "_target_"}
    kind = {"sweeper": "Sweeper", "launcher": "Launcher"}[key]
    problems = check_dataclass(f"hydra.{key}", own, kind)
    if problems:
        raise ConfigError("\n".join(problems))
    return getattr(schema, kind)(**own)


class JobComposer:
    """The configurations of jobs, each composed by Hydra only if it is not like one before but for plain values.

    Hydra needs a tenth of a second for one. What a value changes can be told without it where nothing refers to it.

    Args:
        loader: Hydra's.
        master: the configuration of the sweep as a whole.
    """

    def __init__(self, loader: Any, master: DictConfig) -> None:
        self.loader, self.master = loader, master
        self._known: dict[tuple[str, ...], dict[str, Any] | None] = {}
        self._parsed: dict[str, Override] = {}

    def config(self, overrides: Sequence[str]) -> dict[str, Any]:
        """The resolved configuration of a job. Raises: ConfigError, and whatever Hydra raises."""
        items = [self._parse(word) for word in overrides]
        key = tuple(head(item) if self._is_value(item) else str(item.input_line) for item in items)
        base = self._known.get(key)
        if base is None:
            composed, config = self._composed(overrides)
            if key not in self._known:
                self._known[key] = None if refers(composed) else config
            return config
        for item in items:
            if self._is_value(item):
                changed = with_value(base, item)
                if changed is None:
                    return self._composed(overrides)[1]
                base = changed
        return base

    def _composed(self, overrides: Sequence[str]) -> tuple[DictConfig, dict[str, Any]]:
        """By Hydra: the configuration as it is composed, and resolved."""
        composed: DictConfig = self.loader.load_sweep_config(self.master, list(overrides))
        HydraConfig.instance().set_config(composed)
        return composed, plain(composed)

    def _parse(self, word: str) -> Override:
        if word not in self._parsed:
            self._parsed[word] = parse(word, self.loader)
        return self._parsed[word]

    def _is_value(self, item: Override) -> bool:
        special = item.is_delete() or item.is_hydra_override() or item.is_sweep_override()
        return not special and not is_choice(item, self.loader)


def label_of(overrides: Sequence[str], fixed: Sequence[str]) -> str:
    """What a job differs in: its overrides without those of the keys in `fixed`."""
    return ",".join(word for word in overrides if word.split("=")[0].lstrip("+~") not in fixed)


def subfolder(master: DictConfig, number: int, label: str, config: dict[str, Any]) -> str:
    """The name of a job's folder in the sweep's, by `hydra.sweep.subdir`."""
    if unresolved(master.hydra.sweep, "subdir") == SWEEP_SUBDIR:
        return f"{number}_{folder_name(label)}"
    node: Any = OmegaConf.create({"hydra": OmegaConf.to_container(master.hydra, resolve=False), **config})
    with open_dict(node):
        node.hydra.job.num, node.hydra.job.id = number, str(number)
        node.hydra.job.override_dirname = label
    return str(node.hydra.sweep.subdir)


def _with_params(hydra: Any, parsed: Sequence[Override], name: str) -> list[Override]:
    """The words of `hydra.sweeper.params`, as a file in conf/experiment may set it, but for the keys that are typed."""
    fixed = [item for item in parsed if not item.is_sweep_override()]
    node, _ = settle(hydra, fixed, name)
    sweeper = node.hydra.sweeper
    if not (is_own(sweeper) and sweeper.get("params")):
        return []
    typed = {item.key_or_group for item in parsed}
    return read([f"{key}={value}" for key, value in sweeper.params.items() if key not in typed], hydra.config_loader)


def _refuse_params(node: DictConfig, item: Override) -> None:
    """Raises: ConfigError if one of several choices sweeps over keys of its own: the others do not have these."""
    if is_own(node.sweeper) and node.sweeper.get("params"):
        keys = ", ".join(map(str, node.sweeper.params))
        raise ConfigError(
            f"{item.input_line}: one of these sweeps over {keys} by its hydra.sweeper.params, and the others do not; "
            "sweep one of them at a time."
        )


def _swept(parsed: Sequence[Override]) -> dict[int, list[str]]:
    """The values of each override that has several, by its place. Raises: ConfigError if there is nothing to sweep."""
    values: dict[int, list[str]] = {}
    for i, item in enumerate(parsed):
        if not item.is_sweep_override():
            continue
        if item.is_hydra_override():
            raise ConfigError(f"{item.input_line}: Hydra's own settings cannot be swept over; give one value.")
        values[i] = _values(item)
        if not values[i]:
            raise ConfigError(f"{item.input_line} gives no value at all.")
    if not values:
        raise ConfigError(
            "-m has nothing to sweep over: give a key several values, such as optimizer=sgd,adamw or seed=range(5)."
        )
    return values


def _values(item: Override) -> list[str]:
    """What is to be checked of a sweep override: its values, or the ends of a range."""
    value = item.value()
    if isinstance(value, IntervalSweep):
        return [str(value.start), str(value.end)]
    if not item.is_discrete_sweep():
        return []
    if isinstance(value, RangeSweep):
        ends = [*itertools.islice(value.range(), 1), *deque(itertools.islice(value.range(), 1, MANY), maxlen=1)]
        return list(map(str, ends))
    is_pattern = item.value_type is ValueType.GLOB_CHOICE_SWEEP
    return [text for text in item.sweep_string_iterator() if not (is_pattern and text.startswith("_"))]


def _as_settled(item: Override, values: Sequence[str], word: str) -> str:
    """A sweep override with the ++ that its first value needed."""
    text = str(item.input_line)
    if item.value_type is ValueType.GLOB_CHOICE_SWEEP:  # Hydra's would match files such as _common.yaml too
        text = f"{head(item)}={','.join(values)}"
    return f"++{text}" if word.startswith("++") and not text.startswith("+") else text


def _recording(node: DictConfig, parsed: Sequence[Override], values: dict[int, list[str]]) -> list[str]:
    """Overrides of Hydra's settings that say where a sweep's jobs are recorded and keep Hydra's logging quiet."""
    typed = {item.key_or_group for item in parsed}
    fixed = sorted({item.key_or_group for i, item in enumerate(parsed) if i not in values})
    own = {
        # Our launcher names the folder by the jobs; any other is to have one name, whenever it asks.
        "hydra.sweep.dir": quoted(unresolved(node.sweep, "dir") if is_own(node.launcher) else str(node.sweep.dir)),
        "hydra.job.config.override_dirname.exclude_keys": f"[{','.join(map(quoted, fixed))}]",
        "hydra/job_logging": "none",
        "hydra/hydra_logging": "none",
    }
    if unresolved(node.sweep, "subdir") == SWEEP_SUBDIR:
        own["hydra.sweep.subdir"] = quoted(SWEEP_SUBDIR)
    if node.sweeper.get("params"):  # they are among the words now
        own["hydra.sweeper.params"] = "null"
    return [f"{key}={value}" for key, value in own.items() if key not in typed]


def quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
