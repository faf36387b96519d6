"""The live display of a run on a terminal: a table of validations, bars for epoch and step, and how it goes."""

from collections.abc import Sequence

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live as RichLive
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dlrun.runs.console import Progress, clock

ROWS = 12  # of the table; all of them are in the log
LINES_BESIDES = 10  # of the display: what is not a row, and room for the shell
COLOURS = {
    "completed": "green",
    "early_stopped": "green",
    "interrupted": "yellow",
    "pruned": "yellow",
    "diverged": "red",
    "failed": "red",
}


class Live:
    """Draws a run in place, below the lines that stay.

    Args:
        console: where to draw; None takes standard output.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        self._progress: Progress | None = None
        self._ended = False
        self._live: RichLive | None = None

    def say(self, text: str, style: str = "") -> None:
        # Left to the terminal to wrap, so that a long path or command can be copied in one piece.
        self._console.print(Text(text, style=style), soft_wrap=True)

    def draw(self, progress: Progress) -> None:
        self._progress = progress
        if self._live is None:
            # No thread of its own, see dlrun/runs/console.py.
            self._live = RichLive(get_renderable=self.render, console=self._console, auto_refresh=False)
            self._live.start()
        self._live.refresh()

    def progressed(self, line: str) -> None:
        """The bars say it."""

    def evaluated(self, line: str) -> None:
        """The row is in the table that `draw` draws."""

    def finish(self, title: str, rows: Sequence[tuple[str, str]], lines: Sequence[str], status: str) -> None:
        self.close()
        table = Table.grid(padding=(0, 2))
        for label, text in rows:
            table.add_row(Text(label, style="dim"), Text(text))
        colour = COLOURS.get(status, "white")
        content: RenderableType = table if rows else Text("")
        self._console.print(Panel(content, title=title, title_align="left", border_style=colour, expand=False))
        for line in lines:
            self.say(line)

    def close(self) -> None:
        """Leave the table and take the bars away."""
        if self._live is not None:
            self._ended = True
            live, self._live = self._live, None
            live.stop()

    def render(self) -> RenderableType:
        """What stands on the terminal now."""
        if self._progress is None:
            return Text("")
        parts: list[RenderableType] = [Text("")]
        if self._progress.rows:
            parts += [_table(self._progress, self._console.height), Text("")]
        if not self._ended:
            parts += [_bars(self._progress), Text(self._progress.status(), no_wrap=True, overflow="ellipsis")]
        return Group(*parts)


def _table(progress: Progress, height: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), show_edge=False)
    for name in progress.columns:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", width=1)
    for cells, is_best in progress.rows[-max(min(ROWS, height - LINES_BESIDES), 1) :]:
        star = Text("★", style="bold yellow") if is_best else Text("")
        table.add_row(*(cells[name] for name in progress.columns), star)
    return table


def _bars(progress: Progress) -> Table:
    """How far the run and the present epoch have come."""
    left = progress.seconds_left
    eta = f"{clock(left)} left" if left is not None else ""
    grid = Table.grid(padding=(0, 1), expand=True)
    for ratio in (None, None, 1, None):
        grid.add_column(no_wrap=True, ratio=ratio)
    done = f"{progress.epoch}/{progress.epochs}"
    grid.add_row("epoch", done, ProgressBar(progress.total_steps, progress.step), f"{clock(progress.seconds)}, {eta}")
    step = f"{progress.step_in_epoch}/{progress.steps_in_epoch}"
    grid.add_row("step", step, ProgressBar(progress.steps_in_epoch, progress.step_in_epoch), "")
    return grid
