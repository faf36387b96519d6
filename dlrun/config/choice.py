"""One choice of a group, as its YAML file tells it: what it is, where the idea is from, what can be set.

Comments belong to what is read: the file's head describes the choice, the comment beside a key describes the key.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from dlrun.errors import ConfigError

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's is ten times as fast
COMMENT = re.compile(r"\s*#\s?(.*)")
# The end of a sentence, but not of an abbreviation.
SENTENCE_END = re.compile(r"(?<!\bal)(?<!\bsec)(?<!\be\.g)(?<!\bi\.e)(?<!\bcf)(?<!\bvs)\.\s+(?=\W*[A-Z0-9])")
CITATION = re.compile(r"\s*\(([^()]*(?:\b(?:18|19|20)\d\d\b|arXiv:|doi:)[^()]*)\)")


@dataclass(frozen=True)
class Key:
    """One setting: its dotted name, its default as the YAML writes it (empty for a group of keys), its comment."""

    name: str
    default: str
    comment: str = ""


@dataclass(frozen=True)
class Choice:
    """One choice of a group: `model=cnn`, and the file that says what it means."""

    group: str
    name: str
    path: Path

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def head(self) -> str:
        """The first sentence of the comment at the top; commands that an experiment's head begins with are left out."""
        lines = []
        for line in self.text.splitlines():
            if not line.startswith("#"):
                break
            comment = line.lstrip("#").strip()
            if not comment.startswith(("@package", "dlrun ")):
                lines.append(comment)
        return SENTENCE_END.split(" ".join(lines).strip(), maxsplit=1)[0].rstrip(".:")

    @property
    def description(self) -> str:
        """The head without its citations."""
        return CITATION.sub("", self.head)

    @property
    def source(self) -> str:
        """Where the idea is from, as cited in the head; empty if it cites nothing."""
        return "; ".join(CITATION.findall(self.head))

    @cached_property
    def document(self) -> yaml.MappingNode | None:
        """The parsed file; None if it holds no mapping.

        Raises: ConfigError naming file and line if it is not YAML.
        """
        try:
            node = yaml.compose(self.text, Loader=LOADER)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f":{mark.line + 1}" if mark else ""
            raise ConfigError(f"{self.path}{where}: not valid YAML: {getattr(error, 'problem', error)}.") from None
        return node if isinstance(node, yaml.MappingNode) else None

    @property
    def is_global(self) -> bool:
        """Whether its keys are those of the whole configuration, as an experiment's are."""
        return re.search(r"^#\s*@package\s+_global_", self.text, re.MULTILINE) is not None

    @property
    def target(self) -> str:
        """The dotted path of the factory or class behind it; empty if there is none."""
        for key, value in self.document.value if self.document else ():
            if key.value == "_target_":
                return str(value.value)
        return ""

    @property
    def defaults(self) -> list[Any]:
        """Its own Hydra defaults list, as plain values."""
        for key, value in self.document.value if self.document else ():
            if key.value == "defaults":
                return list(_plain(value))
        return []

    def keys(self, prefix: str) -> Iterator[Key]:
        """Every setting in this file, in order, with `prefix` in front of its name."""
        if self.document is not None:
            yield from _flatten(self.document, self.text.splitlines(), prefix, skip=("defaults", "hydra"))


def _plain(node: yaml.Node) -> Any:
    """A node as lists, dictionaries, texts and None."""
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        return {_plain(key): _plain(value) for key, value in node.value}
    return None if node.tag.endswith(":null") else node.value


def _flatten(node: yaml.MappingNode, lines: list[str], prefix: str, skip: tuple[str, ...] = ()) -> Iterator[Key]:
    """The settings of a mapping, with nested names joined by dots. Those in `skip` and Hydra's `_…_` are left out."""
    for key, value in node.value:
        name = str(key.value)
        if name in skip or re.fullmatch(r"_\w+_", name):
            continue
        is_block = value.end_mark.line > value.start_mark.line and not getattr(value, "flow_style", True)
        is_group = isinstance(value, yaml.MappingNode) and bool(value.value)
        end = key.end_mark if is_block or is_group else value.end_mark
        comment = _comment(lines, key.start_mark.line, end.line, end.column)
        if is_group:
            if comment:
                yield Key(prefix + name, "", comment)
            yield from _flatten(value, lines, f"{prefix}{name}.")
        else:
            yield Key(prefix + name, _written(value, lines), comment)


def _comment(lines: list[str], first: int, last: int, column: int) -> str:
    """The comment behind a key's value, else the lines of comment right above the key.

    Neither the head of the file nor the continuation of the comment before, which stands further in, counts.
    """
    beside = COMMENT.fullmatch(lines[last][column:].removeprefix(":"))
    if beside:
        return beside[1].strip()
    indent = len(lines[first]) - len(lines[first].lstrip())
    above: list[str] = []
    while first > 0 and lines[first - 1].startswith(" " * indent + "#"):
        first -= 1
        above.insert(0, lines[first].strip(" #"))
    return " ".join(above) if first > 0 else ""


def _written(node: yaml.Node, lines: list[str]) -> str:
    """A value as the file writes it, on one line."""
    if isinstance(node, yaml.SequenceNode):
        return "[" + ", ".join(_written(item, lines) for item in node.value) + "]"
    if isinstance(node, yaml.MappingNode):
        return "{" + ", ".join(f"{key.value}: {_written(value, lines)}" for key, value in node.value) + "}"
    start, end = node.start_mark, node.end_mark
    return lines[start.line][start.column : end.column] if start.line == end.line else " ".join(str(node.value).split())
