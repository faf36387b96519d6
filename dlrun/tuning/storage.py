"""Where a study keeps its trials: a file in its folder, a journal, or a database that several machines share."""

from __future__ import annotations

import re
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from dlrun.errors import DlrunError, MissingExtraError, UsageError

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage

SECONDS_FOR_A_LOCK = 10.0
BEAT = 30.0  # seconds between signs of life
DEAD_AFTER = 600.0  # seconds without one
# Attributes of a trial. Few, as each that is set is a write that waits for the disk.
BEGUN = "dlrun:begun"  # {"host", "folder", "run", "id"}: who runs it, and the folder and id of its run
OUTCOME = "dlrun:outcome"  # {"status", "epochs", "seconds", "loss", "run", "error"}
ALIVE = "dlrun:alive"  # when its machine last gave a sign of life


def require() -> None:
    """Raise MissingExtraError if Optuna, or what its samplers need, is not installed."""
    if find_spec("optuna") is None or find_spec("cmaes") is None:
        raise MissingExtraError("dlrun tune", "tune")


def where(storage: str | None, folder: Path) -> str:
    """The storage that a setting means, as Optuna writes it; a path stands for a file, a journal unless it ends in .db.

    Args:
        folder: of the study.
    """
    if storage is None:
        return f"sqlite:///{(folder / 'study.db').absolute()}"
    if storage == "journal":
        return str(folder.absolute() / "study.journal")
    if "://" in storage:
        return storage
    path = Path(storage).expanduser().absolute()
    return f"sqlite:///{path}" if storage.endswith(".db") else str(path)


@contextmanager
def said_simply(place: str, *, opening: bool = True) -> Iterator[None]:
    """Whatever a storage raises, as one sentence.

    Args:
        opening: whether nothing is done meanwhile but opening it, so that any error is its own.

    Raises: UsageError.
    """
    from sqlalchemy.exc import DatabaseError, OperationalError, SQLAlchemyError

    place = re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", place)
    try:
        yield
    except DlrunError:
        raise
    except ImportError:
        if not opening:
            raise
        raise UsageError(
            f"tune.storage={place} needs the driver of its database, which is not installed: psycopg2 for PostgreSQL, "
            "PyMySQL for MySQL."
        ) from None
    except OperationalError as error:
        text = " ".join(str(error.orig).split())
        if "locked" in text:
            raise UsageError(
                f"tune.storage={place} is locked by another program ({text}); end that, or tune elsewhere with "
                "tune.storage=FILE.db."
            ) from None
        raise UsageError(f"tune.storage={place} cannot be opened: {text}.") from None
    except DatabaseError as error:
        text = " ".join(str(error.orig).split())
        raise UsageError(f"tune.storage={place} is no database of Optuna's ({text}); name another file.") from None
    except RuntimeError as error:
        if opening and "version" in str(error):
            raise UsageError(
                f"tune.storage={place} is from another version of Optuna than the installed {_version()}: "
                f"`optuna storage upgrade --storage {place}` brings an older one up to date."
            ) from None
        raise
    except (SQLAlchemyError, ValueError, OSError) as error:
        if not opening and not isinstance(error, SQLAlchemyError):
            raise
        raise UsageError(f"tune.storage={place} cannot be opened: {' '.join(str(error).split())}.") from None


def _version() -> str:
    import optuna

    return str(optuna.__version__)


def open_storage(place: str) -> BaseStorage:
    """Open it, or begin it. Raises: UsageError for one that is locked, damaged or of another version."""
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    if "://" not in place:
        with said_simply(place):
            return JournalStorage(JournalFileBackend(place))
    arguments: dict[str, Any] = {}
    if place.startswith("sqlite:///"):
        _refuse_locked(place)
        arguments = {"connect_args": {"timeout": SECONDS_FOR_A_LOCK}}
    with said_simply(place):
        return RDBStorage(place, engine_kwargs=arguments)


@contextmanager
def closed_afterwards(storage: BaseStorage) -> Iterator[BaseStorage]:
    """Close the connections of a database once the block is left; Optuna leaves them to the garbage collector."""
    from optuna.storages import RDBStorage

    try:
        yield storage
    finally:
        if isinstance(storage, RDBStorage):
            storage.remove_session()
            storage.engine.dispose()


def _refuse_locked(place: str) -> None:
    """SQLite waits for a lock at every statement; asked once here, it is known at once."""
    path = Path(place.removeprefix("sqlite:///"))
    if not path.exists():
        return
    with said_simply(place):
        try:
            connection = sqlite3.connect(path, timeout=SECONDS_FOR_A_LOCK, isolation_level=None)
            try:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
            finally:
                connection.close()
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise UsageError(f"tune.storage={place} cannot be opened: {error}.") from None
            raise UsageError(
                f"tune.storage={place} is locked by another program; end that, or tune elsewhere with "
                "tune.storage=FILE.db."
            ) from None
        except sqlite3.DatabaseError as error:
            raise UsageError(f"tune.storage={place} is no database of Optuna's ({error}); name another file.") from None


def owner(folder: Path) -> dict[str, str]:
    """Who runs a trial: the study's folder on this machine."""
    return {"host": socket.gethostname(), "folder": str(folder.resolve())}


def begun(trial: Any) -> dict[str, Any]:
    """What was noted of a trial when it began."""
    return dict(trial.user_attrs.get(BEGUN) or {})


def outcome(trial: Any) -> dict[str, Any]:
    """What was noted of a trial when it ended."""
    return dict(trial.user_attrs.get(OUTCOME) or {})


def is_result(trial: Any) -> bool:
    """Whether a trial has come to values of its own; a diverged one may have been told the worst known."""
    return trial.state.name == "COMPLETE" and outcome(trial).get("status") != "diverged"


def is_ours(trial: Any, folder: Path, *, is_private: bool) -> bool:
    """Whether an unfinished trial was run from this study's folder on this machine.

    Args:
        is_private: whether the storage lies in the folder, so that nobody else can have begun the trial.
    """
    return is_private or owner(folder).items() <= begun(trial).items()


def is_dead(trial: Any, now: float) -> bool:
    """Whether another machine's trial has given no sign of life for long."""
    began = trial.datetime_start.timestamp() if trial.datetime_start is not None else 0.0
    return now - float(trial.user_attrs.get(ALIVE, began)) > DEAD_AFTER


class Heartbeat:
    """While entered, tells a shared storage now and then that the trials in `running` are alive."""

    def __init__(self, study: Study, running: dict[int, Any], *, needed: bool) -> None:
        self.study, self.running, self.needed = study, running, needed
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def _beat(self) -> None:
        while not self._stop.wait(BEAT):
            for trial in list(self.running.values()):
                try:
                    trial.trial.set_user_attr(ALIVE, time.time())
                except Exception:  # the trial may just have ended; the storage will be heard of in the main thread
                    continue

    def __enter__(self) -> Heartbeat:
        if self.needed:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
