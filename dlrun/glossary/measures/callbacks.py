"""When callbacks are called, counted by one of our own; and that early stopping is one."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections import Counter
from typing import Any

from dlrun.engine import loop
from dlrun.engine.callbacks import Callback, StopEarly
from dlrun.engine.training import Training
from dlrun.glossary.figures import label, panels
from dlrun.glossary.measure import Arms, Measured

CALLS: list[tuple[str, int]] = []  # hook and optimizer step, of the latest run


class Noting(Callback):
    """Notes every call."""

    def on_fit_start(self, training: Training) -> None:
        CALLS.clear()
        CALLS.append(("on_fit_start", training.step))

    def on_log(self, training: Training, record: dict[str, Any]) -> None:
        CALLS.append(("on_log", training.step))

    def on_validate(self, training: Training, metrics: dict[str, float]) -> None:
        CALLS.append(("on_validate", training.step))

    def on_step_end(self, training: Training) -> None:
        CALLS.append(("on_step_end", training.step))

    def on_fit_end(self, training: Training) -> None:
        CALLS.append(("on_fit_end", training.step))


EXAMPLE = """
for epoch in epochs:
    if early_stopping(val_loss):
        break
"""  # the source's, lines 56 and 57, in the loop that its `break` needs
NAMES = ("early_stopping", "StopEarly")
HOOKS = ("on_fit_start", "on_step_end", "on_log", "on_validate", "on_fit_end")


def calls_by_name(source: str, names: tuple[str, ...] = NAMES) -> int:
    """How often a piece of Python calls one of these functions or classes."""
    calls = [node.func for node in ast.walk(ast.parse(textwrap.dedent(source))) if isinstance(node, ast.Call)]
    return sum(getattr(called, "id", getattr(called, "attr", "")) in names for called in calls)


def measure(runs: Arms) -> Measured:
    """How often each hook is called, over how often it should be; and how a run with early stopping ended."""
    noted, stopped = runs["noted"][0], runs["stopped"][0]
    counts = Counter(name for name, _ in CALLS)
    steps, epochs = noted.summary["steps"], noted.summary["epochs"]
    figure, (axes,) = panels("Hooks of a callback in a training of 4 epochs")
    for position, name in enumerate(HOOKS):
        at = [step for hook, step in CALLS if hook == name]
        axes.plot(at, [position] * len(at), "|", markersize=14, color="#0072B2")
    axes.set_yticks(range(len(HOOKS)), [f"{name}\n{counts[name]} x" for name in HOOKS])
    label(axes, "optimizer step", "", legend=False)
    return Measured(
        {
            "starts": float(counts["on_fit_start"]),
            "ends": float(counts["on_fit_end"]),
            "steps_ratio": counts["on_step_end"] / steps,
            "validations_ratio": counts["on_validate"] / epochs,
            "start_hooks": float(sum(name.endswith("_start") for name in vars(Callback)) - 1),  # on_fit_start
            "example_calls": float(calls_by_name(EXAMPLE)),
            "loop_calls": float(calls_by_name(inspect.getsource(loop))),
            "is_callback": float(issubclass(StopEarly, Callback)),
            "stopped_early": float(stopped.status == "early_stopped"),
            "stopped_epochs": float(stopped.summary["epochs"]),
        },
        figure,
    )
