"""The curves of a run, drawn in a process beside the one that trains, which then never loads matplotlib.

To load it and to draw takes about as long as a first run trains. The process is started before torch is imported and
has loaded matplotlib by the time that there is something to draw. Without it (one CPU only, or started from Python
instead of the command line, or it died) the same picture is drawn here.
"""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PROGRAM = "import sys; sys.path.insert(0, sys.argv[1]); from dlrun.report.painter import paint; paint()"

_process: subprocess.Popen[str] | None = None


@contextmanager
def at_hand() -> Iterator[None]:
    """Have a process that draws meanwhile."""
    global _process
    if _process is None and sys.executable and _cpus() > 1:
        with suppress(OSError):  # no process to be had: drawn here
            _process = _start()
    try:
        yield
    finally:
        _stop()


def drawing(metrics: Path, path: Path, **what: Any) -> Callable[[], None]:
    """Begin to draw the curves of `metrics` (metrics.jsonl); `what` is as for `dlrun.report.curves.plot_curves`.

    Returns: a function that returns once the picture is written. It raises OSError if it cannot be.
    """
    request = {"metrics": str(metrics), "path": str(path), **what}
    asked = _process is not None and _ask(_process, request)

    def wait() -> None:
        answer = _answer(_process, str(path)) if asked and _process is not None else None
        if answer is None:
            _stop()
            _draw(request)
        elif answer["error"]:
            raise OSError(*answer["error"])

    return wait


def paint() -> None:
    """What the process does: draw as asked on standard input, one JSON object per line, until it ends."""
    importlib.import_module("dlrun.report.curves")  # now, not when there is something to draw

    for line in sys.stdin:
        request, failure = json.loads(line), None
        try:
            _draw(request)
        except OSError as error:
            failure = [error.errno, error.strerror, error.filename]
        print(json.dumps({"path": request["path"], "error": failure}), flush=True)


def _draw(request: dict[str, Any]) -> None:
    from dlrun.report.curves import plot_curves
    from dlrun.runs.metrics_log import read_metrics

    what = dict(request)
    plot_curves(read_metrics(Path(what.pop("metrics"))), Path(what.pop("path")), **what)


def _start() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-c", PROGRAM, str(ROOT)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,  # Ctrl-C in the terminal is for training to answer
    )


def _ask(process: subprocess.Popen[str], request: dict[str, Any]) -> bool:
    """Whether the process could be told what to draw."""
    try:
        assert process.stdin is not None
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
    except (OSError, ValueError):
        return False
    return True


def _answer(process: subprocess.Popen[str], path: str) -> dict[str, Any] | None:
    """What the process says of the picture `path`; None if it has died."""
    assert process.stdout is not None
    for line in process.stdout:
        with suppress(ValueError):  # said by something else that Python loads at its start, such as a sitecustomize
            answer = json.loads(line)
            if isinstance(answer, dict) and answer.get("path") == path:  # else of a run that failed and did not wait
                return answer
    return None


def _cpus() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _stop() -> None:
    global _process
    if _process is not None:
        process, _process = _process, None
        process.kill()  # it waits for work: nothing is lost
        with suppress(OSError):
            process.communicate()
