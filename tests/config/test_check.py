"""The check of a composed configuration, given as plain dictionaries."""

import copy
from typing import Any

import pytest

from dlrun.config.check import check, device_problem, known_keys, takes_any_key
from dlrun.config.compose import compose
from dlrun.errors import ConfigError


@pytest.fixture(scope="module")
def default() -> dict[str, Any]:
    return compose([]).config


def with_part(config: dict[str, Any], group: str, **part: Any) -> dict[str, Any]:
    return {**copy.deepcopy(config), group: part}


def problems(config: dict[str, Any]) -> list[str]:
    try:
        check(config)
    except ConfigError as error:
        return str(error).splitlines()
    return []


def test_the_default_is_right(default: dict[str, Any]):
    assert problems(default) == []


def test_optional_groups_may_be_null_or_absent(default: dict[str, Any]):
    for group in ("scheduler", "loss", "augment", "init", "callbacks", "logger"):
        assert problems({**default, group: None}) == []
        assert problems({key: value for key, value in default.items() if key != group}) == []


@pytest.mark.parametrize("group", ["data", "model", "optimizer", "trainer"])
@pytest.mark.parametrize("value", [None, 3, "mlp", ["mlp"]])
def test_required_groups_must_be_there(group: str, value: object, default: dict[str, Any]):
    (problem,) = problems({**default, group: value})
    assert problem.startswith(f"{group} must be a choice, got ")
    assert f"dlrun list {group}" in problem


@pytest.mark.parametrize(
    "part",
    [
        {"_target_": "torch.optim.SGD", "lr": 0.1, "momentum": 0.9},
        {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.1, "foreach": None},
        {"_target_": "torch.optim.Adam", "betas": [0.9, 0.999]},
        {"_target_": "builtins.dict", "anything": 3},
    ],
)
def test_a_foreign_optimizer_that_is_right(part: dict[str, Any], default: dict[str, Any]):
    assert problems(with_part(default, "optimizer", **part)) == []


@pytest.mark.parametrize(
    ("part", "sentence"),
    [
        ({"_target_": "torch.optim.SGD", "lr": 0}, "optimizer.lr must be a number > 0, got 0."),
        ({"_target_": "torch.optim.SGD", "lr": True}, "optimizer.lr must be a number > 0, got true."),
        (
            {"_target_": "torch.optim.Adam", "betas": [0.9, 1]},
            "optimizer.betas must be a list, each a number in [0, 1)",
        ),
        ({"_target_": "torch.optim.Adam", "amsgrad": 1}, "optimizer.amsgrad must be true or false, got 1."),
        (
            {"_target_": "torch.optim.Adam", "betass": 1},
            "unknown key 'optimizer.betass': torch.optim.Adam takes amsgrad",
        ),
        ({"_target_": "builtins.dict", "lr": -1}, "optimizer.lr must be a number > 0, got -1."),
        ({"_target_": "torch.optim.SGD", "lr": "???"}, "optimizer.lr is missing: "),
    ],
)
def test_a_foreign_optimizer_that_is_wrong(part: dict[str, Any], sentence: str, default: dict[str, Any]):
    (problem,) = problems(with_part(default, "optimizer", **part))
    assert problem.startswith(sentence)


def test_what_a_factory_needs_must_be_given(default: dict[str, Any]):
    (problem,) = problems(with_part(default, "model", _target_="torch.nn.Linear", in_features=3))
    assert problem == "model.out_features is missing: torch.nn.Linear needs it."


def test_lengths_of_a_schedule_may_be_texts(default: dict[str, Any]):
    target = "torch.optim.lr_scheduler"
    right = {"_target_": f"{target}.MultiStepLR", "milestones": ["50%", 3, "2ep"], "gamma": 0.1}
    assert problems(with_part(default, "scheduler", **right)) == []
    wrong = {"_target_": f"{target}.StepLR", "step_size": "half"}
    (problem,) = problems(with_part(default, "scheduler", **wrong))
    assert problem == "scheduler.step_size must be a whole number, got 'half'."
    (problem,) = problems(with_part(default, "scheduler", _target_=f"{target}.CosineAnnealingLR", T_max="0%"))
    assert problem == "scheduler.T_max must be a length above 0, got '0%'."


