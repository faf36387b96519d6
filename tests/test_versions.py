"""What pyproject.toml allows is what is tested: the newest of constraints.txt, the oldest of .ci/lowest.txt."""

import re
import tomllib
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def allowed() -> dict[str, str]:
    """Every package of [project] and its extras, with the oldest version allowed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    words = chain(project["dependencies"], *project["optional-dependencies"].values())
    found = [re.match(r"([\w-]+)>=([\d.]+)", word) for word in words]
    return {match[1]: match[2] for match in found if match}


def pinned(file: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w-]+)==([\d.]+?)(?:\.\*)?$", (ROOT / file).read_text(), re.MULTILINE))


def parts(version: str) -> tuple[int, ...]:
    numbers = [int(number) for number in version.split(".")]
    while numbers[-1:] == [0]:
        numbers.pop()
    return tuple(numbers)


@pytest.mark.parametrize("name", sorted(pinned(".ci/lowest.txt")))
def test_the_oldest_tested_is_the_oldest_allowed(name: str):
    lowest, tested = parts(allowed()[name]), parts(pinned(".ci/lowest.txt")[name])
    assert tested[: len(lowest)] == lowest


@pytest.mark.parametrize("name", sorted(allowed()))
def test_every_package_is_pinned_at_a_version_that_is_allowed(name: str):
    assert parts(pinned("constraints.txt")[name]) >= parts(allowed()[name])


def test_all_that_dlrun_needs_is_tested_at_its_oldest():
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {re.match(r"[\w-]+", word)[0] for word in needed} <= pinned(".ci/lowest.txt").keys()
