"""Make an environment that holds what a wheel says it needs, what that needs in turn, and nothing else.

    .venv/bin/python .ci/clean_environment.py dist/dlrun-0.1.0-py3-none-any.whl FOLDER

The files are links to those of the environment this is run in: a second, where pip would unpack 2 GB once more. The
wheel itself is left to pip, as is the question whether all is there (`pip check`).
"""

import sys
import sysconfig
import venv
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def needs(package: Distribution, extras: frozenset[str]) -> Iterator[Requirement]:
    """What a package says it needs here, with these extras of its own."""
    for requirement in map(Requirement, package.requires or ()):
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras or {""}):
            yield requirement


def closure(package: Distribution) -> dict[str, Distribution]:
    """All that a package needs, and what that needs, by name. Raises: PackageNotFoundError for what is not here."""
    found: dict[str, Distribution] = {}
    known: set[tuple[str, frozenset[str]]] = set()
    waiting = list(needs(package, frozenset()))
    while waiting:
        requirement = waiting.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (name, extras) not in known:
            known.add((name, extras))
            found[name] = distribution(name)
            waiting += needs(found[name], extras)
    return found


def link(package: Distribution, site: Path) -> None:
    """Link a package's files into `site`; what it has put elsewhere, such as scripts, is left out."""
    for file in package.files or ():
        source, target = Path(str(file.locate())), site / file
        if ".." not in file.parts and source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(source.resolve())


def main() -> None:
    wheel, folder = map(Path, sys.argv[1:])
    (package,) = distributions(path=[str(wheel)])
    venv.create(folder, symlinks=True)
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)}))
    for needed in closure(package).values():
        link(needed, site)


if __name__ == "__main__":
    main()
