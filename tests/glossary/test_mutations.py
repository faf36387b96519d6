"""Every verdict can turn: the thing that a claim is about is broken, and the verdict is another."""

import json
import math
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from dlrun import build
from dlrun.engine.callbacks import StopEarly
from dlrun.glossary.claims import Claim, Verdict
from dlrun.glossary.entry import read_glossary
from dlrun.glossary.figures import panels
from dlrun.glossary.measure import Measured
from dlrun.glossary.measures import (
    batch_size,
    bias_correction,
    callbacks,
    clipping,
    decay,
    depth,
    early_stopping,
    initialisation,
    quadratic,
    schedules,
    state,
    update_rules,
    warmup,
)
from dlrun.glossary.measures.common import config, paired_test, slope
from dlrun.glossary.measures.early_stopping import stops_after
from dlrun.optim.gradients import ClipNorm, ClipValue

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
    "an L2 penalty that is decoupled": (
        "l2",
        "formula",
        decay.l2,
        {"sgd": ("optimizer=adamw", "optimizer.lr=0.01")},
        FAILS,
    ),
    "AdamW not decoupled, by the gradient": (
        "weight_decay",
        "independent",
        decay.weight_decay,
        {"words": decay.ADAM_L2},
        FAILS,
    ),
    "1cycle with a higher end": (
        "one_cycle",
        "cycle",
        schedules.one_cycle,
        {"words": ("scheduler=onecycle", "scheduler.final_div_factor=1e3")},
        FAILS,
    ),
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
        FAILS,
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
    "clipping by norm called by value": (
        "gradient_clipping",
        "kinds",
        clipping.measure,
        {"by_value": ClipNorm, "steps": 5},
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
    "the example with its scheduler": (
        "checkpoint",
        "code",
        state.checkpoint,
        {"code": ("model", "optimizer", "schedule")},
        HOLDS,
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
    claim = claim_of(entry, claim_id)
    assert claim.recorded is not verdict
    found = measure(**wrong)
    assert claim.judge(found.numbers if isinstance(found, Measured) else found) is verdict


def claim_of(entry: str, name: str) -> Claim:
    return next(claim for claim in GLOSSARY[entry].claims if claim.id == name)


RESULTS = Path(__file__).parent.parent.parent / "docs" / "glossary" / "results.json"
# One number of a dear measurement, measured on a broken thing; the others as they were recorded.
PARTS: dict[str, tuple[str, str, Callable[[], dict[str, float]], Verdict]] = {
    "tanh with PyTorch's start": (
        "vanishing_gradients",
        "causes",
        lambda: {"tanh_xavier_spread": depth.measured(("model.activation=tanh", *depth.DEFAULT), 30, 1).spread},
        FAILS,
    ),
    "no batch norm": (
        "vanishing_gradients",
        "solutions",
        lambda: {
            "sigmoid_norm_decades": -math.log10(
                depth.measured(("model.activation=sigmoid", *depth.DEFAULT), 30, 1).spread
            )
        },
        FAILS,
    ),
    "a loop that does not know what it calls": (
        "callback",
        "early_stopping",
        lambda: {"example_calls": callbacks.calls_by_name("for e in epochs:\n    hooks.call('on_validate', val_loss)")},
        HOLDS,
    ),
    "momentum that remembers little": (
        "momentum",
        "smoother",
        lambda: {"swing_low": quadratic.swing_ratio(1.5, 0.01), "noise_same_lr": 1.0},
        HOLDS,
    ),
}


@pytest.mark.parametrize("what", PARTS)
def test_the_verdict_turns_on_one_number(what: str):
    entry, name, measure, verdict = PARTS[what]
    claim, numbers = claim_of(entry, name), json.loads(RESULTS.read_text(encoding="utf-8"))[entry]["numbers"]
    assert claim.judge(numbers) is claim.recorded is not verdict
    assert claim.judge({**numbers, **measure()}) is verdict


@pytest.mark.parametrize("beta", [0.0, 0.9])
def test_the_noise_of_weights_is_that_of_the_closed_form(beta: float):
    lr, curvature = 0.1, 1.0
    wanted = lr * (1 + beta) / (curvature * (1 - beta) * (2 * (1 + beta) - lr * curvature))
    assert quadratic.weight_noise(lr, beta, steps=1500) == pytest.approx(wanted, rel=0.1)  # std of it: 2 %


def test_a_paired_test_is_that_of_scipy():
    ours, others = [3.0, 2.5, 4.0, 3.5], [2.0, 2.4, 3.1, 3.6]
    found = paired_test(ours, others)
    assert found.p == pytest.approx(stats.ttest_rel(ours, others).pvalue)
    assert found.mean == pytest.approx(0.475)
    assert found.low + found.high == pytest.approx(0.95)
    assert found.low < 0  # as p is above 0.05
    assert (paired_test([1.0, 2.0], [1.0, 2.0]).p, paired_test([1.0, 2.0], [0.0, 1.0]).p) == (1.0, 0.0)


def fake_run(test: float, curve: Sequence[float] = (0.5, 0.4), name: str = "val/loss", **summary: Any) -> Any:
    """What a measurement reads of a run."""
    found = {"test/accuracy": test, "test/loss": 1 - test}
    history = {name: np.array(curve), "train/loss": np.array(curve), "val/loss": np.array(curve)}
    config = {"trainer": {"early_stopping": {"patience": 5}}}
    return SimpleNamespace(metrics=found, history=history, summary=summary, config=config)


def arm(mean: float, spread: float = 0.01, seeds: int = 5, **more: Any) -> list[Any]:
    """Runs that differ a little, each arm's with noise of its own."""
    noise = np.random.default_rng(round(10_000 * mean)).standard_normal(seeds)
    return [fake_run(mean + spread * float(x), **more) for x in noise]


@pytest.mark.parametrize(
    ("large", "steps", "verdict"),
    [(0.8, 0.8, Verdict.HOLDS), (0.8, 0.9, Verdict.CORRECTED), (0.9, 0.9, FAILS), (0.8995, 0.88, Verdict.UNSHOWN)],
)
def test_batch_sizes_are_judged_by_their_trainings(large: float, steps: float, verdict: Verdict):
    accuracy = {"16": 0.9, "16_lr4": 0.9, "256": large, "256_lr4": large, "256_scaled": large, "256_steps": steps}
    runs = {name: arm(mean, 0.001, name="val/accuracy") for name, mean in accuracy.items()}
    numbers = batch_size._trainings(runs, panels("")[1][0])
    assert claim_of("batch_size", "small").judge(numbers) is verdict


@pytest.mark.parametrize(("decoupled", "verdict"), [(0.85, Verdict.HOLDS), (0.75, FAILS), (0.802, Verdict.UNSHOWN)])
def test_adamw_is_judged_by_its_trainings(decoupled: float, verdict: Verdict):
    runs = {
        "adamw_0.1": arm(decoupled, name="val/accuracy", curve=(0.1, 0.8)),
        "adamw_1": arm(0.5, name="val/accuracy", curve=(0.1, 0.6)),
        "adam_1e-3": arm(0.8, name="val/accuracy", curve=(0.1, 0.8)),
    }
    numbers = decay._compare(runs, panels("")[1][0])
    assert numbers["adamw_decay"] == 0.1
    assert claim_of("adamw", "recommended").judge(numbers) is verdict


@pytest.mark.parametrize(("stopped", "verdict"), [(0.9, Verdict.HOLDS), (0.7, FAILS), (0.801, Verdict.UNSHOWN)])
def test_early_stopping_is_judged_by_its_trainings(stopped: float, verdict: Verdict):
    runs = {
        name: arm(mean, curve=(3.0, 2.0), epochs=epochs, best={"epoch": epochs - 5})
        for name, mean, epochs in (("stopped", stopped, 20), ("long", 0.8, 40))
    }
    assert claim_of("early_stopping", "overfitting").judge(early_stopping.early_stopping(runs).numbers) is verdict


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ((3.0, 2.0, 2.1, 2.2, 2.3, 1.0, *[1.1] * 54), Verdict.HOLDS),
        ((3.0, 2.0, 1.0, *[1.1] * 57), Verdict.UNSHOWN),  # patience 1 finds the best as well
        ((3.0, 2.0, *[2.1] * 12, 1.0, *[1.1] * 45), FAILS),  # and here 10 does not
    ],
)
def test_patience_is_judged_by_curves(values: Sequence[float], verdict: Verdict):
    every_other = fake_run(0.5, epochs=20, best={"epoch": 10})
    runs = {"long": [fake_run(0.5, values)], "noisy": [fake_run(0.5, values)], "every_other": [every_other]}
    assert claim_of("patience", "typical").judge(early_stopping.patience(runs).numbers) is verdict


