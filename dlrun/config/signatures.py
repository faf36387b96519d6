"""What arguments a `_target_` takes, read from its source file without importing it.

The signature is the schema: a factory's annotations say what a configuration may hold. Importing torch to look at
`torch.optim.AdamW` would take seconds, so the dotted path is followed through the files of its package and the
definition is parsed. Whatever cannot be read that way (C extensions, names made at run time) is left for
`dlrun/build.py`, which imports it.
"""

import ast
import functools
import importlib.util
from dataclasses import dataclass, field
from pathlib import Path

from dlrun.errors import ConfigError, did_you_mean


@dataclass(frozen=True)
class Module:
    """A parsed source file."""

    path: Path
    tree: ast.Module

    @property
    def names(self) -> dict[str, ast.stmt]:
        """Top-level definitions, assignments and imports by the name they bind; the last one wins."""
        bound: dict[str, ast.stmt] = {}
        for node in _statements(self.tree.body):
            match node:
                case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                    bound[node.name] = node
                case ast.Assign():
                    bound |= {target.id: node for target in node.targets if isinstance(target, ast.Name)}
                case ast.AnnAssign(target=ast.Name(id=name)):
                    bound[name] = node
                case ast.Import() | ast.ImportFrom():
                    bound |= {alias.asname or alias.name.split(".")[0]: node for alias in node.names}
        return bound

    @property
    def stars(self) -> list[ast.ImportFrom]:
        """Its `from x import *`."""
        imports = [node for node in _statements(self.tree.body) if isinstance(node, ast.ImportFrom)]
        return [node for node in imports if node.names[0].name == "*"]

    @property
    def is_dynamic(self) -> bool:
        """Whether names may exist that the source does not show."""
        names = self.names
        return "__getattr__" in names or any("globals()" in ast.unparse(n) for n in self.tree.body[-5:])


@dataclass(frozen=True)
class Parameter:
    """One argument: its annotation as parsed, and whether it must be given."""

    name: str
    annotation: ast.expr | None
    required: bool
    positional: bool = True


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
    found = _find(target)
    if found is None:
        return None
    module, node = found
    if isinstance(node, ast.FunctionDef):
        return _of_function(target, module, node, skip_first=False)
    return _of_class(target, module, node) if isinstance(node, ast.ClassDef) else None


def _statements(body: list[ast.stmt]) -> list[ast.stmt]:
    """The statements of a module, those inside top-level `if` and `try` included."""
    flat: list[ast.stmt] = []
    for node in body:
        flat.append(node)
        if isinstance(node, ast.If):
            flat += _statements(node.body) + _statements(node.orelse)
        elif isinstance(node, ast.Try):
            flat += _statements(node.body) + [s for handler in node.handlers for s in _statements(handler.body)]
    return flat


@functools.cache
def _parse(path: Path) -> Module:
    return Module(path, ast.parse(path.read_text(encoding="utf-8")))


def _child(folder: Path, name: str) -> Path | None:
    """The source file of the submodule `name` in the package at `folder`."""
    for path in (folder / name / "__init__.py", folder / f"{name}.py"):
        if path.is_file():
            return path
    return None


def _find(target: str) -> tuple[Module, ast.stmt] | None:
    """Follow a dotted path through the file system and then through the definitions of the last module."""
    if not all(part.isidentifier() for part in target.split(".")) or "." not in target:
        raise ConfigError(f"'{target}' is not a dotted path to a class or function, such as torch.optim.AdamW")
    top, *rest = target.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise ConfigError(
            f"'{target}' cannot be imported: there is no module '{top}' on Python's path. A module of your own is "
            "found in the current folder, in the folder given by --config-dir, or through PYTHONPATH"
        )
    if spec.origin is None or not spec.origin.endswith(".py"):
        return None
    path = Path(spec.origin)
    while rest and path.name == "__init__.py" and (below := _child(path.parent, rest[0])) is not None:
        path, rest = below, rest[1:]
    return _attribute(_parse(path), rest, target)


