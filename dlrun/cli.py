"""The command line: `dlrun COMMAND …`. Finds the command, and turns every error into a sentence and an exit code.

Nothing heavy is imported here: a command loads what it needs when it is called, so help and typing errors are instant.
"""

import importlib
import io
import os
import sys

from dlrun.commands import COMMANDS
from dlrun.errors import DlrunError, UsageError, did_you_mean
from dlrun.version import __version__

HELP = f"""dlrun: run deep-learning experiments; change one thing, keep the rest, get the same number again.

Try:
  dlrun train                                     handwritten digits, offline, in seconds
  dlrun train data=mnist model=cnn optimizer.lr=0.01
  dlrun train -m optimizer=sgd,adamw seed=0,1,2   six runs
  dlrun plan model=cnn                            look before training
  dlrun resume last                               continue the latest run
  dlrun list model                                which models there are
  dlrun list model cnn                            what can be set in one

Commands:
{chr(10).join(f"  {name:<12}{line}" for name, line in COMMANDS.items())}

More about one: dlrun COMMAND --help. Version: dlrun --version.
A RUN is named by its folder, its id or the beginning of it, or `last`. $DLRUN_DATA is the folder with published data
sets (else data/); with DLRUN_DEBUG=1 a message comes with its traceback."""

INTERRUPTED = 130  # what a shell reports for a program ended by SIGINT
BROKEN_PIPE = 141  # and by SIGPIPE
GONE = "the current folder has been deleted or moved away; cd to one that is there (`cd .` if it has been made again)."


def main(argv: list[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the words after `dlrun`; None takes them from the process.

    Returns: the exit code: 0 done, 1 failed, 2 asked wrongly, 130 interrupted.
    """
    words = sys.argv[1:] if argv is None else argv
    if sys.platform == "win32":
        print("dlrun: it runs on Linux and macOS; on Windows, use WSL.", file=sys.stderr)
        return UsageError.exit_code
    # None where it has been closed (`>&-`) or there is no console; no file that a run opens may come in its place.
    sys.stdout, sys.stderr = sys.stdout or _nowhere(), sys.stderr or _nowhere()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without Greek letters shows ?, not a traceback
    try:
        code = _dispatch(words)
        sys.stdout.flush()  # here, where a reader that has gone away can still be handled
        return code
    except BrokenPipeError as error:
        return BROKEN_PIPE if _reader_is_gone() else _report(error)
    except FileNotFoundError as error:
        return _report(error if _folder_is_there() else UsageError(GONE))
    except KeyboardInterrupt:
        print("dlrun: interrupted.", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        return _report(error)


def _folder_is_there() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def _nowhere() -> io.TextIOWrapper:
    return open(os.devnull, "w", encoding="utf-8")


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in {"-h", "--help"}:
        print(HELP)
        return 0
    if words[0] == "--version":
        print(f"dlrun {__version__}")
        return 0
    name, *arguments = words
    if name not in COMMANDS:
        raise UsageError(_unknown(name))
    module = importlib.import_module(f"dlrun.commands.{name}")
    if "-h" in arguments or "--help" in arguments:
        # A command whose help lists what is in conf/ gives a function, called only when somebody asks.
        print((module.HELP() if callable(module.HELP) else module.HELP).rstrip())
        return 0
    code: int = module.run(arguments)
    return code


def _unknown(word: str) -> str:
    if word.startswith("-"):
        return f"unknown option '{word}': the command comes first, as in `dlrun train {word}`."
    if "=" in word:
        return f"'{word}' is a setting, not a command; write: dlrun train {word}."
    return f"unknown command '{word}': must be one of {', '.join(COMMANDS)}.{did_you_mean(word, COMMANDS)}"


def _reader_is_gone() -> bool:
    """Whether it is stdout that cannot be written, as in `dlrun list | head -1`; it is silenced then."""
    try:
        print(flush=True)  # a blank line asks; what failed before has left the buffer
    except BrokenPipeError:
        # The interpreter flushes once more at its end; give it somewhere to write.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def _report(error: Exception) -> int:
    """Tell the user what went wrong; the traceback only on request."""
    if "1" in (os.environ.get("DLRUN_DEBUG"), os.environ.get("HYDRA_FULL_ERROR")):
        import traceback

        traceback.print_exception(error)
    if isinstance(error, DlrunError):
        for line in str(error).splitlines():
            print(f"dlrun: {line}", file=sys.stderr)
        return error.exit_code
    print(
        f"dlrun: {type(error).__name__}: {' '.join(str(error).split())}\n"
        "This is a bug, or an error in a part of your own; DLRUN_DEBUG=1 shows the traceback.",
        file=sys.stderr,
    )
    return 1
