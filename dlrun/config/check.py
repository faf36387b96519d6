"""Check a composed configuration before torch is imported: every key, type, range and combination that can be known."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from dlrun.config.signatures import Signature, signature_of
from dlrun.config.values import Allowed, allowed, complaint, shown
from dlrun.errors import ConfigError, did_you_mean
from dlrun.optim.durations import is_duration, parse

REQUIRED = ("data", "model", "optimizer", "trainer")
OPTIONAL = ("scheduler", "loss", "augment", "init", "callbacks", "logger")
PLAIN = ("name", "seed")
NAMED_PARTS = ("augment", "callbacks", "logger")  # mappings from a name to a part, in order
COMMON = {"data": "Data", "optimizer": "Optimizer", "scheduler": "Scheduler"}
HYDRA_KEYS = {"_target_", "_partial_", "_args_", "_recursive_", "_convert_"}
SUPPLIED = {  # arguments that build gives to a factory; a configuration need not
    "data": {"name"},
    "model": {"spec"},
    "loss": {"spec"},
    "init": {"model", "inputs"},
    "augment": {"spec"},
    "logger": {"folder", "start_step"},
    "optimizer": {"params"},
    "scheduler": {"optimizer"},
}

# Lengths of torch's schedules whose annotations say no more than `int`; with 0 they divide by it in mid-run.
PERIODS = ("T_max", "T_0", "T_mult", "step_size", "step_size_up", "step_size_down", "total_steps")
POSITIVE_LENGTHS = ("eval_every", "checkpoint_every")
MISSING = "???"  # OmegaConf's mark of a value that the user must give
CALLED_WITH = ("optimizer", "scheduler", "init")  # a _partial_ called with one argument


def check(config: Mapping[str, Any]) -> None:
    """Refuse a configuration with anything wrong that can be seen without torch.

    Args:
        config: the composed configuration, resolved to plain dictionaries, without Hydra's own node.

    Raises: ConfigError with one sentence per problem found.
    """
    problems = _top_level(config)
    if not problems:
        problems += _plain_settings(config)
        problems += check_dataclass("trainer", config["trainer"], "Trainer")
        for group in ("data", "model", "optimizer", "scheduler", "loss", "init"):
            if config.get(group):
                problems += _part(group, config[group], group)
        for group in NAMED_PARTS:
            for name, part in (config.get(group) or {}).items():
                problems += _part(f"{group}.{name}", part, group)
    problems = problems or _combinations(config)
    if problems:
        raise ConfigError("\n".join(problems))


def check_dataclass(key: str, value: Any, name: str) -> list[str]:
    """Problems of a mapping that must have the fields of a class: of dlrun.config.schema, or of a dotted path."""
    signature = signature_of(name if "." in name else f"dlrun.config.schema.{name}")
    assert signature is not None
    if not isinstance(value, Mapping):
        return [f"{key} must be a group of keys, got {shown(value)}."]
    return _arguments(key, value, signature)


def known_keys(group: str, part: Mapping[str, Any]) -> set[str]:
    """Every key that a part understands: its own arguments and those common to its group."""
    names = set(part) | {"_target_"}
    signature = _readable(part)
    if signature is not None:
        names |= set(signature.parameters) - SUPPLIED.get(group, set())
    common = signature_of(f"dlrun.config.schema.{COMMON[group]}") if group in COMMON else None
    if common is not None:
        # Of an optimizer's common names only param_groups is always a key; the rest are ranges for those that have it.
        names |= {"param_groups"} if group == "optimizer" else set(common.parameters)
    return names


def takes_any_key(group: str, part: Any, path: Sequence[str]) -> bool:
    """Whether the value at `path` in a part, such as param_groups.lr_factors in an optimizer, is a free mapping."""
    signature = signature_of(f"dlrun.config.schema.{COMMON[group]}") if group in COMMON else None
    if signature is None or path[0] not in signature.parameters:
        signature = _readable(part)
    rule: Allowed | None = None
    for name in path:
        if signature is None or name not in signature.parameters:
            return False
        rule = allowed(signature.parameters[name].annotation, signature.module)
        signature = rule.nested if rule is not None else None
    return rule is not None and rule.is_mapping


def keys_of_group(path: Sequence[str]) -> set[str]:
    """The keys of a group of settings that may be null, such as trainer.sam; none if `path` is no such group."""
    trainer = signature_of("dlrun.config.schema.Trainer")
    if len(path) != 2 or path[0] != "trainer" or trainer is None or path[1] not in trainer.parameters:
        return set()
    rule = allowed(trainer.parameters[path[1]].annotation, trainer.module)
    return set(rule.nested.parameters) if rule is not None and rule.nested is not None else set()


def _readable(part: Any) -> Signature | None:
    """The signature of a part's target, None if it has none that can be read; what is wrong with it, `check` says."""
    target = part.get("_target_") if isinstance(part, Mapping) else None
    with suppress(ConfigError):
        return signature_of(target) if isinstance(target, str) else None
    return None


