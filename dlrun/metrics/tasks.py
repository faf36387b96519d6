"""Which metrics a task has, and which of them decides."""

from __future__ import annotations

from typing import Literal

from dlrun.contracts import DataSpec, Metric, Task
from dlrun.metrics.classes import Accuracy, Labels
from dlrun.metrics.errors import Errors
from dlrun.metrics.tokens import LanguageModel, Translation

# What the best weights are chosen by. Exact matches would be the goal of many a translation, but they stay at 0 for
# long, or for ever where there are many ways to say a thing, and would end training before it has begun.
MONITOR: dict[Task, str] = {
    Task.CLASSIFICATION: "accuracy",
    Task.MULTILABEL: "f1",
    Task.REGRESSION: "rmse",
    Task.FORECASTING: "rmse",
    Task.LANGUAGE_MODELLING: "loss",
    Task.SEQUENCE_TO_SEQUENCE: "loss",
    Task.RECONSTRUCTION: "loss",
}


def for_task(spec: DataSpec, *, training: bool = False) -> list[Metric]:
    """The metrics of the task of `spec`, beside the loss, which the engine sums.

    Args:
        training: only those that cost next to nothing in every step.
    """
    relative = not training
    match spec.task:
        case Task.CLASSIFICATION:
            return [Accuracy()]
        case Task.MULTILABEL:
            return [Labels()]
        case Task.LANGUAGE_MODELLING:
            return [LanguageModel(_unit(spec))]
        case Task.SEQUENCE_TO_SEQUENCE:
            return [Translation()]
        case Task.REGRESSION:
            return [Errors(spec.target_std or (1.0,) * spec.num_outputs, spec.target_mean, relative=relative)]
        case Task.FORECASTING:
            return [Errors(spec.target_std or (1.0,), spec.target_mean, relative=relative)]
        case Task.RECONSTRUCTION:
            return [Errors((1.0,))]


def _unit(spec: DataSpec) -> Literal["character", "word", "token"]:
    if spec.vocabulary is None:
        return "token"
    return "character" if spec.vocabulary.level == "char" else "word"
