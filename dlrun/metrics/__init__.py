"""Metrics of each task: cheap ones, summed while training goes on, and scores over all examples of a split at once."""

from dlrun.metrics.answers import Answers
from dlrun.metrics.scores import SCORES, Scores, applicable
from dlrun.metrics.tasks import MONITOR, for_task

__all__ = ["MONITOR", "SCORES", "Answers", "Scores", "applicable", "for_task"]
