"""The direction that names have is the one that the metrics themselves declare."""

import pytest

from dlrun import build
from dlrun.comparison.direction import higher_is_better
from dlrun.contracts import DataSpec, Kind, Task
from dlrun.metrics import SCORES, Scores


@pytest.mark.parametrize("task", list(Task))
def test_direction_of_every_metric(task: Task):
    spec = DataSpec("made", task, Kind.VECTOR, (4,), num_outputs=7)
    declared = {
        name: better for metric in build.build_metrics(spec) for name, better in metric.higher_is_better.items()
    }
    declared |= Scores(list(SCORES)).higher_is_better | {"loss": False}
    declared |= {"nll_scaled": False, "bits_per_character": False}
    assert {name: higher_is_better(f"test/{name}") for name in declared} == declared


def test_an_unknown_one_by_its_ending():
    assert higher_is_better("val/bleu")
    assert not higher_is_better("val/own_loss")
    assert not higher_is_better("seconds")
