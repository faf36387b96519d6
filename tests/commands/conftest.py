"""Commands that must be refused: run, and everything that a user could see of it is checked.

`DLRUN_BAD_INPUT=docs/bad_input.md pytest tests/commands -n 0` writes the page of all of them.
"""

import ast
import contextlib
import io
import os
import re
import shlex
import sys
from collections import defaultdict
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
        REFUSED[current_file()][shlex.join(self.words)] = self


REFUSED: dict[str, dict[str, Answer]] = defaultdict(dict)  # by test file, in the order in which they were run
PAGE = """# Bad input: what was typed, what was printed

{count} commands, as run by the tests; written by `DLRUN_BAD_INPUT=docs/bad_input.md pytest tests/commands -n 0`.
The exit code is 2 unless said otherwise. Nothing is printed on stdout and the working folder is unchanged in every one
of them (asserted).
"""


def current_file() -> str:
    """The test file that is running."""
    return os.environ["PYTEST_CURRENT_TEST"].partition("::")[0]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the page, if it is asked for."""
    target = os.environ.get("DLRUN_BAD_INPUT")
    if target is None:
        return
    lines = [PAGE.format(count=sum(map(len, REFUSED.values())))]
    for file, answers in REFUSED.items():
        title = ast.get_docstring(ast.parse((session.config.rootpath / file).read_text())) or file
        lines.append(f"## {title.splitlines()[0].rstrip('.')}\n")
        for words, answer in answers.items():
            code = "" if answer.code == 2 else f"    (exit code {answer.code})\n"
            said = "".join(f"    {line}\n" for line in answer.err.splitlines())
            lines.append(
                re.sub(
                    r"/[^ '=:]*/(pytest-[^ '/]+/[^ '/:=]+|tmp[a-z0-9_]{8})", "/…", f"    $ dlrun {words}\n{said}{code}"
                )
            )
    Path(target).write_text("\n".join(lines))


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
