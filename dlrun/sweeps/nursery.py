"""A process that has loaded PyTorch and forks workers, each in a hundredth of the time that loading takes.

It computes nothing and touches no GPU, so its children begin as a new process would. It speaks by a socket: for every
connection sent to it, a worker is forked that serves the other end; for every worker that ends, it says its process id
and how. When the socket closes, because whoever started it has ended, however that came, it ends, and Linux ends its
children with it: nothing trains on that nobody waits for.
"""

from __future__ import annotations

import atexit
import ctypes
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path

from dlrun.errors import DlrunError

ROOT = Path(__file__).parents[2]
PROGRAM = "import sys; sys.path.insert(0, sys.argv[1]); from dlrun.sweeps.nursery import serve; serve(int(sys.argv[2]))"
PR_SET_PDEATHSIG = 1
PIECE_BYTES = 65536
LENGTH = struct.Struct("!Q")  # of a request, before it
LOOK_SECONDS = 0.1

GONE = "the process that loads PyTorch for the workers has ended; what it said is above. The same words again go on."

_nursery: Nursery | None = None


def nursery() -> Nursery:
    """The nursery of this process, begun when it is first asked for, or when the one before has ended."""
    global _nursery
    if _nursery is None or _nursery.has_ended():
        _nursery = Nursery()
        atexit.register(_nursery.close)
    return _nursery


class NurseryError(DlrunError):
    """The process that forks workers has ended."""

    exit_code = 1


class Nursery:
    """The process, from outside."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        self._ended: list[tuple[int, int]] = []
        self._orphans = 0  # workers asked for that nobody waits for any more
        self._is_ready = False  # whether it has loaded PyTorch
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", PROGRAM, str(ROOT), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C in the terminal is for whoever runs the workers to answer
            )

    def fileno(self) -> int:
        """To be waited for: readable when a worker has ended."""
        return self._socket.fileno()

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def fork(
        self, environment: Mapping[str, str], threads: int, given_up: Callable[[], bool] = lambda: False
    ) -> tuple[int, Connection] | None:
        """A new worker, in this process's folder. Returns: its process id, and the connection to it.

        Args:
            environment: variables to set in it beside those of this process.
            threads: of the CPU, that it computes with unless its job says otherwise.
            given_up: asked while PyTorch loads; if it says so, None is returned.

        Raises: NurseryError if the nursery is gone.
        """
        mine, theirs = socket.socketpair()
        request = json.dumps(
            {
                "environment": {**os.environ, **environment},
                "threads": threads,
                "path": sys.path,
                "argv": sys.argv,
                "folder": str(Path.cwd()),
            }
        ).encode()
        with mine:  # when it closes, because nobody waits any more, the worker sees that, and ends
            try:
                with theirs:
                    socket.send_fds(self._socket, [LENGTH.pack(len(request))], [theirs.fileno()])
                    self._socket.sendall(request)
            except OSError:
                raise NurseryError(GONE) from None
            while True:
                while not select.select([self._socket], [], [], LOOK_SECONDS)[0]:
                    if given_up():
                        self._orphans += 1
                        return None
                kind, pid, status = self._receive()
                if kind == "ended":
                    self._ended.append((pid, status))
                elif self._orphans:
                    self._orphans -= 1
                else:
                    self._is_ready = True
                    return pid, Connection(mine.detach())

    def ended(self) -> list[tuple[int, int]]:
        """The workers that have ended since the last call: process id, and exit code or minus the signal.

        Raises: NurseryError if the nursery is gone.
        """
        found, self._ended = self._ended, []
        while select.select([self._socket], [], [], 0)[0]:
            kind, pid, status = self._receive()
            if kind == "ended":
                found.append((pid, status))
            else:
                self._orphans -= 1
        return found

    def close(self) -> None:
        """End it and all its workers."""
        atexit.unregister(self.close)
        self._socket.close()
        if not self._is_ready:  # it has no children yet, and would see that nobody is there when PyTorch is loaded
            self._process.kill()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _receive(self) -> tuple[str, int, int]:
        message = b""
        while not message.endswith(b"\n"):  # a byte at a time, so that what is left can be waited for
            try:
                piece = self._socket.recv(1)
            except ConnectionError:
                piece = b""
            if not piece:
                raise NurseryError(GONE)
            message += piece
        kind, pid, status = json.loads(message)
        return kind, pid, status


def serve(descriptor: int) -> None:
    """What the process does. Never returns."""
    for number in (signal.SIGINT, signal.SIGTERM):  # whoever asked decides what they are to mean
        signal.signal(number, signal.SIG_IGN)
    control = socket.socket(fileno=descriptor)
    wake, woken = socket.socketpair()
    for end in (wake, woken):
        end.setblocking(False)
    signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    from dlrun.sweeps import worker  # with it PyTorch

    parent = os.getpid()
    while True:
        ready, _, _ = select.select([control, wake], [], [])
        if wake in ready:
            wake.recv(PIECE_BYTES)
            _tell_of_the_dead(control)
        if control in ready:
            try:
                head, descriptors, _, _ = socket.recv_fds(control, LENGTH.size, 1)
                request = _exactly(control, LENGTH.unpack(head)[0]) if head else b""
            except ConnectionError:  # as ever when whoever asked ends with something unread
                request, descriptors = b"", []
            if not request:
                os._exit(0)  # and on Linux the children with it; elsewhere they notice when they next report
            settings = json.loads(request)
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                for number in (signal.SIGCHLD, signal.SIGTERM):
                    signal.signal(number, signal.SIG_DFL)
                for inherited in (control, wake, woken):
                    inherited.close()
                _die_with(parent)
                os.environ.clear()
                os.environ.update(settings["environment"])
                os.chdir(settings["folder"])
                sys.path += [path for path in settings["path"] if path not in sys.path]
                sys.argv[:] = settings["argv"]  # for provenance.json
                worker.work(Connection(descriptors[0]), settings["threads"])
            os.close(descriptors[0])
            _tell(control, "born", pid, 0)


def _exactly(control: socket.socket, count: int) -> bytes:
    """So many bytes, as another request may be behind them; none if nobody is there any more."""
    received = b""
    while len(received) < count:
        piece = control.recv(count - len(received))
        if not piece:
            return b""
        received += piece
    return received


def _tell_of_the_dead(control: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _tell(control, "ended", pid, os.waitstatus_to_exitcode(status))


def _tell(control: socket.socket, *message: str | int) -> None:
    try:
        control.sendall(json.dumps(message).encode() + b"\n")
    except OSError:
        os._exit(0)  # nobody is there any more


def _die_with(parent: int) -> None:
    """Ask Linux to kill this process when the one that forked it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended meanwhile
        os._exit(1)
