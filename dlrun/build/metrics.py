"""The metrics of a task, the scores that are asked for, and which of them is monitored."""

from __future__ import annotations

from collections.abc import Sequence

from dlrun import metrics as task_metrics
from dlrun.contracts import DataSpec, Metric
from dlrun.errors import ConfigError


def build_metrics(spec: DataSpec, scores: Sequence[str] = (), *, training: bool = False) -> list[Metric]:
    """Fresh metrics of the task, and the `scores` that `trainer.metrics` names.

    Args:
        training: only those that cost next to nothing in every step.

    Raises: ConfigError if the task has no such scores.
    """
    metrics = task_metrics.for_task(spec, training=training)
    return [*metrics, build_scores(spec, scores)] if scores else metrics


def build_all_metrics(spec: DataSpec) -> list[Metric]:
    """Fresh metrics of the task and all scores that suit the data."""
    return build_metrics(spec, task_metrics.applicable(spec))


def answers_in(metrics: Sequence[Metric]) -> task_metrics.Answers | None:
    """What the scores among some metrics have collected; None where there are none."""
    return next((metric.answers() for metric in metrics if isinstance(metric, task_metrics.Scores)), None)


def build_scores(spec: DataSpec, names: Sequence[str]) -> task_metrics.Scores:
    """Scores of all examples of a split together.

    Raises: ConfigError if the data are no classification, or have too few classes for a score to tell anything.
    """
    suitable = task_metrics.applicable(spec)
    unsuitable = [name for name in names if name not in suitable]
    if unsuitable:
        has = f"those of {spec.num_outputs} classes" if suitable else "no such scores"
        raise ConfigError(
            f"trainer.metrics: {unsuitable[0]} is not for data={spec.name}, a {spec.task.value} task, which has {has}; "
            f"{'choose from ' + ', '.join(suitable) if suitable else 'leave trainer.metrics=[]'}."
        )
    return task_metrics.Scores(names)


def choose_monitor(spec: DataSpec, wanted: str | None, scores: Sequence[str] = ()) -> tuple[str, bool]:
    """The monitored metric and whether higher is better, among those of the task and the `scores` chosen.

    Raises: ConfigError if the task does not have that metric.
    """
    directions = {"loss": False}
    for metric in build_metrics(spec, scores):
        directions |= metric.higher_is_better
    known = {f"val/{name}": higher for name, higher in directions.items()}
    name = f"val/{task_metrics.MONITOR[spec.task]}" if wanted is None else wanted
    if name not in known:
        hint = " The training split is not monitored." if name.startswith("train/") else ""
        if name.removeprefix("val/") in task_metrics.applicable(spec):
            hint = f" To have that one: trainer.metrics=[{name.removeprefix('val/')}]."
        raise ConfigError(
            f"trainer.early_stopping.monitor must be one of {', '.join(known)} for a {spec.task.value} task, "
            f"got '{name}'.{hint}"
        )
    return name, known[name]
