"""Entries of the glossary: one YAML of conf/glossary each, read into typed objects. Loads neither Hydra nor torch."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml  # type: ignore[import-untyped]

from dlrun.config.location import config_dir_of, files_of
from dlrun.errors import ConfigError, UsageError, did_you_mean
from dlrun.glossary.claims import Claim, Condition, Verdict, condition, placeholders
from dlrun.glossary.reading import LANGUAGES, Both, Node


@dataclass(frozen=True)
class Hyperparameter:
    """Something that one sets, with the values that are usual."""

    name: str
    typical: str
    meaning: Both


@dataclass(frozen=True)
class Trainings:
    """Runs of `dlrun train` that a measurement needs: every arm with every seed.

    Attributes:
        common: words of all arms.
        arms: the words of each.
        seeds: how many, from 0.
    """

    common: Sequence[str]
    arms: Mapping[str, Sequence[str]]
    seeds: int


@dataclass(frozen=True)
class Entry:
    """A term.

    Attributes:
        name: the file's stem, by which other entries refer to it.
        config_dir: the user's own folder that the file is in, and its runs may choose from; None: dlrun's own entry.
        line: what it is, in one line.
        formula: in Unicode, so that it can be read in a terminal.
        words: what to type to have it, each with what it does.
        related: names of other entries.
        measure: dotted name of the function that measures what the claims are about.
        runs: what is trained for that; None: nothing.
    """

    name: str
    config_dir: str | None
    term: str
    aliases: Sequence[str]
    line: Both
    definition: Both
    formula: str
    hyperparameters: Sequence[Hyperparameter]
    words: Sequence[str]
    related: Sequence[str]
    measure: str
    runs: Trainings | None
    claims: Sequence[Claim]


def read_entry(path: Path) -> Entry:
    """Read one entry.

    Raises: ConfigError, one sentence that names the file and the key.
    """
    where = f"glossary/{path.name}"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{where} cannot be read: {' '.join(str(error).split())}.") from None
    top = Node(where, content, Entry.__dataclass_fields__.keys() - {"name", "config_dir"})
    claims = [read_claim(Node(f"{where}, claims[{i}]", node, CLAIM)) for i, node in enumerate(top.items("claims"))]
    ids = [claim.id for claim in claims]
    if len(set(ids)) < len(ids):
        raise ConfigError(f"{where}: the ids of the claims must differ, got {', '.join(ids)}.")
    hyperparameters = [
        Node(f"{where}, hyperparameters[{i}]", node, ["name", "typical", "meaning"])
        for i, node in enumerate(top.items("hyperparameters", least=0))
    ]
    return Entry(
        name=path.stem,
        config_dir=config_dir_of(path),
        term=top.text("term"),
        aliases=top.texts("aliases"),
        line=top.both("line"),
        definition=top.both("definition"),
        formula=top.text("formula"),
        hyperparameters=[Hyperparameter(n.text("name"), n.text("typical"), n.both("meaning")) for n in hyperparameters],
        words=top.texts("words"),
        related=top.texts("related"),
        measure=top.text("measure"),
        runs=_trainings(top, where),
        claims=claims,
    )


CLAIM = ["id", "line", "says", "shows", "holds_if", "corrected_if", "refuted_if", "correction", "verdict"]


def read_claim(node: Node) -> Claim:
    """A claim, from the keys CLAIM of a node. Raises: ConfigError."""
    verdict = node.text("verdict")
    if verdict not in list(Verdict):
        raise ConfigError(f"{node.where}: verdict must be one of {', '.join(Verdict)}, got '{verdict}'.")
    if node.has("corrected_if") != node.has("correction"):
        raise ConfigError(f"{node.where}: corrected_if and correction come together, a measurement with its sentence.")
    if Verdict(verdict) is Verdict.CORRECTED and not node.has("correction"):
        raise ConfigError(f"{node.where}: a claim that holds with a correction needs correction and corrected_if.")
    if Verdict(verdict) is Verdict.UNSHOWN and not node.has("refuted_if"):
        raise ConfigError(f"{node.where}: a claim that is not shown needs refuted_if, what would have refuted it.")
    shows = node.both("shows")
    if len({tuple(sorted(placeholders(text))) for text in shows.values()}) > 1:
        raise ConfigError(f"{node.where}: shows must show the same numbers in each of {' and '.join(LANGUAGES)}.")
    return Claim(
        id=node.text("id"),
        line=node.whole("line", 1),
        says=node.both("says"),
        shows=shows,
        holds_if=_conditions(node, "holds_if"),
        corrected_if=_conditions(node, "corrected_if") if node.has("corrected_if") else (),
        refuted_if=_conditions(node, "refuted_if") if node.has("refuted_if") else (),
        correction=node.both("correction") if node.has("correction") else {},
        recorded=Verdict(verdict),
    )


def _conditions(node: Node, key: str) -> list[Condition]:
    return [condition(name, str(text)) for name, text in node.mapping(key).items()]


def _trainings(top: Node, where: str) -> Trainings | None:
    if not top.has("runs"):
        return None
    node = Node(f"{where}, runs", top.mapping("runs"), ["common", "arms", "seeds"])
    arms = Node(f"{where}, runs.arms", node.mapping("arms"), list(node.mapping("arms")))
    return Trainings(node.texts("common"), {name: arms.texts(name) for name in arms.content}, node.whole("seeds", 1))


def read_glossary(config_dir: str | None = None) -> dict[str, Entry]:
    """All entries by name, in the order of their terms.

    Args:
        config_dir: a folder with more of them in its `glossary`.

    Raises: ConfigError; UsageError if there is no such folder.
    """
    entries = [read_entry(path) for path in files_of("glossary", config_dir)]
    by_name = {entry.name: entry for entry in sorted(entries, key=lambda entry: plain(entry.term))}
    for entry in entries:
        for name in entry.related:
            if name not in by_name:
                near = did_you_mean(name, by_name)
                raise ConfigError(f"glossary/{entry.name}.yaml: related names no entry '{name}'.{near}")
    return by_name


def find_entry(word: str, glossary: Mapping[str, Entry]) -> Entry:
    """The entry that a word means: name, term or alias, whatever its accents, capitals, blanks and hyphens.

    Raises: UsageError with the nearest.
    """
    known = {plain(name): entry for entry in glossary.values() for name in (entry.name, entry.term, *entry.aliases)}
    found = known.get(plain(word))
    if found is not None:
        return found
    near = did_you_mean(plain(word), known)
    if near:
        (quoted,) = re.findall("'(.*)'", near)
        near = f" Did you mean '{known[quoted].name}'?"
    raise UsageError(f"the glossary has no term '{word}': `dlrun glossary` lists them.{near}")


def plain(word: str) -> str:
    """Letters and digits alone, small and without accents: how terms are compared and sorted."""
    letters = unicodedata.normalize("NFKD", word.casefold())
    return "".join(letter for letter in letters if letter.isalnum())
