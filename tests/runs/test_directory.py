"""The lock of a run, which keeps two from training it."""

import os
import signal
import warnings
from pathlib import Path

import pytest

from dlrun.errors import UsageError
from dlrun.runs.directory import RunDirectory


def test_a_run_is_trained_by_one_at_a_time(tmp_path: Path):
    with RunDirectory(tmp_path).locked(), pytest.raises(UsageError, match="is being trained by another process"):
        RunDirectory(tmp_path).locked().__enter__()
    with RunDirectory(tmp_path).locked():
        pass


def test_a_process_that_was_forked_meanwhile_does_not_hold_the_lock(tmp_path: Path):
    """Workers of a DataLoader live on for seconds when the process that trains is killed."""
    with RunDirectory(tmp_path).locked(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12's, of threads
        heard, said = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(said, b"!")  # what is to be done in a child at its birth is done
            signal.pause()
            os._exit(0)
        os.read(heard, 1)
    try:
        with RunDirectory(tmp_path).locked():
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        for end in (heard, said):
            os.close(end)
