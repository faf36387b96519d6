"""Check a composed configuration before torch is imported: every key, type, range and combination that can be known."""

from collections.abc import Mapping
from typing import Any

from dlrun.config.signatures import Signature, signature_of
from dlrun.config.values import allowed, complaint, shown
from dlrun.errors import ConfigError, did_you_mean
from dlrun.optim.durations import is_duration

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
    "init": {"model"},
    "augment": {"spec"},
    "optimizer": {"params"},
    "scheduler": {"optimizer"},
}

CALLED_WITH = ("optimizer", "scheduler", "init")  # a _partial_ called with one argument


def check(config: Mapping[str, Any]) -> None:
    """Refuse a configuration with anything wrong that can be seen without torch.

    Args:
        config: the composed configuration, resolved to plain dictionaries, without Hydra's own node.

    Raises: ConfigError with one sentence per problem found.
    """
    problems = _top_level(config)
    if not problems:
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
    """Problems of a mapping that must have the fields of dlrun.config.schema's class `name`."""
    signature = signature_of(f"dlrun.config.schema.{name}")
    assert signature is not None
    if not isinstance(value, Mapping):
        return [f"{key} must be a group of keys, got {shown(value)}."]
    return _arguments(key, value, signature)


def known_keys(group: str, part: Mapping[str, Any]) -> set[str]:
    """Every key that a part understands: its own arguments and those common to its group."""
    names = set(part) | {"_target_"}
    signature = signature_of(part["_target_"]) if isinstance(part.get("_target_"), str) else None
    if signature is not None:
        names |= set(signature.parameters) - SUPPLIED.get(group, set())
    common = signature_of(f"dlrun.config.schema.{COMMON[group]}") if group in COMMON else None
    if common is not None:
        # Of an optimizer's common names only param_groups is always a key; the others are ranges for those that have it.
        names |= {"param_groups"} if group == "optimizer" else set(common.parameters)
    return names


def _top_level(config: Mapping[str, Any]) -> list[str]:
    known = [*PLAIN, *REQUIRED, *OPTIONAL]
    problems = [f"unknown key '{key}'.{did_you_mean(key, known)}" for key in config if key not in known]
    for group in REQUIRED:
        if not isinstance(config.get(group), Mapping):
            problems.append(f"{group} must be chosen, got {shown(config.get(group))}: see `dlrun list {group}`.")
    for group in OPTIONAL:
        if config.get(group) is not None and not isinstance(config[group], Mapping):
            problems.append(f"{group} must be a group of keys or null, got {shown(config[group])}.")
    seed = config.get("seed")
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
        problems.append(f"seed must be a whole number in [0, 2**32), got {shown(seed)}.")
    return problems


def _part(key: str, part: Any, group: str) -> list[str]:
    """Problems of one part: a mapping with `_target_` and its arguments."""
    if not isinstance(part, Mapping) or not isinstance(part.get("_target_"), str):
        return [f"{key} needs a _target_, the dotted path of a class or function, got {shown(part)}."]
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
        own = {name: 1 if _is_length(value) else value for name, value in own.items()}
    if signature is not None:
        supplied = SUPPLIED.get(group, set())
        if group in CALLED_WITH:  # whatever a foreign class calls its first argument
            supplied = supplied | set(list(signature.parameters)[:1])
        problems += [p for p in _arguments(key, own, signature, supplied) if p not in problems]
    return _once_per_key(problems)


def _is_length(value: Any) -> bool:
    """A length written as a text, or a list with one."""
    return any(map(_is_length, value)) if isinstance(value, list) else isinstance(value, str) and is_duration(value)


def _plain_rule(group: str, value: Any) -> bool:
    """null for an optimizer's argument means torch's own default; its signature decides."""
    return value is not None or group != "optimizer"


def _once_per_key(problems: list[str]) -> list[str]:
    """One complaint per key: the first, which knows the range."""
    return list({problem.split(" ")[0]: problem for problem in reversed(problems)}.values())[::-1]


def _arguments(
    key: str, given: Mapping[str, Any], signature: Signature, supplied: set[str] | frozenset[str] = frozenset()
) -> list[str]:
    """Problems of arguments against a signature: unknown, missing, of the wrong type or range."""
    names = set(signature.parameters) - supplied
    problems = []
    if not signature.open:
        problems += [
            f"unknown key '{key}.{name}': {signature.target} takes {', '.join(sorted(names)) or 'no arguments'}."
            f"{did_you_mean(name, names)}"
            for name in given
            if name not in names
        ]
    is_schema = signature.target.startswith("dlrun.config.schema.") or "." not in signature.target
    if not is_schema:
        problems += [
            f"{key}.{name} is missing: {signature.target} needs it."
            for name, parameter in signature.parameters.items()
            if parameter.required and name not in given and name not in supplied
        ]
    return problems + _values(key, {n: v for n, v in given.items() if n in names}, signature)


def _values(key: str, given: Mapping[str, Any], signature: Signature) -> list[str]:
    problems = []
    for name, value in given.items():
        if isinstance(value, Mapping) and "_target_" in value:
            problems += _part(f"{key}.{name}", value, "")
            continue
        rule = allowed(signature.parameters[name].annotation, signature.module)
        if rule is None:
            continue
        if rule.nested is not None and isinstance(value, Mapping):
            problems += _arguments(f"{key}.{name}", value, rule.nested)
        elif (problem := complaint(f"{key}.{name}", value, rule)) is not None:
            problems.append(problem)
    return problems


def _combinations(config: Mapping[str, Any]) -> list[str]:
    """Settings that are fine alone and impossible together."""
    problems = []
    data, trainer = config["data"], config["trainer"]
    folds, fold = data.get("folds"), data.get("fold", 0)
    if folds is not None and fold >= folds:
        problems.append(f"data.fold must be below data.folds={folds}, got {fold}.")
    if (data.get("imbalance") is not None) and isinstance(data["imbalance"], int | float) and data["imbalance"] < 1:
        problems.append(
            f"data.imbalance is the ratio of the largest class to the smallest, >= 1, got {shown(data['imbalance'])}; "
            "to thin single classes write data.imbalance={0: 0.05}."
        )
    device, precision = str(trainer.get("device", "auto")), trainer.get("precision", "auto")
    kind, _, index = device.partition(":")
    if kind not in {"auto", "cpu", "cuda", "mps"} or (index and not index.isdigit()) or (index and kind != "cuda"):
        near = did_you_mean(device, ["auto", "cpu", "cuda", "mps"])
        problems.append(f"trainer.device must be one of auto, cpu, cuda, cuda:N, mps, got '{device}'.{near}")
    if precision == "tf32" and kind in {"cpu", "mps"}:
        problems.append(f"trainer.precision=tf32 needs trainer.device=cuda, got '{device}'; on it use fp32 or bf16.")
    return problems
