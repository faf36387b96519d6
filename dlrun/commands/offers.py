"""What a command offers at a tab: overrides, runs, and options of its own. Each command's `offer` is made of these."""

import re
from collections.abc import Iterator, Mapping, Sequence

from dlrun.config.catalog import Catalog

CONFIG_FLAGS = ("--config-dir", "--config-path", "--config-name")
FOLDER_FLAGS = ("--config-dir", "-cd", "--config-path", "-cp")  # the shell completes folders itself
SCHEMAS = {"trainer": "Trainer", "data": "Data", "optimizer": "Optimizer", "scheduler": "Scheduler"}
DEVICES = ("auto", "cpu", "cuda", "mps")


def positional(typed: Sequence[str]) -> list[str]:
    """The words that are neither options nor folders of --config-dir."""
    pairs = zip(typed, ["", *typed], strict=False)
    return [word for word, before in pairs if not word.startswith("-") and before not in FOLDER_FLAGS]


def folder_typed(typed: Sequence[str]) -> str | None:
    """The folder that --config-dir names among the words typed."""
    for i, word in enumerate(typed):
        option, equals, value = word.partition("=")
        if option in {"--config-dir", "-cd"}:
            return value if equals else (typed[i + 1] if i + 1 < len(typed) else None)
    return None


def options(values: Mapping[str, Sequence[str]], current: str) -> Iterator[str]:
    """`NAME=`, and once that is typed `NAME=VALUE` with each of its values."""
    name, equals, _ = current.partition("=")
    yield from (f"{name}={value}" for value in values.get(name, ())) if equals else (f"{name}=" for name in values)


def runs(current: str) -> Iterator[str]:
    """`last`, and the names of recorded runs, newest first; of paths the shell knows better."""
    if "/" in current:
        return
    from dlrun.runs.directory import all_runs

    yield "last"
    yield from (path.name for path in reversed(all_runs()))


def overrides(typed: Sequence[str], current: str) -> Iterator[str]:
    """Groups, keys and values, as `model=`, `model.widths=`, `model=cnn`, `trainer.precision=bf16`."""
    catalog = Catalog(folder_typed(typed))
    mark = re.match(r"[+~]*", current)
    sign = mark[0] if mark else ""
    name, equals, value = current[len(sign) :].partition("=")
    if equals:
        done = value.rpartition(",")[0] + "," if "," in value else ""  # model=mlp,<TAB> in a sweep
        yield from (f"{sign}{name}={done}{option}" for option in _values(catalog, typed, name))
    elif "." in name:
        keys = catalog.keys(name.partition(".")[0], catalog.selected(typed).get(name.partition(".")[0]))
        yield from (f"{sign}{key.name}=" for key in keys)
    else:
        yield from (f"{sign}{group}=" for group in catalog.groups)
        yield from (f"{sign}{key.name}=" for key in catalog.top_keys())
        if name:  # the dotted forms only when asked for, or an empty line would offer everything twice
            selected = catalog.selected(typed)
            yield from (
                f"{sign}{g}." for g in catalog.groups if g.startswith(name) and catalog.keys(g, selected.get(g))
            )


def _values(catalog: Catalog, typed: Sequence[str], name: str) -> list[str]:
    """The choices of a group; of a key its allowed words, or else its default, to be edited."""
    if name in catalog.groups:
        return [choice.name for choice in catalog.choices(name)]
    group, _, rest = name.partition(".")
    selected = catalog.selected(typed).get(group)
    keys = {key.name: key for key in (catalog.keys(group, selected) if rest else catalog.top_keys())}
    if name not in keys:
        return []
    default = keys[name].default
    choice = catalog.choice(group, selected) if selected else None
    options = _allowed_words(group, choice.target if choice else "", rest)
    if not options and default in {"true", "false"}:
        return ["true", "false"]
    return options or ([default] if re.fullmatch(r"[\w.+-]+", default) else [])


def _allowed_words(group: str, target: str, argument: str) -> list[str]:
    """The values of an argument annotated with Literal, by dlrun's own parts and settings."""
    from dlrun.config.signatures import signature_of
    from dlrun.config.values import allowed, shown

    # Only dlrun's: reading the signature of a torch class takes longer than a person waits for a tab.
    targets = [target] if target.startswith("dlrun.") else []
    targets += [f"dlrun.config.schema.{SCHEMAS[group]}"] if group in SCHEMAS else []
    for path in targets:
        signature = signature_of(path)
        parameter = signature.parameters.get(argument) if signature else None
        rule = allowed(parameter.annotation, signature.module) if signature and parameter else None
        if rule is not None and rule.choices:
            others = [value for value in (True, False, None) if rule.accepts(value) and value not in rule.choices]
            return [shown(value).strip("'") for value in [*rule.choices, *others]]
    return []
