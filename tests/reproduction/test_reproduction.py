"""Reproductions: every YAML reads and names what is there; verdicts by closed forms; one from beginning to end."""

import importlib
import inspect
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from scipy import stats

from dlrun.config.compose import compose
from dlrun.errors import ConfigError, UsageError
from dlrun.glossary.claims import Verdict, placeholders
from dlrun.glossary.figures import panels
from dlrun.reproduction.entry import FULL, Printed, find, read_all, read_reproduction
from dlrun.reproduction.jobs import Budget, jobs_of, last_of_each_key, over_seeds
from dlrun.reproduction.measure import reproduce
from dlrun.reproduction.measures import sequences, surface
from dlrun.reproduction.measures.common import difference
from dlrun.reproduction.measures.notebook import code
from dlrun.reproduction.measures.optimizers import decoupling
from dlrun.reproduction.measures.perceptron import by_hand
from dlrun.reproduction.measures.printed import draw_losses, probability
from dlrun.reproduction.record import Outcome, last_outcome
from dlrun.sweeps.table import Silent

KNOWN = read_all()


@pytest.mark.parametrize("name", [name for name, made in KNOWN.items() if not made.parts])
def test_what_a_reproduction_names_is_there(name: str):
    made = KNOWN[name]
    module, _, function = made.measure.rpartition(".")
    takes = inspect.signature(getattr(importlib.import_module(module), function)).parameters
    assert ("runs" in takes) == (made.runs is not None)
    arms = made.arms(list(made.options))
    for words in {tuple(words) for words in list(arms.values())[:: max(1, len(arms) // 4)]}:  # some: each takes 0.1 s
        compose(last_of_each_key(words))
    for claim in made.claims:
        used = {name for text in claim.shows.values() for name in placeholders(text)}
        assert used & {condition.name for condition in claim.conditions}, claim.id


def test_parts_are_listed_behind_the_whole():
    assert list(KNOWN)[list(KNOWN).index("slides") + 1] == KNOWN["slides"].parts[0]


def test_the_probability_is_that_of_a_new_draw():
    """Against the two-sample t test with a second sample of one, which is the same statistic."""
    ours, printed = np.array([2.0, 2.5, 1.5, 2.2]), 3.1
    s = ours.std(ddof=1)
    expected = 2 * stats.t.sf((printed - ours.mean()) / (s * np.sqrt(1.25)), 3)
    assert probability(ours, printed) == pytest.approx(expected)
    # Of draws from one Gaussian, a hundredth is called foreign at 0.01.
    random = np.random.default_rng(0)
    foreign = [probability(random.normal(size=4), random.normal()) < 0.1 for _ in range(2000)]
    assert np.mean(foreign) == pytest.approx(0.1, abs=0.02)


def test_a_run_that_never_varies_is_only_equal_to_itself():
    assert probability(np.array([1.0, 1.0]), 1.0) == 1
    assert probability(np.array([1.0, 1.0]), 1.1) == 0


def test_claims_about_printed_values_are_not_tested_with_words_of_ones_own():
    made = KNOWN["notebook"]
    numbers = dict.fromkeys((item.name for claim in made.claims for item in claim.conditions), 0.5)
    numbers |= {f"{item.name}_mean": 0.5 for item in made.printed}
    full = Outcome.of(made, Budget(), numbers)
    assert {claim.id: need for claim, need in full.untested} == {
        "long": "long=true",
        "decay": "long=true",
        "small": "long=true",
        "fair": "fair=true",
    }
    short = Outcome.of(made, Budget(words=("trainer.epochs=2",)), numbers)
    assert {claim.id for claim, _ in short.untested} == {claim for claim, needs in made.needs.items() if FULL in needs}
    assert short.agrees  # recorded verdicts are of other runs
    assert not full.agrees


def test_the_notebooks_code_as_it_stands():
    found = code()
    assert (found["steps_per_epoch"], found["steps_wanted"]) == (15, 59)
    assert found["lr_stepped"] == pytest.approx(0.1)
    assert found["lr_wanted"] == pytest.approx(0.1 * 0.9)  # 0.081 is set after the last epoch, and never used


def test_the_perceptron_by_hand_step_by_step():
    path, mistakes = by_hand(np.array([[1.0, 0.0], [-1.0, 0.0]]), np.array([1.0, -1.0]), epochs=2)
    # 0 · x = 0 is a mistake: w = (1, 0, 1); then (1, 0, 1) · (-1, 0, 1) = 0 is one: w = (2, 0, 0), which is right.
    assert path.tolist() == [[0, 0, 0], [2, 0, 0], [2, 0, 0]]
    assert mistakes == [2, 0]


@pytest.mark.parametrize("depths", [surface.SHALLOW, surface.DEEP])
def test_the_surfaces_gradient_is_that_of_its_height(depths: surface.Depths):
    points = np.random.default_rng(0).normal(size=(20, 2))
    for axis in range(2):
        step = np.eye(2)[axis] * 1e-6
        difference = (surface.height(*(points + step).T, depths) - surface.height(*(points - step).T, depths)) / 2e-6
        np.testing.assert_allclose(surface.gradient(points, depths)[:, axis], difference, atol=1e-8)


def test_a_difference_is_that_of_the_paired_t_test():
    ours, others = [3.0, 4.5, 2.0, 5.0], [2.0, 4.0, 2.5, 3.0]
    found, expected = difference("x", ours, others), stats.ttest_rel(ours, others)
    interval = expected.confidence_interval(0.95)
    assert found["x"] == pytest.approx(0.75)
    assert found["x_p"] == pytest.approx(expected.pvalue)
    assert (found["x_low"], found["x_high"]) == pytest.approx((interval.low, interval.high))
    assert difference("x", ours, ours) == {"x": 0, "x_p": 1, "x_low": 0, "x_high": 0}
    assert difference("x", [2.0, 3.0], [1.0, 2.0]) == {"x": 1, "x_p": 0, "x_low": 1, "x_high": 1}


def test_a_claim_of_few_seeds_is_judged_by_p_and_not_by_t():
    """The same t = 2.5 is no evidence of three seeds, and is some of eight."""
    verdicts = []
    for count in (3, 8):
        spread = np.linspace(-1, 1, count)
        gains = spread + 2.5 * spread.std(ddof=1) / np.sqrt(count)
        (claim,) = (claim for claim in KNOWN["slides_optimizers"].claims if claim.id == "practice")
        verdicts.append(claim.judge(difference("adamw_gain", gains, np.zeros(count))))
    assert verdicts == [Verdict.UNSHOWN, Verdict.HOLDS]


def test_what_momentum_leaves_of_noise_on_a_parabola():
    """Against the stationary variance of heavy ball on w² / 2: lr σ² (1 + β) / ((1 - β) (2 (1 + β) - lr))."""
    beta, lr = 0.9, 0.01
    _, weight = surface.noise_left(beta, lr, runs=20_000)
    expected = lr * (1 + beta) / ((1 - beta) * (2 * (1 + beta) - lr))
    assert weight == pytest.approx(expected, rel=0.04)  # 4 standard errors of a variance from 20,000 runs


def test_paths_through_a_graph_by_hand():
    x = torch.ones(1, requires_grad=True)
    y = x * 2  # its leaf is one operation behind
    far = y
    for _ in range(5):
        far = far.sin()
    assert sequences.paths(far, x) == (6, 6)  # five sines, the product, the leaf: six edges
    assert sequences.paths(far + y, x) == (2, 7)


def test_a_decoupled_decay_is_told_from_l2():
    found = decoupling(decay=0.2, lr=0.05)
    assert found["adamw_decays"] == pytest.approx(1)
    assert found["adam_decays"] < 0.01  # Adam's first step is lr times a sign, whatever L2 adds to the gradient


TINY = {
    "title": {"en": "tiny", "es": "mínimo"},
    "source": "a book",
    "hardware": "any",
    "minutes": 0.1,
    "about": {"en": "two runs", "es": "dos"},
    "measure": "dlrun.reproduction.measures.printed.measure",
    "runs": {
        "seeds": 2,
        "common": ["data=moons", "data.samples=80", "model.widths=[4]", "trainer.epochs=2", "trainer.device=cpu"],
        "arms": {"one": []},
    },
    "printed": [{"name": "loss", "arm": "one", "metric": "train/loss", "value": 5e6, "line": 3}],
    "claims": [
        {
            "id": "loss",
            "line": 3,
            "says": {"en": "loss 5000000", "es": "loss 5000000"},
            "shows": {"en": "{loss_mean} (p = {loss_p})", "es": "{loss_mean} (p = {loss_p})"},
            "holds_if": {"loss_p": ">= 0.01"},
            "needs": ["full"],
            "verdict": "does not hold",
        }
    ],
}


@pytest.mark.parametrize("word", ["data.samples=80", "data.split_seed=${seed}", "name=n${seed}"])
def test_configurations_over_seeds_are_hydras(word: str):
    """A reference to the seed is followed; without one, those between are made from the first."""
    words = ["data=moons", "data.split_seed=0", "optimizer=adam", word]
    made = over_seeds(words, 4, None)
    for seed, each in enumerate(made):
        expected = compose(last_of_each_key([*words, f"seed={seed}"]))
        assert each.config == expected.config
        assert each.hydra == expected.hydra
        assert each.overrides == expected.overrides
        assert (
            each.run_dir.name.partition("_")[2][9:] == expected.run_dir.name.partition("_")[2][9:]
        )  # but for the time


def test_from_a_yaml_to_a_page_and_again_without_a_new_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY), encoding="utf-8")
    made = read_reproduction(tmp_path / "tiny.yaml")
    first = reproduce(made, jobs_of(made, Budget()), tmp_path / "out", Budget(jobs=1), Silent())
    assert first.agrees
    runs = sorted((tmp_path / "out/tiny/runs").glob("*/summary.json"))
    stamps = [path.stat().st_mtime_ns for path in runs]
    assert len(runs) == 2
    again = reproduce(made, jobs_of(made, Budget()), tmp_path / "out", Budget(jobs=1), Silent())
    assert [path.stat().st_mtime_ns for path in runs] == stamps
    assert again.numbers == first.numbers
    last = [[json.loads(line) for line in p.with_name("metrics.jsonl").read_text().splitlines()] for p in runs]
    last = [[record["train/loss"] for record in records if "train/loss" in record][-1] for records in last]
    assert first.numbers["loss_mean"] == pytest.approx(np.mean(last))
    assert first.numbers["loss_p"] == pytest.approx(probability(np.log(last), np.log(5e6)))
    assert first.numbers["loss_std"] == pytest.approx(np.std(last, ddof=1))
    page = (tmp_path / "out/tiny/report.html").read_text(encoding="utf-8")
    assert "data:image/png;base64," in page
    assert "http" not in page
    kept = last_outcome(made, tmp_path / "out/tiny")
    assert kept is not None
    assert kept.verdicts == first.verdicts


@pytest.mark.parametrize(
    ("change", "needle"),
    [
        ({"printed": [{"name": "x", "arm": "two", "metric": "m", "value": 1, "line": 1}]}, "is of no arm 'two'"),
        ({"minutes": "long"}, "minutes must be a number >= 0, got 'long'"),
        ({"titel": 1}, "has no key 'titel'.*Did you mean 'title'"),
        ({"runs": {**TINY["runs"], "seeds": 1}}, "seeds must be a whole number >= 2"),  # type: ignore[dict-item]
        ({"claims": [{**TINY["claims"][0], "needs": ["slow"]}]}, "needs must be of full, got 'slow'"),  # type: ignore[index,dict-item]
    ],
)
def test_a_wrong_yaml_is_refused_in_one_sentence(tmp_path: Path, change: dict[str, object], needle: str):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({**TINY, **change}), encoding="utf-8")
    with pytest.raises(ConfigError, match=needle):
        read_reproduction(tmp_path / "tiny.yaml")


def test_ids_are_found_and_near_ones_named():
    assert find("Slides Moons", KNOWN).name == "slides_moons"
    with pytest.raises(UsageError, match=r"no reproduction 'notebok'.*Did you mean 'notebook'"):
        find("notebok", KNOWN)


def test_curves_are_drawn_over_the_epochs_of_their_records_and_without_runs_that_diverged():
    nan = float("nan")

    def run(status, *losses):
        history = {"epoch": np.array([2.5, 5.0, 7.5, 10.0]), "train/loss": np.array([nan, losses[0], nan, losses[1]])}
        return SimpleNamespace(status=status, history=history)

    runs = {
        "every_5": [run("completed", 2.0, 1.0), run("completed", 4.0, 3.0), run("diverged", nan, nan)],
        "lost": [run("diverged", nan, nan)],
    }
    _, (axes,) = panels("", 1)
    draw_losses(axes, runs, [Printed("loss", "every_5", "train/loss", 1.5, 1)])
    line, star = axes.get_lines()
    assert line.get_xydata().tolist() == [[5.0, 3.0], [10.0, 2.0]]
    assert star.get_xydata().tolist() == [[10.0, 1.5]]
