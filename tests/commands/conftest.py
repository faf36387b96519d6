"""Commands that must be refused: run, and everything that a user could see of it is checked."""

import contextlib
import io
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from dlrun.cli import main


@dataclass(frozen=True)
class Answer:
    """What a command did: exit code, output, and the files that are new, gone or changed."""

    words: Sequence[str]
    code: int
    out: str
    err: str
    changes: Sequence[str] = ()

    def must_refuse(self, *needles: str, code: int = 2, lines: int = 1) -> None:
        """Refused in so many short sentences that hold all `needles`, with nothing written and nothing else printed."""
        assert self.code == code, self
        assert self.out == "", self
        assert not self.changes, self
        said = self.err.splitlines()
        assert len(said) == lines, self.err
        assert all(line.startswith("dlrun: ") and len(line) < 700 for line in said), self.err
        for clutter in ("Traceback", "full_key", "object_type", "hydra.cc", "This is a bug"):
            assert clutter not in self.err, self.err
        for needle in needles:
            assert needle in self.err, f"{needle!r} not in {self.err!r}"


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every file and folder below `folder`, with what the files hold."""
    found = sorted(path for path in folder.rglob("*") if "__pycache__" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in found}


def call(words: Sequence[str], folder: Path) -> Answer:
    """Run `dlrun WORDS` in this process, in `folder`."""
    before, here, path = contents(folder), Path.cwd(), list(sys.path)
    out, err = io.StringIO(), io.StringIO()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(list(words))
    finally:
        os.chdir(here)
        sys.path[:] = path
    after = contents(folder)
    changes = [name for name in {*before, *after} if before.get(name, 0) != after.get(name, 0)]
    return Answer(words, code, out.getvalue(), err.getvalue(), sorted(changes))


@pytest.fixture
def dlrun(tmp_path: Path) -> Callable[..., Answer]:
    """Runs a command in this process, in an empty folder."""
    return lambda *words: call(words, tmp_path)
