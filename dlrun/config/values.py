"""Is this value what that annotation allows? The answer is a phrase for an error message, or None.

Annotations are the syntax trees that `dlrun/config/signatures.py` reads. What is not understood is not refused: the
check exists to give good messages early, and `build` has the last word.
"""

import ast
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlrun import contracts
from dlrun.config.signatures import Signature, is_dataclass, of_class
from dlrun.config.sources import Definition, Module, follow, parse
from dlrun.contracts import Interval
from dlrun.errors import did_you_mean
from dlrun.optim.durations import is_duration

Check = Callable[[Any], bool]

NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "null"}
SEQUENCES = {"Sequence", "list", "List", "Iterable", "Collection", "set", "frozenset"}
LARGEST = 2**63  # of the whole numbers that torch can hold
MAPPINGS = {"dict", "Dict", "Mapping"}
CONTRACTS = parse(Path(contracts.__file__))


@dataclass(frozen=True)
class Allowed:
    """What an annotation allows: a test, and words for a message. `choices` are the values of a Literal."""

    accepts: Check
    words: str
    choices: tuple[Any, ...] = ()
    nested: Signature | None = None  # of a dataclass, whose fields the value holds
    is_mapping: bool = False  # with whatever keys


def allowed(annotation: ast.expr | None, module: Module) -> Allowed | None:
    """Translate an annotation; None when it says nothing that can be checked."""
    match annotation:
        case ast.Constant(value=None):
            return _plain(type(None))
        case ast.Constant(value=str() as text):
            return allowed(ast.parse(text, mode="eval").body, module)
        case ast.Name(id=name):
            return _named(name, module)
        case ast.Attribute(value=ast.Name(id="contracts"), attr=name):
            return _named(name, CONTRACTS)
        case ast.Attribute(value=ast.Name(id="typing" | "abc"), attr=name) if name in SEQUENCES | MAPPINGS:
            return _named(name, module)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _union([allowed(left, module), allowed(right, module)])
        case ast.Subscript(value=ast.Name(id=name) | ast.Attribute(attr=name), slice=inner):
            return _subscript(name, inner.elts if isinstance(inner, ast.Tuple) else [inner], module)
    return None


def complaint(key: str, value: Any, rule: Allowed) -> str | None:
    """One sentence saying what is wrong with `key=value`, or None."""
    if rule.accepts(value):
        return None
    near = did_you_mean(str(value).lower(), map(str, rule.choices)) if rule.choices else ""
    size = " below 2**63" if isinstance(value, int) and abs(value) >= LARGEST else ""
    return f"{key} must be {rule.words}{size}, got {shown(value)}.{near}"