def _top_level(config: Mapping[str, Any]) -> list[str]:
    known = [*PLAIN, *REQUIRED, *OPTIONAL]
    problems = [
        f"unknown key '{key}'.{did_you_mean(key, known)} The keys are {', '.join(sorted(known))}."
        for key in config
        if key not in known
    ]
    for group in [*REQUIRED, *OPTIONAL]:
        value = config.get(group)
        if isinstance(value, Mapping) or (value is None and group in OPTIONAL):
            continue
        null = " or null" if group in OPTIONAL else ""
        problems.append(f"{group} must be a choice{null}, got {shown(value)}; see `dlrun list {group}`.")
    return problems


def _plain_settings(config: Mapping[str, Any]) -> list[str]:
    """Problems of the settings that belong to no group."""
    problems = []
    seed, name = config.get("seed"), config.get("name", "")
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
        problems.append(f"seed must be a whole number in [0, 4294967295], got {shown(seed)}.")
    if not isinstance(name, str | int):
        problems.append(f"name must be a text, got {shown(name)}.")
    return problems


def _part(key: str, part: Any, group: str) -> list[str]:
    """Problems of one part: a mapping with `_target_` and its arguments."""
    if not isinstance(part, Mapping):
        return [f"{key} must be a part, with a _target_ and its arguments, got {shown(part)}."]
    if "_target_" not in part:
        hint = f"; see `dlrun list {group}`" if key == group else ""
        return [f"{key} has no _target_, the dotted path of a class or function, so nothing is chosen{hint}."]
    if not isinstance(part["_target_"], str):
        return [f"{key}._target_ must be the dotted path of a class or function, got {shown(part['_target_'])}."]
    try:
        signature = signature_of(part["_target_"])
    except ConfigError as error:
        return [f"{key}._target_: {error}" + ("" if str(error).endswith(("?", ".")) else ".")]
    problems: list[str] = []
    own = {name: value for name, value in part.items() if name not in HYDRA_KEYS}
    if group in COMMON:
        common = signature_of(f"dlrun.config.schema.{COMMON[group]}")
        assert common is not None
        shared = {name: own[name] for name in own if name in common.parameters}
        # Ranges here hold for foreign classes too, whose annotations say no more than `float`.
        problems += _values(key, {name: value for name, value in shared.items() if _plain_rule(group, value)}, common)
        consumed = {"param_groups"} if group == "optimizer" else set(shared)
        own = {name: value for name, value in own.items() if name not in consumed}
    if group == "scheduler":  # build resolves lengths to whole numbers of steps or epochs
        problems += [
            f"{key}.{name} must be a length above 0, got {shown(own[name])}."
            for name in PERIODS
            if isinstance(own.get(name), int | float | str) and _is_nothing(own[name])
        ]
        own = {name: _resolved(value) for name, value in own.items()}
    if signature is not None:
        supplied = SUPPLIED.get(group, set())
        if group in CALLED_WITH:  # whatever a foreign class calls its first argument
            supplied = supplied | set(list(signature.parameters)[:1])
        problems += [p for p in _arguments(key, own, signature, supplied) if p not in problems]
    return _once_per_key(problems)


def _is_nothing(value: int | float | str) -> bool:
    """Whether a length is 0, or less, as a number may be."""
    return parse(value)[0] == 0 if is_duration(value) else not isinstance(value, str) and value < 0


def _resolved(value: Any) -> Any:
    """A value with lengths written as texts, also in lists, as the whole numbers they will be."""
    if isinstance(value, list):
        return [_resolved(item) for item in value]
    return 1 if isinstance(value, str) and is_duration(value) else value


def _plain_rule(group: str, value: Any) -> bool:
    """null for an optimizer's argument means torch's own default; its signature decides."""
    return value is not None or group != "optimizer"


