"""Every verdict can turn: the thing that a claim is about is broken, and the verdict is another."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from dlrun import build
from dlrun.engine.callbacks import StopEarly
from dlrun.glossary.claims import Verdict
from dlrun.glossary.entry import read_glossary
from dlrun.glossary.measure import Measured
from dlrun.glossary.measures import (
    batch_size,
    bias_correction,
    clipping,
    decay,
    depth,
    initialisation,
    quadratic,
    schedules,
    state,
    update_rules,
)
from dlrun.glossary.measures.common import config, slope
from dlrun.glossary.measures.early_stopping import stops_after
from dlrun.optim.gradients import ClipValue

GLOSSARY = read_glossary()
FAILS, HOLDS = Verdict.FAILS, Verdict.HOLDS
BETA = ("optimizer=adam", "optimizer.lr=0.01", "optimizer.betas=[0.8,0.999]")


def doubled(weight: torch.Tensor) -> None:
    """He's weights with twice the variance."""
    nn.init.kaiming_normal_(weight, nonlinearity="relu").mul_(2**0.5)


class Later(StopEarly):
    """Early stopping with one more of patience."""

    def __init__(self, patience: int) -> None:
        super().__init__(patience + 1)


MUTATIONS: dict[str, tuple[str, str, Callable[..., Measured | dict[str, float]], dict[str, Any], Verdict]] = {
    "another learning rate": (
        "sgd",
        "rule",
        update_rules.sgd,
        {"words": ("optimizer=sgd", "optimizer.lr=0.011")},
        FAILS,
    ),
    "wrong β of momentum": (
        "momentum",
        "rule",
        quadratic.rule,
        {"words": (*update_rules.MOMENTUM, "optimizer.momentum=0.8")},
        FAILS,
    ),
    "momentum with dampening": (
        "update_rules",
        "momentum",
        update_rules.table,
        {"momentum": (*update_rules.MOMENTUM, "optimizer.dampening=0.1")},
        FAILS,
    ),
    "wrong β1 of Adam": ("update_rules", "adam", update_rules.table, {"adam": BETA}, FAILS),
    "wrong β1, parents": ("adam", "parents", update_rules.adam, {"words": BETA}, FAILS),
    "AdamW not decoupled": ("adamw", "rule", decay.adamw, {"words": decay.ADAM_L2}, FAILS),
    "AdamW not decoupled, its λ": ("weight_decay", "rule", decay.weight_decay, {"words": decay.ADAM_L2}, FAILS),
    "a penalty of the norm itself": ("l2", "norm", decay.l2, {"penalty": lambda w: w.norm()}, HOLDS),
    "no memory in the first moment": (
        "bias_correction",
        "zero",
        bias_correction.measure,
        {"words": (*update_rules.ADAM, "optimizer.betas=[0.0,0.999]")},
        FAILS,
    ),
    "cosine stepped twice": ("cosine_annealing", "formula", schedules.cosine, {"calls": 2}, FAILS),
    "cosine stepped twice, falls": ("cosine_annealing", "falls", schedules.cosine, {"calls": 2}, FAILS),
    "1cycle stepped per epoch": ("one_cycle", "cycle", schedules.one_cycle, {"advance_every": 20}, FAILS),
    "StepLR by a fifth": (
        "step_lr",
        "formula",
        schedules.step,
        {"words": (*schedules.STEP, "scheduler.gamma=0.2")},
        FAILS,
    ),
    "plateau with less patience": (
        "reduce_on_plateau",
        "patience",
        schedules.plateau,
        {"words": ("scheduler=plateau", "scheduler.patience=4")},
        HOLDS,
    ),
    "He's variance off by 2": (
        "he",
        "notation",
        initialisation.readings,
        {"fill": doubled, "variance": 2 / 512},
        FAILS,
    ),
    "He without its 2": ("initialisation", "he", initialisation.table, {"he": ("init=he", "init.gain=1.0")}, FAILS),
    "He for Xavier": ("initialisation", "xavier", initialisation.table, {"xavier": ("init=he",)}, FAILS),
    "clipping by value called by norm": (
        "gradient_clipping",
        "kinds",
        clipping.measure,
        {"by_norm": ClipValue(0.01), "steps": 5},
        FAILS,
    ),
    "a milder start": ("exploding_gradients", "exponential", depth.exploding, {"gain": 2.0, "depth": 12}, FAILS),
    "a checkpoint without the generator": (
        "checkpoint",
        "parts",
        state.checkpoint,
        {"everything": {"model", "optimizer", "schedule"}},
        FAILS,
    ),
    "SGD's state for Adam's": (
        "optimizer_state_dict",
        "contents",
        state.contents,
        {"words": ("optimizer=sgd", "optimizer.lr=0.05")},
        FAILS,
    ),
    "a buffer lost on the way": ("model_state_dict", "loads", state.model_state, {"drop": ("1.running_mean",)}, FAILS),
}


@pytest.mark.parametrize("what", MUTATIONS)
def test_the_verdict_turns_when_the_thing_is_broken(what: str):
    entry, claim_id, measure, wrong, verdict = MUTATIONS[what]
    claim = next(claim for claim in GLOSSARY[entry].claims if claim.id == claim_id)
    assert claim.recorded is not verdict
    found = measure(**wrong)
    assert claim.judge(found.numbers if isinstance(found, Measured) else found) is verdict


def test_early_stopping_with_one_more_of_patience_is_seen():
    falling = [1.0, 0.9, 0.8, *[0.8] * 10]
    assert stops_after(falling, 3) == 6
    assert stops_after(falling, 3, Later) == 7
    assert stops_after([1.0, 0.9, 0.8], 3) == 3


def test_momentum_that_remembers_nothing_is_no_faster():
    claim = next(claim for claim in GLOSSARY["momentum"].claims if claim.id == "faster")
    conditions = (10.0, 100.0)
    plain, heavy = (
        slope(conditions, [float(quadratic.steps_needed(k, momentum=momentum)) for k in conditions])
        for momentum in (False, True)
    )
    assert claim.judge({"sgd_power": plain, "momentum_power": heavy}) is HOLDS
    assert claim.judge({"sgd_power": plain, "momentum_power": plain}) is FAILS


def test_a_batch_of_copies_of_one_example_has_no_less_noise():
    chosen = config("data=digits", "model.widths=[16]", "model.norm=none")
    splits = build.build_data(chosen)
    torch.manual_seed(0)
    model = build.build_model(chosen, splits.spec)

    def copies(random: torch.Generator, count: int, size: int) -> torch.Tensor:
        return torch.randint(count, (1,), generator=random).expand(size)

    claim = next(claim for claim in GLOSSARY["batch_size"].claims if claim.id == "noise")
    for draw, verdict in ((batch_size.with_replacement, HOLDS), (copies, FAILS)):
        variances = [batch_size.variance(model, splits, size, draw, batches=100) for size in (4, 64)]
        assert claim.judge({"variance_power": slope((4, 64), variances)}) is verdict
