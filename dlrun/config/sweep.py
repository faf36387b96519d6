"""A sweep's overrides: every value checked before the first job, and folders named by what differs."""

import copy
from collections.abc import Sequence
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override, ValueType
from omegaconf import DictConfig

from dlrun.config.check import check
from dlrun.config.compose import CONFIG_NAME, SWEEP_SUBDIR, checked, open_hydra, unresolved
from dlrun.config.overrides import head, is_choice, parse, read
from dlrun.errors import ConfigError

KEPT = 300  # configurations of jobs, of 0.3 MB each


def sweep_words(
    overrides: Sequence[str], config_path: str | None, config_name: str | None, config_dir: str | None
) -> list[str]:
    """The overrides of a sweep as Hydra takes them, after refusing it if any value in it is wrong.

    Each value swept over is checked once, beside the first values of the other keys. The jobs' folders are named by
    what differs between them.

    Raises: ConfigError for the first value that is wrong.
    """
    name = config_name or CONFIG_NAME
    hydra = open_hydra(config_path, config_dir)
    try:
        loader = hydra.config_loader
        parsed = read(overrides, loader)
        values = _swept(parsed)
        first = [
            parse(f"{head(item)}={values[i][0]}", loader) if i in values else item for i, item in enumerate(parsed)
        ]
        base, settled = checked(hydra, first, name, overrides)
        for i, choices in values.items():
            for text in choices[1:]:
                job = parse(f"{head(parsed[i])}={text}", loader)
                changed = None if is_choice(job, loader) else _with_value(base.config, job)
                if changed is None:
                    checked(hydra, [*first[:i], job, *first[i + 1 :]], name, [])
                else:
                    check(changed)
    finally:
        GlobalHydra.instance().clear()
    words = [
        _as_settled(item, values[i], word) if i in values else word
        for i, (item, word) in enumerate(zip(parsed, settled, strict=True))
    ]
    return words + _recording(base.hydra, parsed, values)


def compose_once(loader: Any) -> None:
    """Let Hydra keep the configurations of jobs, which it composes first to try them and then again to run them.

    The jobs beyond the first `KEPT` are composed twice, as ever, or many jobs would fill the memory; and so are those
    that are given several times, since each needs a configuration of its own, in which Hydra writes its number.
    """
    compose = loader.load_sweep_config
    kept: dict[tuple[str, ...], DictConfig] = {}
    known: set[tuple[str, ...]] = set()

    def load_sweep_config(master_config: DictConfig, sweep_overrides: Sequence[str]) -> DictConfig:
        job = tuple(sweep_overrides)
        if job in kept:
            return kept.pop(job)
        config: DictConfig = compose(master_config, list(sweep_overrides))
        if job not in known and len(kept) < KEPT:
            kept[job] = config
        known.add(job)
        return config

    loader.load_sweep_config = load_sweep_config


def _swept(parsed: Sequence[Override]) -> dict[int, list[str]]:
    """The values of each override that has several, by its place. Raises: ConfigError if there is nothing to sweep."""
    values: dict[int, list[str]] = {}
    for i, item in enumerate(parsed):
        if not item.is_sweep_override():
            continue
        if item.is_hydra_override():
            raise ConfigError(f"{item.input_line}: Hydra's own settings cannot be swept over; give one value.")
        if not item.is_discrete_sweep():
            raise ConfigError(f"{item.input_line} is a range without steps; list values, or write range(0,1,0.1).")
        values[i] = [text for text in item.sweep_string_iterator() if not text.startswith("_")]
        if not values[i]:
            raise ConfigError(f"{item.input_line} gives no value at all.")
    if not values:
        raise ConfigError(
            "-m has nothing to sweep over: give a key several values, such as optimizer=sgd,adamw or seed=range(5)."
        )
    return values


def _with_value(config: dict[str, Any], item: Override) -> dict[str, Any] | None:
    """A copy of the configuration with one value changed; None if only Hydra can tell what it comes to."""
    value, changed = item.value(), copy.deepcopy(config)
    *path, last = item.key_or_group.split(".")
    node: Any = changed
    for key in path:
        node = node.get(key) if isinstance(node, dict) else None
    if not isinstance(node, dict) or last not in node or isinstance(value, dict) or "${" in str(value):
        return None
    node[last] = value
    return changed


def _as_settled(item: Override, values: Sequence[str], word: str) -> str:
    """A sweep override with the ++ that its first value needed."""
    text = str(item.input_line)
    if item.value_type is ValueType.GLOB_CHOICE_SWEEP:  # Hydra's would match files such as _common.yaml too
        text = f"{head(item)}={','.join(values)}"
    return f"++{text}" if word.startswith("++") and not text.startswith("+") else text


def _recording(hydra: DictConfig, parsed: Sequence[Override], values: dict[int, list[str]]) -> list[str]:
    """Overrides of Hydra's settings that say where a sweep's jobs are recorded and keep Hydra's logging quiet."""
    typed = {item.key_or_group for item in parsed}
    fixed = sorted({item.key_or_group for i, item in enumerate(parsed) if i not in values})
    own = {
        "hydra.sweep.dir": _quoted(str(hydra.sweep.dir)),
        "hydra.job.config.override_dirname.exclude_keys": f"[{','.join(map(_quoted, fixed))}]",
        "hydra/job_logging": "none",
        "hydra/hydra_logging": "none",
    }
    if unresolved(hydra.sweep, "subdir") == SWEEP_SUBDIR:
        own["hydra.sweep.subdir"] = _quoted(SWEEP_SUBDIR)
    return [f"{key}={value}" for key, value in own.items() if key not in typed]


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