def shown(value: Any) -> str:
    """A value as the user would write it."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else f"'{value}'" if isinstance(value, str) else str(value)


def _is(kind: type, value: Any) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < LARGEST
    return isinstance(value, kind)


def _plain(kind: type) -> Allowed:
    return Allowed(lambda value: _is(kind, value), NAMES[kind])


def _literal(choices: tuple[Any, ...]) -> Allowed:
    words = ("one of " if len(choices) > 1 else "") + ", ".join(shown(choice).strip("'") for choice in choices)
    return Allowed(lambda value: any(value == c and type(value) is type(c) for c in choices), words, choices)


def _interval(kind: type, interval: Interval) -> Allowed:
    return Allowed(
        lambda value: _is(kind, value) and math.isfinite(value) and value in interval, f"{NAMES[kind]} {interval}"
    )


def _named(name: str, module: Module) -> Allowed | None:
    plain: dict[str, type] = {"int": int, "float": float, "bool": bool, "str": str}
    if name in plain and name not in module.names:
        return _plain(plain[name])
    if name in SEQUENCES:
        return _sequence(None)
    if name in MAPPINGS:
        return _mapping(None)
    node = module.names.get(name)
    if isinstance(node, ast.ImportFrom) and not _is_near(node):
        return None
    found = follow(module, name) if node is not None else None
    match found:
        case Definition(node=ast.Assign(value=value) | ast.AnnAssign(value=ast.expr() as value)):
            # An alias: Mode = Literal["a", "b"]. One that contains itself, as JSON would, is not looked into.
            mentions_itself = re.search(rf"\b{name}\b", ast.unparse(value))
            return None if mentions_itself else allowed(value, found.module)
        case Definition(node=ast.ClassDef() as node) if is_dataclass(node) and (fields := of_class(found)) is not None:
            return Allowed(lambda value: isinstance(value, dict), "a group of keys", nested=fields)
    return None


def _is_near(node: ast.ImportFrom) -> bool:
    """Whether an import is from the same package or from dlrun: looking for a type in torch takes time for nothing."""
    return node.level > 0 or (node.module or "").split(".")[0] == "dlrun"


def _union(parts: list[Allowed | None]) -> Allowed | None:
    if any(part is None for part in parts):
        return None
    known = [part for part in parts if part is not None]
    return Allowed(
        lambda value: any(part.accepts(value) for part in known),
        " or ".join(part.words for part in known),
        tuple(choice for part in known for choice in part.choices),
        next((part.nested for part in known if part.nested), None),
        any(part.is_mapping for part in known),
    )


def _sequence(item: Allowed | None) -> Allowed:
    def accepts(value: Any) -> bool:
        return isinstance(value, list | tuple) and (item is None or all(item.accepts(x) for x in value))

    return Allowed(accepts, "a list" if item is None else f"a list, each {item.words}")


def _mapping(value_rule: Allowed | None) -> Allowed:
    def accepts(value: Any) -> bool:
        return isinstance(value, dict) and (value_rule is None or all(value_rule.accepts(x) for x in value.values()))

    words = "a mapping {key: value}" if value_rule is None else f"a mapping, each value {value_rule.words}"
    return Allowed(accepts, words, is_mapping=True)


def _tuple(items: list[ast.expr], module: Module) -> Allowed:
    if len(items) == 2 and isinstance(items[1], ast.Constant) and items[1].value is Ellipsis:
        return _sequence(allowed(items[0], module))
    rules = [allowed(item, module) for item in items]

    def accepts(value: Any) -> bool:
        return (
            isinstance(value, list | tuple)
            and len(value) == len(rules)
            and all(rule is None or rule.accepts(x) for rule, x in zip(rules, value, strict=True))
        )

    words = ", ".join(rule.words for rule in rules if rule is not None)
    return Allowed(accepts, f"a list of {len(rules)}" + (f": {words}" if None not in rules else ""))


def _subscript(name: str, inner: list[ast.expr], module: Module) -> Allowed | None:
    if name == "Literal":
        return _literal(tuple(item.value for item in inner if isinstance(item, ast.Constant)))
    if name == "Optional":
        return _union([allowed(inner[0], module), _plain(type(None))])
    if name == "Union":
        return _union([allowed(item, module) for item in inner])
    if name in {"tuple", "Tuple"}:
        return _tuple(inner, module)
    if name in SEQUENCES:
        return _sequence(allowed(inner[0], module))
    if name in MAPPINGS:
        return _mapping(allowed(inner[-1], module))
    if name == "Annotated":
        return _annotated(inner, module)
    return None


def _annotated(inner: list[ast.expr], module: Module) -> Allowed | None:
    """Annotated[int, Interval(1)] written out in a signature."""
    match inner:
        case [
            ast.Name(id="int" | "float" as name),
            ast.Call(func=ast.Name(id="Interval"), args=args, keywords=keywords),
        ]:
            try:
                values = [ast.literal_eval(item) for item in args]
                named = {item.arg: ast.literal_eval(item.value) for item in keywords if item.arg}
            except ValueError:
                return None
            return _interval({"int": int, "float": float}[name], Interval(*values, **named))
        case [_, ast.Call(func=ast.Name(id="DurationMark"))]:
            return Allowed(is_duration, "a length such as 500 (steps), '5%' or '2ep'")
    return allowed(inner[0], module)
