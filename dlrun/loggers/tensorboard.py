"""Records as TensorBoard event files, by the optional package tensorboard."""

import importlib.util
from pathlib import Path
from typing import Any

from dlrun.errors import MissingExtraError


class TensorBoard:
    """Writes every number of every record as a scalar at its step.

    Args:
        folder: of the run; the events go to its subfolder tensorboard/.
        start_step: where a resumed run goes on; events after it, written before the crash, are marked to be ignored.
        flush_seconds: how long events may wait in memory.

    Raises: MissingExtraError if tensorboard is not installed.
    """

    def __init__(self, folder: str, start_step: int = 0, flush_seconds: int = 30) -> None:
        self.require()
        from torch.utils.tensorboard import SummaryWriter

        purge = start_step + 1 if start_step else None
        self._writer = SummaryWriter(str(Path(folder) / "tensorboard"), purge_step=purge, flush_secs=flush_seconds)

    @staticmethod
    def require() -> None:
        """Called before a run directory is made. Raises: MissingExtraError if tensorboard is not installed."""
        if importlib.util.find_spec("tensorboard") is None:
            raise MissingExtraError("logger=tensorboard", "tensorboard")

    def log(self, record: dict[str, Any]) -> None:
        """Write the numbers of one record."""
        for name, value in record.items():
            if name not in ("step", "time") and isinstance(value, int | float):
                self._writer.add_scalar(name, value, record["step"])

    def close(self) -> None:
        self._writer.close()
