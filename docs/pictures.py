"""Draws the pictures in README.md from one run of `dlrun train`: python docs/pictures.py"""

import io
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console as Terminal

from dlrun.config.compose import compose
from dlrun.experiment import train
from dlrun.runs.console import Console, Progress
from dlrun.runs.live import Live

DOCS = Path(__file__).parent.resolve()


class Recorder(Live):
    """Draws only what stands on the terminal at the end."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__(terminal)
        self.terminal = terminal

    def draw(self, progress: Progress) -> None:
        self._progress = progress

    def finish(self, title: str, rows: Sequence[tuple[str, str]], lines: Sequence[str], status: str) -> None:
        self._ended = True
        self.terminal.print(self.render())
        super().finish(title, rows, lines, status)


def main() -> None:
    terminal = Terminal(record=True, force_terminal=True, width=118, height=40, file=io.StringIO(), highlight=False)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        run = train(compose([]), Console(view=Recorder(terminal)))
        shutil.copy(run.plots / "curves.png", DOCS / "curves.png")
        os.chdir(DOCS)
    terminal.save_svg(str(DOCS / "train.svg"), title="dlrun train")


if __name__ == "__main__":
    main()
