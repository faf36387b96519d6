"""Finding the definition behind a dotted path in source files, without importing anything."""

import ast
import functools
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from dlrun.errors import ConfigError, did_you_mean


@dataclass(frozen=True, eq=False)
class Module:
    """A parsed source file."""

    path: Path
    tree: ast.Module

    @functools.cached_property
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

    def is_tried(self, node: ast.stmt) -> bool:
        """Whether a statement stands in a `try`, so that it may fail."""
        return any(node in ast.walk(outer) for outer in self.tree.body if isinstance(outer, ast.Try | ast.If))

    def may_have(self, name: str) -> bool:
        """Whether `name` may exist though `names` has it not: bound in another way, or made at run time."""
        if self.path.parent.joinpath(name).exists():
            return True
        for node in ast.walk(self.tree):
            match node:
                case ast.Name(id=found, ctx=ast.Store()) if found == name:
                    return True
                case ast.FunctionDef(name="__getattr__") if node in self.tree.body:
                    return True
                case ast.Call(func=ast.Name(id="globals" | "setattr" | "exec")):
                    return True
        return False


@dataclass(frozen=True)
class Definition:
    """A class, function or assignment, the module it is in, and the class it is a method of."""

    module: Module
    node: ast.stmt
    owner: ast.ClassDef | None = None


def find(target: str) -> Definition | None:
    """Follow a dotted path through the file system and then through the definitions of the last module.

    Returns: None if source files do not tell.
    Raises: ConfigError if the path certainly leads nowhere.
    """
    if not all(part.isidentifier() for part in target.split(".")) or "." not in target:
        raise ConfigError(f"'{target}' is not a dotted path to a class or function, such as torch.optim.AdamW")
    module, rest = _locate(target)
    try:
        return _attribute(module, rest, target) if module is not None else None
    except RecursionError:  # modules that import a name from each other
        return None


def _locate(target: str) -> tuple[Module | None, list[str]]:
    """The last module on a dotted path, None if it is not Python, and what is left of the path.

    Raises: ConfigError if there is no such module.
    """
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
    folders = list(dict.fromkeys(map(Path, spec.submodule_search_locations or [])))
    path = Path(spec.origin) if spec.origin is not None and spec.origin.endswith(".py") else None
    while rest and folders and (below := _child(folders, rest[0])) is not None:
        path, folders, rest = (None, [below], rest[1:]) if below.is_dir() else (below, _inside(below), rest[1:])
    if path is None and rest and spec.origin is None:
        _refuse_absent(folders, rest[0], target)
    return parse(path) if path is not None else None, rest


def follow(module: Module, name: str) -> Definition | None:
    """What `name` means in a module: the definition there, or behind its import; None if it cannot be told."""
    try:
        return _attribute(module, [name], f"{module.path.stem}.{name}")
    except ConfigError:
        return None


@functools.cache
def parse(path: Path) -> Module:
    """Raises: ConfigError if the file is no Python."""
    try:
        return Module(path, ast.parse(path.read_bytes()))
    except SyntaxError as error:
        raise ConfigError(f"{path} cannot be imported: {error.msg} in line {error.lineno}") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None


def _statements(body: list[ast.stmt]) -> list[ast.stmt]:
    """The statements of a module, those inside top-level `if`, `try` and `with` included."""
    flat: list[ast.stmt] = []
    for node in body:
        flat.append(node)
        if isinstance(node, ast.If):
            flat += _statements(node.body) + _statements(node.orelse)
        elif isinstance(node, ast.With):
            flat += _statements(node.body)
        elif isinstance(node, ast.Try):
            handled = [s for handler in node.handlers for s in _statements(handler.body)]
            flat += handled + _statements(node.body) + _statements(node.orelse)
    return flat


def _child(folders: list[Path], name: str) -> Path | None:
    """The source file of the submodule `name` of a package, or its folder if that has no __init__.py."""
    for folder in folders:
        for path in (folder / name / "__init__.py", folder / f"{name}.py"):
            if path.is_file():
                return path
    return next((folder / name for folder in folders if (folder / name).is_dir()), None)


def _inside(path: Path) -> list[Path]:
    """The folder of a package's submodules; none for a plain module."""
    return [path.parent] if path.name == "__init__.py" else []


def _refuse_absent(folders: list[Path], name: str, target: str) -> None:
    """Refuse a module that a folder without __init__.py does not have."""
    known = [path.stem for folder in folders for path in folder.iterdir() if path.suffix == ".py" or path.is_dir()]
    if not any(path.stem == name for folder in folders for path in folder.glob(f"{name}.*")):
        where = ", ".join(map(str, folders))
        raise ConfigError(f"'{target}' cannot be imported: {where} has no module '{name}'.{did_you_mean(name, known)}")


def _attribute(module: Module, names: list[str], target: str) -> Definition | None:
    if not names:
        raise ConfigError(f"'{target}' is a module, not a class or function")
    node = module.names.get(names[0])
    if node is None:
        return _from_stars(module, names, target)
    if isinstance(node, ast.ImportFrom):
        try:
            return _imported(module, node, names, target)
        except ConfigError:
            if module.is_tried(node):
                return None
            raise
    if isinstance(node, ast.ClassDef) and len(names) == 2:
        methods = {item.name: item for item in node.body if isinstance(item, ast.FunctionDef)}
        return Definition(module, methods[names[1]], owner=node) if names[1] in methods else None
    return Definition(module, node) if len(names) == 1 else None


def _from_stars(module: Module, names: list[str], target: str) -> Definition | None:
    """A name the module does not define itself: from its `from x import *`, or certainly not there."""
    is_certain, known = not module.may_have(names[0]), set(module.names)
    for star in module.stars:
        try:
            found = _imported(module, star, names, target)
        except ConfigError:
            known |= _star_names(module, star)
            continue
        if found is not None:
            return found
        is_certain = False
    if not is_certain:
        return None
    where = target.removesuffix(f".{'.'.join(names)}")
    raise ConfigError(f"'{target}' does not exist: {where} has no '{names[0]}'.{did_you_mean(names[0], known)}")


def _star_names(module: Module, star: ast.ImportFrom) -> set[str]:
    try:
        below = _package(module, star) if star.level else _locate(star.module or "")[0]
    except ConfigError:
        return set()
    return set(below.names) if below is not None else set()


def _imported(module: Module, node: ast.ImportFrom, names: list[str], target: str) -> Definition | None:
    """The definition behind `from x import name`."""
    original = next((alias.name for alias in node.names if (alias.asname or alias.name) == names[0]), names[0])
    if node.level == 0:
        return find(".".join([node.module or "", original, *names[1:]]))
    below = _package(module, node)
    if below is None:
        return None
    path = _child(_inside(below.path), original)
    if path is None or path.is_dir():
        is_itself = below is module and below.names.get(original) is node  # `from . import _C`, which is no Python
        return None if is_itself else _attribute(below, [original, *names[1:]], target)
    return _attribute(parse(path), names[1:], target) if names[1:] else None


def _package(module: Module, node: ast.ImportFrom) -> Module | None:
    """The module that a relative `from ..x import` reads; None if its source is not found."""
    folder = module.path.parent
    for _ in range(node.level - 1):
        folder = folder.parent
    path = folder / "__init__.py"
    for part in node.module.split(".") if node.module else []:
        below = _child([path.parent], part)
        if below is None or below.is_dir():
            return None
        path = below
    return parse(path) if path.is_file() else None