def _once_per_key(problems: list[str]) -> list[str]:
    """One complaint per key: the first, which knows the range."""
    # Complaints begin with the key, or with "unknown key 'KEY'".
    return list({problem.removeprefix("unknown key ").split()[0]: problem for problem in problems[::-1]}.values())[::-1]


def _arguments(
    key: str, given: Mapping[str, Any], signature: Signature, supplied: set[str] | frozenset[str] = frozenset()
) -> list[str]:
    """Problems of arguments against a signature: unknown, missing, of the wrong type or range."""
    names = set(signature.parameters) - supplied
    problems = []
    is_schema = signature.target.startswith("dlrun.config.") or "." not in signature.target
    owner = f"{key} has" if is_schema else f"{signature.target} takes"
    if not signature.open:
        problems += [
            f"unknown key '{key}.{name}': {owner} {', '.join(sorted(names)) or 'no keys'}.{did_you_mean(name, names)}"
            for name in given
            if name not in names
        ]
    problems += [
        f"{key}.{name} is missing: {key if is_schema else signature.target} needs it."
        for name, parameter in signature.parameters.items()
        if parameter.required and name not in given and name not in supplied
    ]
    return problems + _values(key, {n: v for n, v in given.items() if n in names}, signature)


def _values(key: str, given: Mapping[str, Any], signature: Signature) -> list[str]:
    problems = []
    for name, value in given.items():
        if value == MISSING:
            problems.append(f"{key}.{name} is missing: {signature.target} needs it; write {key}.{name}=….")
            continue
        if isinstance(value, Mapping) and "_target_" in value:
            problems += _part(f"{key}.{name}", value, "")
            continue
        parameter = signature.parameters[name]
        rule = allowed(parameter.annotation, signature.module)
        if rule is None or (value is None and parameter.nullable):
            continue
        if rule.nested is not None and isinstance(value, Mapping):
            problems += _arguments(f"{key}.{name}", value, rule.nested)
        elif (problem := complaint(f"{key}.{name}", value, rule)) is not None:
            problems.append(problem)
    return problems


def _combinations(config: Mapping[str, Any]) -> list[str]:
    """Settings that are fine alone and impossible together."""
    data, trainer = config["data"], config["trainer"]
    problems = _lengths(config)
    folds, fold = data.get("folds"), data.get("fold", 0)
    if folds is None and fold:
        problems.append(f"data.fold={fold} needs data.folds, the number of folds, which is null; write data.folds=5.")
    if folds is not None and fold >= folds:
        problems.append(f"data.fold must be below data.folds={folds}, got {fold}.")
    if (data.get("imbalance") is not None) and isinstance(data["imbalance"], int | float) and data["imbalance"] < 1:
        problems.append(
            f"data.imbalance is the ratio of the largest class to the smallest, >= 1, got {shown(data['imbalance'])}; "
            "to thin single classes write data.imbalance={0: 0.05}."
        )
    device, precision = str(trainer.get("device", "auto")), trainer.get("precision", "auto")
    if (problem := device_problem("trainer.device", device)) is not None:
        problems.append(problem)
    elif precision == "tf32" and not device.startswith(("auto", "cuda")):
        problems.append(f"trainer.precision=tf32 needs trainer.device=cuda, got '{device}'; on it use fp32 or bf16.")
    return problems


def device_problem(key: str, device: str) -> str | None:
    """What is wrong with the name of a device, or None; whether there is such a device, only torch knows."""
    if re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", device):
        return None
    near = did_you_mean(device, ["auto", "cpu", "cuda", "mps"])
    return f"{key} must be one of auto, cpu, cuda, cuda:N, mps, got '{device}'.{near}"


def _lengths(config: Mapping[str, Any]) -> list[str]:
    """Lengths of training that are lengths, and still too short or too long."""
    problems = []
    for name in POSITIVE_LENGTHS:
        value = config["trainer"].get(name)
        if value is not None and _is_nothing(value):
            problems.append(f"trainer.{name} must be above 0, got {shown(value)}; write '1ep' or 100 (steps).")
    warmup = (config.get("scheduler") or {}).get("warmup", 0)
    amount, kind = parse(warmup)
    if kind == "part" and amount >= 1:
        problems.append(f"scheduler.warmup must be shorter than the run, below '100%', got {shown(warmup)}.")
    return problems
