import subprocess
import sys

import pytest

from dlrun.errors import ConfigError
from dlrun.optim.durations import is_duration, resolve, resolve_arguments

RUN = {"steps_per_epoch": 40, "total_steps": 400}


@pytest.mark.parametrize(
    ("value", "steps", "epochs"),
    [
        (0, 0, 0),
        (7, 7, 7),
        (0.0, 0, 0),
        (0.05, 20, 1),  # 20 steps are half an epoch, at least one
        ("5%", 20, 1),
        ("100%", 400, 10),
        ("12.5 %", 50, 1),
        ("0.1%", 1, 1),
        ("0%", 0, 0),
        ("2ep", 80, 2),
        ("2 epochs", 80, 2),
        ("1 epoch", 40, 1),
        ("1.5ep", 60, 2),
        (".5ep", 20, 1),
        ("300 steps", 300, 8),
        ("1 step", 1, 1),
    ],
)
def test_lengths_in_both_units(value, steps, epochs):
    assert is_duration(value)
    assert resolve(value, unit="step", **RUN) == steps
    assert resolve(value, unit="epoch", **RUN) == epochs


@pytest.mark.parametrize(
    "value", [-1, 1.0, 2.5, -0.1, float("nan"), "5", "five", "5 %%", "-5%", "", True, None, [1], "2 eps"]
)
def test_anything_else_is_refused(value):
    assert not is_duration(value)
    with pytest.raises(ConfigError, match=r"^scheduler\.warmup must be a length of training, got .*'2ep'.*'5%'"):
        resolve(value, unit="step", key="scheduler.warmup", **RUN)


def test_a_positive_length_of_nothing_is_one():
    assert resolve("100%", unit="step", steps_per_epoch=40, total_steps=0) == 1


def test_arguments_keep_all_but_texts_that_are_lengths():
    arguments = {"gamma": 0.1, "T_max": "100%", "milestones": ["50%", 300, "3ep"], "mode": "min", "n": 10, "x": None}
    expected = {"gamma": 0.1, "T_max": 400, "milestones": [200, 300, 120], "mode": "min", "n": 10, "x": None}
    assert resolve_arguments(arguments, unit="step", **RUN) == expected


def test_durations_and_rules_do_not_import_torch():
    code = "import sys, dlrun.optim.durations, dlrun.optim.rules; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