def _attribute(module: Module, names: list[str], target: str) -> tuple[Module, ast.stmt] | None:
    if not names:
        raise ConfigError(f"'{target}' is a module, not a class or function")
    node = module.names.get(names[0])
    if node is None:
        return _from_stars(module, names, target)
    if isinstance(node, ast.ImportFrom):
        return _imported(module, node, names, target)
    if isinstance(node, ast.ClassDef) and len(names) == 2:
        methods = {item.name: item for item in node.body if isinstance(item, ast.FunctionDef)}
        return (module, methods[names[1]]) if names[1] in methods else None
    return (module, node) if len(names) == 1 else None


def _from_stars(module: Module, names: list[str], target: str) -> tuple[Module, ast.stmt] | None:
    """A name the module does not define itself: from its `from x import *`, or certainly not there."""
    is_certain = not module.is_dynamic and not module.path.parent.joinpath(names[0]).exists()
    for star in module.stars:
        try:
            found = _imported(module, star, names, target)
        except ConfigError:
            continue
        if found is not None:
            return found
        is_certain = False
    if not is_certain:
        return None
    where = target.rsplit(f".{'.'.join(names)}", 1)[0]
    raise ConfigError(f"'{target}' does not exist: {where} has no '{names[0]}'.{did_you_mean(names[0], module.names)}")


def _imported(module: Module, node: ast.ImportFrom, names: list[str], target: str) -> tuple[Module, ast.stmt] | None:
    """The definition behind `from x import name`."""
    original = next((alias.name for alias in node.names if (alias.asname or alias.name) == names[0]), names[0])
    if node.level == 0:
        return _find(".".join([node.module or "", original, *names[1:]]))
    folder = module.path.parent
    for _ in range(node.level - 1):
        folder = folder.parent
    path = folder / "__init__.py"
    for part in [*(node.module.split(".") if node.module else []), original]:
        below = _child(path.parent, part)
        if below is None:
            return _attribute(_parse(path), [original, *names[1:]], target)
        path = below
    return _attribute(_parse(path), names[1:], target) if names[1:] else None


def _of_function(target: str, module: Module, node: ast.FunctionDef, *, skip_first: bool) -> Signature:
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    first_default = len(positional) - len(arguments.defaults)
    parameters = {
        item.arg: Parameter(item.arg, item.annotation, required=i < first_default) for i, item in enumerate(positional)
    }
    if skip_first and positional:
        del parameters[positional[0].arg]
    for item, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        parameters[item.arg] = Parameter(item.arg, item.annotation, required=default is None, positional=False)
    return Signature(target, parameters, module, arguments.kwarg is not None, ast.get_docstring(node) or "")


def _of_class(target: str, module: Module, node: ast.ClassDef) -> Signature | None:
    """The signature of a class: its __init__, a dataclass's fields, or what its first base class says."""
    doc = ast.get_docstring(node) or ""
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            own = _of_function(target, module, item, skip_first=True)
            return Signature(target, own.parameters, module, own.open, doc)
    if is_dataclass(node):
        fields = {
            item.target.id: Parameter(item.target.id, item.annotation, required=item.value is None)
            for item in node.body
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
        }
        return Signature(target, fields, module, doc=doc)
    if not node.bases:
        return Signature(target, {}, module, doc=doc)
    base = node.bases[0]
    if isinstance(base, ast.Name) and base.id in module.names:
        found = _attribute(module, [base.id], target)
        if found is not None and isinstance(found[1], ast.ClassDef):
            return _of_class(target, *found)
    return None


def dataclass_named(name: str, module: Module) -> Signature | None:
    """The fields of the dataclass that `name` means in `module`, defined or imported there; None if it is none."""
    if not isinstance(module.names.get(name), ast.ClassDef | ast.ImportFrom):
        return None
    found = _attribute(module, [name], f"{module.path.stem}.{name}")
    if found is None or not isinstance(found[1], ast.ClassDef) or not is_dataclass(found[1]):
        return None
    return _of_class(name, *found)


def is_dataclass(node: ast.ClassDef) -> bool:
    """Whether the class carries the dataclass decorator."""
    return any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)