def test_parts_within_parts_are_checked(default: dict[str, Any]):
    inner = {"_target_": "torch.nn.Linear", "in_features": 3, "out_featurs": 4}
    (first, second) = problems(
        with_part(default, "model", _target_="torch.nn.TransformerEncoder", encoder_layer=inner, num_layers=1)
    )
    assert first.startswith("unknown key 'model.encoder_layer.out_featurs': torch.nn.Linear takes ")
    assert second == "model.encoder_layer.out_features is missing: torch.nn.Linear needs it."


def test_named_parts_are_called_by_their_name(default: dict[str, Any]):
    flip = {"_target_": "dlrun.augment.Flip", "p": 2, "axis": "horizontal"}
    (problem,) = problems({**default, "augment": {"mirror": flip}})
    assert problem.startswith("augment.mirror.p must be a number ")
    (problem,) = problems({**default, "callbacks": {"mine": 3}})
    assert problem == "callbacks.mine must be a part, with a _target_ and its arguments, got 3."


def test_a_key_is_complained_of_once_and_every_key_is(default: dict[str, Any]):
    wrong = copy.deepcopy(default)
    wrong["seed"] = -1
    wrong["trainer"] |= {"epochs": 0, "clip": {"norm": 0, "value": -1}}
    wrong["optimizer"] |= {"lr": "fast", "one": 1, "two": 2}
    keys = ["seed", "trainer.epochs", "trainer.clip.norm", "trainer.clip.value", "optimizer.lr"]
    found = problems(wrong)
    assert [
        next(word for word in problem.split() if word not in ("unknown", "key")).strip("':") for problem in found
    ] == [
        *keys,
        "optimizer.one",
        "optimizer.two",
    ]


@pytest.mark.parametrize(
    ("group", "settings", "start"),
    [
        ("data", {"folds": 3, "fold": 3}, "data.fold must be below data.folds=3, got 3."),
        ("data", {"fold": 1}, "data.fold=1 needs data.folds"),
        ("data", {"imbalance": 0.5}, "data.imbalance is the ratio"),
        ("trainer", {"precision": "tf32", "device": "cpu"}, "trainer.precision=tf32 needs trainer.device=cuda"),
        ("trainer", {"eval_every": "0ep"}, "trainer.eval_every must be above 0"),
        ("scheduler", {"warmup": "100%"}, "scheduler.warmup must be shorter than the run"),
    ],
)
def test_combinations(group: str, settings: dict[str, Any], start: str, default: dict[str, Any]):
    (problem,) = problems({**default, group: {**default[group], **settings}})
    assert problem.startswith(start)


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:0", "cuda:11", "mps"])
def test_devices(device: str):
    assert device_problem("trainer.device", device) is None


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "cpu:0", "mps:0", "", "CUDA", "cuda:0 "])
def test_no_devices(device: str):
    said = device_problem("trainer.device", device)
    assert said is not None
    assert f"got '{device}'" in said


def test_known_keys_are_the_signatures_and_the_groups():
    sgd = known_keys("optimizer", {"_target_": "torch.optim.SGD"})
    assert {"lr", "momentum", "maximize", "param_groups"} <= sgd
    assert "params" not in sgd
    assert {"path", "batch_size", "folds"} <= known_keys("data", {"_target_": "dlrun.data.csv.csv"})
    assert known_keys("model", {"_target_": "nosuch.thing", "width": 3}) == {"_target_", "width"}


@pytest.mark.parametrize(
    ("group", "path", "free"),
    [
        ("optimizer", ["param_groups", "lr_factors"], True),
        ("data", ["imbalance"], True),
        ("optimizer", ["param_groups"], False),
        ("optimizer", ["lr"], False),
        ("model", ["widths"], False),
        ("model", ["nothing"], False),
    ],
)
def test_free_mappings(group: str, path: list[str], free: bool, default: dict[str, Any]):
    assert takes_any_key(group, default[group], path) is free
