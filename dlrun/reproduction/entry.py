"""Reproductions: one YAML of conf/reproduce each, read into typed objects. Loads neither Hydra nor torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from dlrun.config.location import config_dir_of, files_of
from dlrun.errors import ConfigError, UsageError, did_you_mean
from dlrun.glossary.claims import Claim, placeholders
from dlrun.glossary.entry import CLAIM, plain, read_claim
from dlrun.glossary.reading import Both, Node

FULL = "full"  # what a claim needs that is judged only of the runs as they are recorded


@dataclass(frozen=True)
class Runs:
    """What is trained: every arm with every seed.

    Attributes:
        common: words of all arms; a later word of the same key takes its place.
        stack: whether runs that can be are trained as one (dlrun/stacked).
    """

    common: Sequence[str]
    arms: Mapping[str, Sequence[str]]
    seeds: int
    stack: bool


@dataclass(frozen=True)
class Option:
    """More arms, trained only if asked for: NAME=true."""

    says: Both
    minutes: float
    arms: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Printed:
    """A number that the source prints, of one arm.

    Attributes:
        metric: of metrics.jsonl or a test metric, as the last epoch has it; or "weights/mean", the mean over all
            parameter tensors of the absolute value of their mean.
        line: of the source, where it stands.
    """

    name: str
    arm: str
    metric: str
    value: float
    line: int


@dataclass(frozen=True)
class Reproduction:
    """A source, or a part of one.

    Attributes:
        name: the file's stem.
        config_dir: the user's own folder that the file is in, and its runs may choose from; None: dlrun's own.
        hardware: what the minutes were taken on.
        notes: what a reader of the source would miss; `{name}` stands for a measured number.
        parts: names of the reproductions that make this one up; it has then nothing else.
        measure: dotted name of the function that measures what the claims are about.
        runs: None where nothing is trained.
        needs: for each claim that is not judged always, what it needs: FULL, or names of options.
    """

    name: str
    config_dir: str | None
    title: Both
    source: str
    hardware: str
    minutes: float
    about: Both
    notes: Sequence[Both]
    parts: Sequence[str]
    measure: str
    runs: Runs | None
    options: Mapping[str, Option]
    printed: Sequence[Printed]
    claims: Sequence[Claim]
    needs: Mapping[str, Sequence[str]]

    def arms(self, chosen: Sequence[str]) -> dict[str, list[str]]:
        """The words of every arm, those of the options chosen included."""
        if self.runs is None:
            return {}
        arms = dict(self.runs.arms)
        for name in chosen:
            arms |= self.options[name].arms
        return {name: [*self.runs.common, *words] for name, words in arms.items()}


KEYS = Reproduction.__dataclass_fields__.keys() - {"name", "config_dir", "needs"}


def read_reproduction(path: Path) -> Reproduction:
    """Read one. Raises: ConfigError, one sentence that names the file and the key."""
    where = f"reproduce/{path.name}"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{where} cannot be read: {' '.join(str(error).split())}.") from None
    top = Node(where, content, KEYS)
    parts = top.texts("parts")
    runs, options = _runs(top, where), _options(top, where)
    nodes = [
        Node(f"{where}, claims[{i}]", node, [*CLAIM, "needs"])
        for i, node in enumerate(top.items("claims", least=0 if parts else 1))
    ]
    claims = [read_claim(node) for node in nodes]
    ids = [claim.id for claim in claims]
    if len(set(ids)) < len(ids):
        raise ConfigError(f"{where}: the ids of the claims must differ, got {', '.join(ids)}.")
    made = Reproduction(
        name=path.stem,
        config_dir=config_dir_of(path),
        title=top.both("title"),
        source=top.text("source"),
        hardware=top.text("hardware"),
        minutes=number(top, "minutes"),
        about=top.both("about"),
        notes=[_note(where, node) for node in top.items("notes", least=0)],
        parts=parts,
        measure="" if parts else top.text("measure"),
        runs=runs,
        options=options,
        printed=[_printed(Node(f"{where}, printed[{i}]", n, PRINTED)) for i, n in enumerate(top.items("printed", 0))],
        claims=claims,
        needs={claim.id: needed for claim, node in zip(claims, nodes, strict=True) if (needed := node.texts("needs"))},
    )
    _check(made, where)
    return made


PRINTED = Printed.__dataclass_fields__.keys()


def _check(made: Reproduction, where: str) -> None:
    if made.parts and (made.claims or made.runs):
        raise ConfigError(f"{where}: what has parts leaves claims and runs to them.")
    known = [FULL, *made.options]
    for claim, needed in made.needs.items():
        for name in needed:
            if name not in known:
                raise ConfigError(f"{where}: claim {claim} needs must be of {', '.join(known)}, got '{name}'.")
    arms = made.arms(list(made.options))
    for item in made.printed:
        if item.arm not in arms:
            near = did_you_mean(item.arm, arms)
            raise ConfigError(f"{where}: printed {item.name} is of no arm '{item.arm}'.{near}")


def _runs(top: Node, where: str) -> Runs | None:
    if not top.has("runs"):
        return None
    node = Node(f"{where}, runs", top.mapping("runs"), Runs.__dataclass_fields__)
    stack = node.content.get("stack", False)
    if not isinstance(stack, bool):
        raise ConfigError(f"{node.where}: stack must be true or false, got {stack!r}.")
    return Runs(node.texts("common"), _arms(node), node.whole("seeds", 2), stack)


def _options(top: Node, where: str) -> dict[str, Option]:
    if not top.has("options"):
        return {}
    options = {}
    for name, content in top.mapping("options").items():
        node = Node(f"{where}, options.{name}", content, Option.__dataclass_fields__)
        options[name] = Option(node.both("says"), number(node, "minutes"), _arms(node))
    return options


def _arms(node: Node) -> dict[str, list[str]]:
    arms = Node(f"{node.where}.arms", node.mapping("arms"), list(node.mapping("arms")))
    return {str(name): arms.texts(name) for name in arms.content}


def _printed(node: Node) -> Printed:
    value = number(node, "value", least=None)
    return Printed(node.text("name"), node.text("arm"), node.text("metric"), value, node.whole("line", 1))


def number(node: Node, key: str, least: float | None = 0.0) -> float:
    """The number of a key. Raises: ConfigError."""
    value = node.content.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or (least is not None and value < least):
        limit = "" if least is None else f" >= {least:g}"
        raise ConfigError(f"{node.where}: {key} must be a number{limit}, got {value!r}.")
    return float(value)


def _note(where: str, content: Any) -> Both:
    note = Node(f"{where}, notes", {"note": content}, ["note"]).both("note")
    if len({tuple(sorted(placeholders(text))) for text in note.values()}) > 1:
        raise ConfigError(f"{where}, notes: a note must show the same numbers in every language, got {note}.")
    return note


def read_all(config_dir: str | None = None) -> dict[str, Reproduction]:
    """All by name; those with parts before their parts.

    Args:
        config_dir: a folder with more of them in its `reproduce`.

    Raises: ConfigError; UsageError if there is no such folder.
    """
    read = [read_reproduction(path) for path in files_of("reproduce", config_dir)]
    known = {made.name: made for made in read}
    for made in read:
        for part in made.parts:
            if part not in known or known[part].parts:
                near = did_you_mean(part, known)
                raise ConfigError(f"reproduce/{made.name}.yaml: parts names no reproduction '{part}'.{near}")
    inner = {part for made in read for part in made.parts}
    order = [name for made in read if made.name not in inner for name in (made.name, *made.parts)]
    return {name: known[name] for name in order}


def find(word: str, known: Mapping[str, Reproduction]) -> Reproduction:
    """The one that a word means, whatever its capitals, blanks and hyphens. Raises: UsageError with the nearest."""
    by_plain = {plain(name): made for name, made in known.items()}
    found = by_plain.get(plain(word))
    if found is None:
        near = did_you_mean(word, known)
        raise UsageError(f"there is no reproduction '{word}': `dlrun reproduce list` shows them.{near}")
    return found