def losses_of(end: float, top: float = 1.0, phase: int = 0, seeds: int = 5) -> np.ndarray[Any, Any]:
    """Losses that begin at 1, rise to `top` and stay at `end`, each a little otherwise with each seed."""
    noise = 1 + 0.02 * np.random.default_rng(phase).standard_normal(seeds)
    return np.stack([np.ones(seeds), top * noise, *[end * noise] * 20], axis=1)


@pytest.mark.parametrize(
    ("deep", "mlp", "verdict"),
    [
        ((2.0, 0.5), (3.0, 1.0), Verdict.HOLDS),
        ((2.0, 0.5), (3.0, 3.0), Verdict.CORRECTED),
        ((0.5, 2.0), (1.0, 3.0), FAILS),
        ((0.5, 0.5), (3.0, 3.0), Verdict.UNSHOWN),
    ],
)
def test_warm_up_is_judged_by_its_trainings(deep: tuple[float, float], mlp: tuple[float, float], verdict: Verdict):
    found = {("rows", warmup.DEEP_RATE, w): losses_of(end, phase=w) for w, end in zip((0, 50), deep, strict=True)}
    for (w, top), name, rate in product(zip((0, 50), mlp, strict=True), warmup.BATCHES, warmup.RATES):
        found[name, rate, w] = losses_of(0.5, top, w)
    assert claim_of("warmup", "stabilises").judge(warmup.learnt(found) | warmup.stability(found)) is verdict


def test_warm_up_is_worth_more_to_large_batches_if_it_takes_more_off_them():
    for sizes, verdict in ((("large",), HOLDS), (("small",), FAILS), (("large", "small"), Verdict.UNSHOWN)):
        found = {
            (name, rate, w): losses_of(0.5, 3.0 if w == 0 and name in sizes else 1.5, w + len(name))
            for name, rate, w in product(warmup.BATCHES, warmup.RATES, (0, 50))
        }
        assert claim_of("warmup", "large_batches").judge(warmup.stability(found)) is verdict


def test_early_stopping_with_one_more_of_patience_is_seen():
    falling = [1.0, 0.9, 0.8, *[0.8] * 10]
    assert stops_after(falling, 3) == 6
    assert stops_after(falling, 3, Later) == 7
    assert stops_after([1.0, 0.9, 0.8], 3) == 3


def test_momentum_that_remembers_nothing_is_no_faster():
    claim = claim_of("momentum", "faster")
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

    claim = claim_of("batch_size", "noise")
    for draw, verdict in ((batch_size.with_replacement, HOLDS), (copies, FAILS)):
        variances = [batch_size.variance(model, splits, size, draw, batches=100) for size in (4, 64)]
        assert claim.judge({"variance_power": slope((4, 64), variances)}) is verdict
