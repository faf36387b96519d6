"""The words a user typed: read by Hydra's grammar, and refused where they cannot be meant."""

import re
from collections.abc import Sequence
from weakref import WeakKeyDictionary

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException

from dlrun.config.location import NOT_CHOICES
from dlrun.errors import ConfigError, did_you_mean, one_of

# The choice that means none, for groups that can do without one; Hydra meets `logger=null` with a traceback.
NOTHING = {
    "callbacks": "none",
    "logger": "none",
    "augment": "none",
    "scheduler": "constant",
    "loss": "auto",
    "init": "default",
}
OWN_COMMAND = {"tune": "dlrun tune"}  # groups that are no part of a run
_GROUPS: WeakKeyDictionary[ConfigLoader, list[str]] = WeakKeyDictionary()
SEVERAL = ("augment", "callbacks", "logger", "experiment")  # groups of which several choices may be given as a list


def read(words: Sequence[str], loader: ConfigLoader) -> list[Override]:
    """Read overrides. Blank ones are dropped, and the choice of nothing gets its name: `logger=null`, `~logger`.

    Raises: ConfigError naming the one that cannot be read or cannot be meant.
    """
    parsed: list[Override] = []
    for word in words:
        if not word.strip():
            continue
        item = parse(word, loader)
        if item.key_or_group == "hydra":
            raise ConfigError(f"{word}: Hydra's settings are set one by one, as in hydra.run.dir=DIR.")
        if item.key_or_group in OWN_COMMAND:
            raise ConfigError(f"{word}: what is searched is a matter of {OWN_COMMAND[item.key_or_group]} {word}.")
        if item.key_or_group in groups(loader):
            _refuse_wrong_choice(item, loader)
            name = _choice_of_nothing(item, loader)
            if name is not None:
                parsed += [parse(f"{item.key_or_group}={name}", loader)] if name else []
                continue
        parsed.append(item)
    _refuse_two_choices(parsed, loader)
    return parsed


def parse(word: str, loader: ConfigLoader) -> Override:
    """Read one override. Raises: ConfigError if it is none."""
    if "=" not in word and not word.startswith("~"):
        raise ConfigError(_not_an_override(word, loader))
    if word.startswith("="):
        raise ConfigError(f"'{word}' has no key before its equals sign; write KEY=VALUE, as in optimizer.lr=0.1.")
    try:
        item: Override = OverridesParser.create(config_loader=loader).parse_overrides([word])[0]
    except HydraException as error:
        raise ConfigError(f"cannot read '{word}': {_reason(word, error)}.") from None
    return item


def groups(loader: ConfigLoader) -> list[str]:
    """The groups of which a run can choose something."""
    known = _GROUPS.get(loader)
    if known is None:  # Hydra copies all it knows of its sources to answer
        others = (*NOT_CHOICES, *OWN_COMMAND)
        known = _GROUPS[loader] = [name for name in loader.list_groups("") if name not in others]
    return known


def options(group: str, loader: ConfigLoader) -> list[str]:
    """The choices in a group."""
    return [name for name in loader.get_group_options(group) if not name.startswith("_")]


def listed(group: str, loader: ConfigLoader) -> str:
    """The choices in a group, for a message."""
    names = options(group, loader)
    return one_of(names, group) if names else "a YAML file in a folder of that name; there is none yet"


def head(item: Override) -> str:
    """An override up to its equals sign, with its + or ~."""
    return str(item.get_key_element())


def is_choice(item: Override, loader: ConfigLoader) -> bool:
    """Whether the override chooses from a group, and does not set a value."""
    return item.key_or_group in groups(loader) and not isinstance(_value(item), dict)


def refuse_sweep(parsed: Sequence[Override], loader: ConfigLoader) -> None:
    """Refuse several values where one is wanted. Raises: ConfigError saying how to have them all."""
    for item in parsed:
        if not item.is_sweep_override():
            continue
        simple = item.value_type is ValueType.SIMPLE_CHOICE_SWEEP
        several = item.key_or_group in SEVERAL or not is_choice(item, loader)
        as_list = f"{item.input_line}".replace("=", "=[", 1) + "]"
        way_out = f", or write {as_list} if a list is meant" if simple and several else ""
        raise ConfigError(f"{item.input_line} gives several values: add -m to run each{way_out}.")


