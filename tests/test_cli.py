"""The command line from outside: what is printed, where, and with which exit code."""

import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

import dlrun
from dlrun import cli
from dlrun.commands import COMMANDS
from dlrun.errors import CheckpointError, ConfigError

ROOT = Path(dlrun.__file__).parent.parent


def call(*words: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m dlrun WORDS` as a user would."""
    clean = {key: value for key, value in os.environ.items() if key not in {"DLRUN_DEBUG", "HYDRA_FULL_ERROR"}}
    return subprocess.run(
        [sys.executable, "-m", "dlrun", *words],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**clean, "PYTHONPATH": str(ROOT), **environment},
        check=False,
        timeout=60,
    )


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch):
    """Replaces `dlrun list` by a function."""

    def replace(run) -> None:
        module = types.SimpleNamespace(run=run, HELP="help of list")
        monkeypatch.setattr(cli.importlib, "import_module", lambda name: module)

    monkeypatch.delenv("DLRUN_DEBUG", raising=False)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    return replace


def raises(error: BaseException):
    def run(arguments: list[str]) -> int:
        raise error

    return run


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_help_names_every_command_after_examples(words, capsys):
    assert cli.main(words) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text and line in text for name, line in COMMANDS.items())
    assert text.index("dlrun train data=mnist") < text.index("Commands:")


def test_version_is_printed(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"dlrun {dlrun.__version__}\n"


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        ("trian", "unknown command 'trian': must be one of train, tune, resume, evaluate"),
        ("trian", "Did you mean 'train'?"),
        ("lits", "Did you mean 'list'?"),
        ("--multirun", "the command comes first, as in `dlrun train --multirun`"),
        ("model=cnn", "write: dlrun train model=cnn"),
    ],
)
def test_a_wrong_command_is_one_sentence(word, answer, capsys):
    assert cli.main([word]) == 2
    out, err = capsys.readouterr()
    assert answer in err
    assert (out, err.count("\n")) == ("", 1)


def test_from_outside_a_wrong_command_exits_2_without_a_traceback():
    done = call("trian")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("dlrun: unknown command 'trian'")
    assert "Traceback" not in done.stderr


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from dlrun.cli import main; main(['--help']); main(['list']); main(['completion', 'bash'])\n"
        "assert main(['completion', '--words', 'dlrun train trainer.precision=']) == 0\n"
        "sys.exit(str({'torch', 'hydra', 'omegaconf', 'rich', 'matplotlib', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.stderr.strip() == "set()"


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_of_a_command_does_not_run_it(flag, command, capsys):
    command(raises(AssertionError("ran")))
    assert cli.main(["list", "model", flag]) == 0
    assert capsys.readouterr().out == "help of list\n"


def test_help_may_be_a_function(command, capsys, monkeypatch):
    module = types.SimpleNamespace(HELP=lambda: "made now", run=raises(AssertionError("ran")))
    monkeypatch.setattr(cli.importlib, "import_module", lambda name: module)
    assert cli.main(["train", "--help"]) == 0
    assert capsys.readouterr().out == "made now\n"


def test_arguments_and_exit_code_pass_through(command):
    seen = []
    command(lambda arguments: seen.append(arguments) or 5)
    assert cli.main(["list", "a", "b=c"]) == 5
    assert seen == [["a", "b=c"]]


@pytest.mark.parametrize(("error", "code"), [(ConfigError("no\nand no"), 2), (CheckpointError("no\nand no"), 1)])
def test_our_errors_are_sentences_with_their_exit_code(error, code, command, capsys):
    command(raises(error))
    assert cli.main(["list"]) == code
    assert capsys.readouterr().err == "dlrun: no\ndlrun: and no\n"


def test_other_errors_are_called_what_they_are(command, capsys):
    command(raises(ZeroDivisionError("by\n  zero")))
    assert cli.main(["list"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("dlrun: ZeroDivisionError: by zero\n")
    assert "DLRUN_DEBUG=1 shows the traceback" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("name", ["DLRUN_DEBUG", "HYDRA_FULL_ERROR"])
def test_a_traceback_is_shown_on_request(name, command, capsys, monkeypatch):
    command(raises(ConfigError("no")))
    monkeypatch.setenv(name, "1")
    assert cli.main(["list"]) == 2
    err = capsys.readouterr().err
    assert "Traceback (most recent call last)" in err
    assert err.endswith("dlrun: no\n")


def test_an_interrupt_exits_130(command, capsys):
    command(raises(KeyboardInterrupt()))
    assert cli.main(["list"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_a_reader_that_leaves_is_no_error():
    process = subprocess.Popen(
        [sys.executable, "-m", "dlrun", "list"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    process.stdout.close()  # before anything can be written
    assert process.wait(60) == 141
    assert process.stderr.read() == b""
    process.stderr.close()


def test_without_a_stdout_there_is_nothing_to_complain_of():
    words = f"'{sys.executable}' -m dlrun list >&-"
    done = subprocess.run(["sh", "-c", words], stderr=subprocess.PIPE, cwd=ROOT, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_current_folder_that_has_been_deleted_is_named_and_another_missing_file_is_not(tmp_path, monkeypatch, capsys):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    for words in (["plan"], ["resume", "last"], ["profile"]):
        assert cli.main(words) == 2
        assert capsys.readouterr().err.startswith("dlrun: the current folder has been deleted or moved away; cd to one")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "_dispatch", raises(FileNotFoundError("there is no x")))
    assert cli.main(["plan"]) == 1
    assert capsys.readouterr().err.startswith("dlrun: FileNotFoundError: there is no x\n")


def test_another_broken_pipe_is_reported(command, capsys):
    command(raises(BrokenPipeError("a worker died")))
    assert cli.main(["list"]) == 1
    assert "BrokenPipeError: a worker died" in capsys.readouterr().err


def test_a_terminal_without_greek_shows_a_question_mark(tmp_path):
    (tmp_path / "loss").mkdir()
    (tmp_path / "loss" / "mine.yaml").write_text("# The loss of ε.\n_target_: a.b\n", encoding="utf-8")
    done = call("list", "--config-dir", str(tmp_path), "loss", "mine", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert "The loss of ?." in done.stdout


@pytest.mark.parametrize("name", ["list", "doctor", "completion"])
def test_every_command_has_examples_first(name):
    done = call(name, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"dlrun {name}")
