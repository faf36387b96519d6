import copy
import subprocess
import sys

import pytest

from dlrun.stacked.plan import obstacle, parts, stacks

CONFIG = {
    "name": "a",
    "seed": 0,
    "data": {"batch_size": 128, "loader": "auto", "label_noise": 0.0},
    "model": {"_target_": "dlrun.models.mlp.mlp", "widths": [16]},
    "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1, "param_groups": {"until": {}}},
    "loss": {"class_weights": None},
    "trainer": {"accumulate": 1, "compile": False, "graph": "auto", "sam": None, "precision": "auto", "epochs": 3},
}


def changed(**values):
    """CONFIG with the values at these places, written `trainer__epochs`."""
    config = copy.deepcopy(CONFIG)
    for place, value in values.items():
        *parents, name = place.split("__")
        node = config
        for parent in parents:
            node = node[parent]
        node[name] = value
    return config


def test_runs_are_together_that_differ_in_numbers_alone():
    configs = [
        changed(seed=1),
        changed(trainer__epochs=4),
        changed(seed=2, optimizer__lr=0.3, data__label_noise=0.2, name="b"),
        changed(model__widths=[32]),
        changed(trainer__epochs=4, optimizer__momentum=0.9),
        changed(trainer__sam={"rho": 0.05}),
        changed(trainer__sam={"rho": 0.05}, seed=1),
    ]
    assert stacks(configs) == [[0, 2], [1, 4], [3], [5], [6]]


def test_planning_loads_no_torch():
    code = "import sys, dlrun.stacked.plan; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_stack_is_dealt_out_to_the_workers():
    assert parts([0, 2, 3, 5, 8], workers=2) == [[0, 3, 8], [2, 5]]
    assert parts([0, 1, 2], workers=4) == [[0, 1, 2]]
    assert [len(part) for part in parts(range(130), workers=1)] == [44, 43, 43]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("trainer__accumulate", 2),
        ("trainer__compile", True),
        ("trainer__graph", True),
        ("trainer__sam", {"rho": 0.1}),
        ("trainer__penalty", {"l1": 0.1}),
        ("trainer__freeze", {"*": "always"}),
        ("trainer__precision", "fp16"),
        ("data__batch_size", "auto"),
        ("data__loader", "streaming"),
        ("model__carry", True),
        ("optimizer___target_", "torch.optim.LBFGS"),
        ("optimizer__param_groups", {"until": {"0.bias": "1ep"}}),
    ],
)
def test_what_a_stack_does_not_do_is_said(place, value):
    assert not obstacle(CONFIG)
    reason = obstacle(changed(**{place: value}))
    key = place.replace("___", "._", 1).replace("__", ".", 1) if "___" in place else place.replace("__", ".")
    assert reason.endswith(".")
    assert "cannot be trained in a stack: " in reason
    assert key in reason or "lbfgs" in reason or "until" in reason


def test_callbacks_of_ones_own_are_left_alone():
    own, dlruns = ({"some": {"_target_": target}} for target in ("parts.Norms", "dlrun.engine.callbacks.Snapshots"))
    assert obstacle(CONFIG | {"callbacks": dlruns}) == ""
    assert "callbacks.some cannot be trained in a stack" in obstacle(CONFIG | {"callbacks": own})