def _value(item: Override) -> object:
    return None if item.is_sweep_override() else item.value()


def _choice_of_nothing(item: Override, loader: ConfigLoader) -> str | None:
    """What `group=null` or `~group` stands for; "" for no choice at all, None if the override says something else.

    Raises: ConfigError for a group that cannot do without a choice.
    """
    group = item.key_or_group
    if item.is_sweep_override() or not (item.is_delete() or item.value() in (None, "")):
        return None
    if group == "experiment":
        return ""
    if group in NOTHING:
        return NOTHING[group]
    raise ConfigError(f"{group} must be chosen, {listed(group, loader)}; got '{item.input_line}'.")


def _refuse_wrong_choice(item: Override, loader: ConfigLoader) -> None:
    group, value, word = item.key_or_group, _value(item), item.input_line
    if isinstance(value, list) and group not in SEVERAL:
        commas = ",".join(map(str, value))
        raise ConfigError(f"{word}: {group} takes one choice; to run each, write -m {group}={commas}.")
    names = value if isinstance(value, list) else [value]
    kinds = str if isinstance(value, list) else str | dict | None
    if any(not isinstance(name, kinds) or str(name).startswith(("_", "/", ".")) for name in names):
        raise ConfigError(f"{word}: must be {listed(group, loader)}.")
    if (item.is_add() or item.is_force_add()) and isinstance(value, str | list):
        raise ConfigError(f"{word}: {group} is there already; to choose, write {str(word).lstrip('+')}.")


def _refuse_two_choices(parsed: Sequence[Override], loader: ConfigLoader) -> None:
    chosen: dict[str, Override] = {}
    for item in parsed:
        key = str(item.get_key_element())
        if is_choice(item, loader) and chosen.setdefault(key, item) is not item:
            raise ConfigError(f"{key} is chosen twice, {chosen[key].input_line} and {item.input_line}; keep one.")


def _not_an_override(word: str, loader: ConfigLoader) -> str:
    """What to say to a word without an equals sign."""
    known = groups(loader)
    group, _, name = word.strip().rpartition("/")
    if word in known:
        return f"'{word}' is not complete: write {word}=NAME, {listed(word, loader)}."
    if group in known:
        return f"'{word}' is not an override: write {group}={name}."
    for group in known:
        if word in options(group, loader):
            return f"'{word}' is not an override: write {group}={word}."
    if word == "help":
        return "'help' is not an override; for help: dlrun train --help."
    if "." in word:
        return f"'{word}' is not an override: write {word}=VALUE."
    return (
        f"'{word}' is not an override: write KEY=VALUE, as in optimizer.lr=0.1 or model=cnn.{did_you_mean(word, known)}"
    )


def _reason(word: str, error: HydraException) -> str:
    """Why the grammar refuses a word: what a person would see first, else what the parser says."""
    for opening, closing in ("[]", "{}", "()"):
        if word.count(opening) != word.count(closing):
            return f"{opening} and {closing} do not pair"
    for mark in "\"'":
        if word.count(mark) % 2:
            return f"the quotation mark {mark} is not closed"
    key, _, value = word.partition("=")
    if not re.fullmatch(r"[+~]{0,2}\w[\w@/-]*(\.[\w@/-]+)*", key, re.ASCII):
        return f"'{key}' is no key, such as trainer.epochs"
    if re.search(r"[{,]\s*(['\"]).*?\1\s*:", value):
        return "a key in braces has no quotation marks, as in {*.bias: 1}"
    said = [line.strip().rstrip(".") for line in str(error).splitlines() if " while evaluating " in line]
    if said or "'" in value:
        return said[0] if said else "Hydra's grammar has no such value"
    return f"a value with characters that mean something to Hydra is quoted, twice for the shell: \"{key}='{value}'\""
