"""What a search says: a line for each trial that has ended, and at the end a table."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dlrun.runs.console import clock, number
from dlrun.tuning.objectives import Objective
from dlrun.tuning.storage import is_result, outcome
from dlrun.tuning.trials import label
from dlrun.tuning.winner import rank

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

ROWS = 10
WIDTH = 160  # characters, where there is no terminal to ask
WORDS = {"early_stopped": "stopped early", "out_of_time": "out of time"}


class Teller:
    """Prints how a search goes.

    Args:
        total: trials in the budget, if it counts them.
    """

    def __init__(self, objectives: Sequence[Objective], total: int | None, console: Console | None = None) -> None:
        self.objectives, self.total = objectives, total
        self.console = console or Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
        self.best: FrozenTrial | None = None

    def say(self, text: str) -> None:
        self.console.print(Text(text), soft_wrap=True)

    def known(self, trials: Sequence[FrozenTrial]) -> None:
        """Take note of trials of earlier sittings."""
        for trial in trials:
            self._is_best(trial)

    def ended(self, trial: FrozenTrial) -> None:
        """A line for a trial: number, value, best so far, how it ended, what it tried."""
        is_best, known = self._is_best(trial), outcome(trial)
        of = f"/{self.total}" if self.total else ""
        parts = [f"trial {trial.number:>3}{of}", f"{self._values(trial):<24}"]
        if len(self.objectives) == 1:
            parts.append(f"best {number(self.best.values[0])} ({self.best.number})" if self.best else "best -")
        parts += [f"{how(trial):<18}", f"{clock(float(known.get('seconds', 0.0))):>7}", label(trial.params)]
        if known.get("error"):
            parts.append(str(known["error"]))
        self.console.print(
            Text("  ".join(parts) + ("  *" if is_best else ""), style="bold" if is_best else ""), soft_wrap=True
        )

    def finish(
        self, trials: Sequence[FrozenTrial], best: Sequence[FrozenTrial], test: Mapping[str, Any], lines: Sequence[str]
    ) -> None:
        """The table of the best trials, what the winner reaches on the test data, and where everything is."""
        counts: dict[str, int] = {}
        for trial in trials:
            name = kind(trial)
            counts[name] = counts.get(name, 0) + 1
        self.say("\n" + f"{len(trials)} trials: " + ", ".join(f"{count} {name}" for name, count in counts.items()))
        self.console.print(self._table(trials, best))
        for name, found in (test.get("metrics") or {}).items():
            spread = "" if found["std"] is None else f" ± {found['std']:.4f}"
            self.say(f"{name} {number(found['mean'])}{spread} ({len(found['values'])} seeds, trial {test['trial']})")
        for line in lines:
            self.say(line)

    def _table(self, trials: Sequence[FrozenTrial], best: Sequence[FrozenTrial]) -> Table:
        several = len(self.objectives) > 1
        complete = [t for t in trials if is_result(t)]
        shown = list(best) if several else sorted(complete, key=lambda t: rank(t, self.objectives[0]))[:ROWS]
        title = "Pareto front" if several else f"The best {len(shown)}"
        table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)
        keys = list(dict.fromkeys(key for trial in shown for key in trial.params))
        shorts = [key.rpartition(".")[2] for key in keys]
        heads = [key if shorts.count(short) > 1 else short for key, short in zip(keys, shorts, strict=True)]
        for name in ("trial", *(o.name for o in self.objectives), "epochs", *heads):
            table.add_column(name, justify="right", overflow="fold")
        for trial in shown:
            values = [
                number(value) if o.name != "parameters" else f"{value:,.0f}"
                for o, value in zip(self.objectives, trial.values, strict=True)
            ]
            params = [_short(trial.params[key]) if key in trial.params else "" for key in keys]
            epochs = outcome(trial).get("epochs")
            table.add_row(str(trial.number), *values, f"{epochs:g}" if epochs is not None else "", *params)
        return table

    def _values(self, trial: FrozenTrial) -> str:
        if not trial.values:
            return "-"
        return "  ".join(f"{o.name} {number(v)}" for o, v in zip(self.objectives, trial.values, strict=True))

    def _is_best(self, trial: FrozenTrial) -> bool:
        if not is_result(trial) or len(self.objectives) > 1:
            return False
        if self.best is None or rank(trial, self.objectives[0]) < rank(self.best, self.objectives[0]):
            self.best = trial
            return True
        return False


def how(trial: FrozenTrial) -> str:
    """How a trial ended: "completed", "pruned at 3", …"""
    known = outcome(trial)
    status, epoch = str(known.get("status", trial.state.name.lower())), known.get("epochs")
    at = f" at {epoch:g}" if status in ("pruned", "diverged", "out_of_time") and epoch is not None else ""
    return WORDS.get(status, status) + at


def kind(trial: FrozenTrial) -> str:
    """How a trial ended, without when."""
    name = how(trial).partition(" at ")[0]
    return "repeated" if name.startswith("same as") else name


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
