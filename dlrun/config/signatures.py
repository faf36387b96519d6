"""What arguments a `_target_` takes, read from its source file without importing it.

The signature is the schema: a factory's annotations say what a configuration may hold. Importing torch to look at
`torch.optim.AdamW` would take seconds, so the dotted path is followed through the files of its package and the
definition is parsed. Whatever cannot be read that way (C extensions, names made at run time) is left for
`dlrun/build.py`, which imports it.
"""

import ast
from dataclasses import dataclass, field, replace

from dlrun.config.sources import Definition, Module, find, follow


@dataclass(frozen=True)
class Parameter:
    """One argument: its annotation as parsed, whether it must be given, whether null is its default."""

    name: str
    annotation: ast.expr | None
    required: bool
    nullable: bool = False


@dataclass(frozen=True)
class Signature:
    """The arguments of a callable and the module in which its annotations are to be understood.

    `open` says that it takes **kwargs, so that any further name may be right.
    """

    target: str
    parameters: dict[str, Parameter]
    module: Module
    open: bool = False
    doc: str = field(default="", repr=False)


def signature_of(target: str) -> Signature | None:
    """The signature of the callable that `target`, a dotted path, names; None if it cannot be read from source.

    Raises: ConfigError if the path certainly leads nowhere; the message says where it ends.
    """
    found = find(target)
    if found is None:
        return None
    node = found.node
    if isinstance(node, ast.ClassDef):
        signature = of_class(found)
    elif not isinstance(node, ast.FunctionDef):
        return None
    elif found.owner is None:
        signature = _of_function(found.module, node, skip_first=False)
    else:
        kinds = {ast.unparse(decorator) for decorator in node.decorator_list}
        if not kinds & {"classmethod", "staticmethod"}:
            return None
        signature = _of_function(found.module, node, skip_first="classmethod" in kinds)
    return replace(signature, target=target) if signature is not None else None


def of_class(found: Definition) -> Signature | None:
    """The arguments of a class: its own __init__'s, a dataclass's fields, or its base classes'; None if unknown."""
    node, module = found.node, found.module
    assert isinstance(node, ast.ClassDef)
    doc = ast.get_docstring(node) or ""
    own = [item for item in node.body if isinstance(item, ast.FunctionDef) and item.name in ("__init__", "__new__")]
    if own:  # the last: those before it are overloads
        return replace(_of_function(module, own[-1], skip_first=True), target=node.name, doc=doc)
    if is_dataclass(node):
        return _of_dataclass(found, doc)
    if node.decorator_list or node.keywords:
        return None  # a decorator or a metaclass may make an __init__
    for base in node.bases:
        above = follow(module, base.id) if isinstance(base, ast.Name) else None
        if isinstance(base, ast.Name) and base.id == "object":
            continue
        if above is None or not isinstance(above.node, ast.ClassDef):
            return None
        inherited = of_class(above)
        if inherited is None or inherited.parameters or inherited.open:
            return replace(inherited, target=node.name, doc=doc) if inherited is not None else None
    return Signature(node.name, {}, module, doc=doc)


def is_dataclass(node: ast.ClassDef) -> bool:
    """Whether the class carries the dataclass decorator."""
    return any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)


def _of_function(module: Module, node: ast.FunctionDef, *, skip_first: bool) -> Signature:
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + [*arguments.defaults]
    pairs = [*zip(positional, defaults, strict=True)][1 if skip_first else 0 :]
    pairs += zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    parameters = {
        item.arg: Parameter(
            item.arg,
            item.annotation,
            required=default is None,
            nullable=isinstance(default, ast.Constant) and default.value is None,
        )
        for item, default in pairs
    }
    # A decorator may take arguments of its own away or add some; the types still hold.
    kept = {"classmethod", "staticmethod"}
    is_changed = any(ast.unparse(decorator) not in kept for decorator in node.decorator_list)
    doc = ast.get_docstring(node) or ""
    return Signature(node.name, parameters, module, arguments.kwarg is not None or is_changed, doc)


def _of_dataclass(found: Definition, doc: str) -> Signature | None:
    """The fields, those of base dataclasses first."""
    node, fields = found.node, dict[str, Parameter]()
    assert isinstance(node, ast.ClassDef)
    for base in reversed(node.bases):
        above = follow(found.module, base.id) if isinstance(base, ast.Name) else None
        inherited = of_class(above) if above is not None and isinstance(above.node, ast.ClassDef) else None
        if inherited is None:
            return None
        fields |= inherited.parameters
    for item in node.body:
        if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name):
            continue
        text, value = ast.unparse(item.annotation), item.value
        if "ClassVar" in text or (value is not None and "init=False" in ast.unparse(value)):
            continue
        has_default = value is not None and (
            not ast.unparse(value).startswith("field(") or "default" in ast.unparse(value)
        )
        fields[item.target.id] = Parameter(item.target.id, item.annotation, required=not has_default)
    return Signature(node.name, fields, found.module, doc=doc)
