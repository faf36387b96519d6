"""The search: who is asked, who is pruned, what is told, what is left after a kill. The runs are formulas."""

import dataclasses
import random
from contextlib import suppress

import optuna
import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from dlrun.errors import ConfigError
from dlrun.tuning import storage
from dlrun.tuning.search import Search, SearchFailedError, open_study
from dlrun.tuning.storage import OUTCOME
from dlrun.tuning.winner import best_trials, retrain
from tests.tuning.fake import FakePool, KilledError, asked, runs


def search(folder, pool, memory=None, **given):
    """One sitting. Returns: the study of Optuna's, in memory unless `memory` is its storage."""
    what, where = asked(folder, **given)
    study = open_study(what, where, InMemoryStorage() if memory is None else memory)
    Search(what, where, study, lambda trial: None).go(pool)
    return study


def rising(params, epoch):
    """Trials differ by a constant only, so that who is worse at one epoch is worse at all."""
    return params["x"] + epoch / 100


def told(study):
    return {t.number: (t.state.name, t.values, dict(t.params)) for t in study.get_trials()}


def test_every_trial_is_told_the_best_of_its_validations(tmp_path):
    pool = FakePool(lambda params, epoch: params["x"] - (epoch - 2) ** 2 / 100)
    study = search(tmp_path, pool)
    trials = study.get_trials()
    assert len(trials) == 8
    assert all(t.state == TrialState.COMPLETE for t in trials)
    assert [t.value for t in trials] == [pytest.approx(t.params["x"]) for t in trials]  # at epoch 2
    assert len({t.params["x"] for t in trials}) == 8
    assert [s["metrics"] for s in runs(asked(tmp_path)[1]).values()] == [{}] * 8  # none is tested


def test_the_median_decides_who_is_pruned_and_it_stops_at_once(tmp_path):
    values = iter([0.5, 0.6, 0.7, 0.8, 0.1, 0.9, 0.65])
    grid = {"choices": [0.5, 0.6, 0.7, 0.8, 0.1, 0.9, 0.65]}
    what, where = asked(tmp_path, space={"x": grid}, pruner={"name": "median", "startup": 4}, budget={"trials": 7})
    study = open_study(what, where, InMemoryStorage())
    for value in values:
        study.enqueue_trial({"x": value})
    pool = FakePool(rising, size=1)
    Search(what, where, study, lambda trial: None).go(pool)
    # After four trials the median at every epoch is 0.65 more or less; 0.1 is below, 0.9 above; of the then five 0.65
    # is below 0.7.
    assert pool.pruned_at == {4: 1, 6: 1}
    assert [t.state.name for t in study.get_trials()] == ["COMPLETE"] * 4 + ["PRUNED", "COMPLETE", "PRUNED"]
    assert pool.trained[4] == [1]
    assert runs(where)["004_x=0.1"]["status"] == "pruned"
    assert study.get_trials()[4].user_attrs[OUTCOME]["epochs"] == 1


def test_halving_promotes_the_best_third(tmp_path):
    what, where = asked(
        tmp_path,
        space={"x": {"low": 0.0, "high": 1.0}},
        pruner={"name": "asha", "reduction_factor": 3, "min_resource": 1},
        budget={"trials": 9},
    )
    study = open_study(what, where, InMemoryStorage())
    for value in (0.9, 0.1, 0.2, 0.95, 0.3, 0.4, 0.99, 0.5, 0.6):
        study.enqueue_trial({"x": value})
    pool = FakePool(rising, epochs=9, size=1)
    Search(what, where, study, lambda trial: None).go(pool)
    # A rung's best third of those so far goes on: of one that is itself, later those that lead.
    kept = [t.params["x"] for t in study.get_trials() if t.state == TrialState.COMPLETE]
    assert 0.9 in kept
    assert {0.1, 0.2, 0.3, 0.4, 0.5, 0.6}.isdisjoint(kept)


def test_a_trial_is_not_pruned_when_all_of_it_is_trained(tmp_path):
    what, where = asked(tmp_path, pruner={"name": "median", "startup": 1}, budget={"trials": 2})
    study = open_study(what, where, InMemoryStorage())
    for value in (0.9, 0.1):
        study.enqueue_trial({"x": value})
    pool = FakePool(rising, epochs=1, size=1)
    Search(what, where, study, lambda trial: None).go(pool)
    assert [t.state.name for t in study.get_trials()] == ["COMPLETE", "COMPLETE"]


def test_a_diverged_trial_counts_as_bad_and_a_failed_one_as_nothing(tmp_path):
    def curve(params, epoch):
        if params["x"] > 0.8:
            return "diverged" if epoch == 2 else 0.99
        return "failed" if params["x"] < 0.2 else params["x"]

    study = search(tmp_path, FakePool(curve), budget={"trials": 14})
    for trial in study.get_trials():
        x = trial.params["x"]
        expected = "PRUNED" if x > 0.8 else "FAIL" if x < 0.2 else "COMPLETE"
        assert trial.state.name == expected
        assert (
            trial.user_attrs[OUTCOME]["status"]
            == {"PRUNED": "diverged", "FAIL": "failed", "COMPLETE": "completed"}[expected]
        )
    states = {trial.state.name for trial in study.get_trials()}
    assert states == {"PRUNED", "FAIL", "COMPLETE"}  # seed 0 draws all three
    assert best_trials(study, asked(tmp_path)[0].settings.objectives)[0].value < 0.8


def test_a_search_in_which_all_fails_ends_soon(tmp_path):
    pool = FakePool(lambda params, epoch: "failed")
    with pytest.raises(SearchFailedError, match="the first 3 trials failed, the last with: RuntimeError: no"):
        search(tmp_path, pool, budget={"trials": 100})
    assert len(pool.started) == 4


def test_what_is_not_measured_cannot_be_searched_for(tmp_path):
    with pytest.raises(ConfigError, match="val/f1 is not measured here; a validation measures val/accuracy, val/loss"):
        search(tmp_path, FakePool(rising), objectives=["val/f1"])


SLOW = [pytest.param(name, 4, marks=pytest.mark.slow) for name in ("gp", "cmaes")]  # to be loaded, mostly


@pytest.mark.parametrize(("name", "trials"), [("tpe", 6), ("random", 4), ("qmc", 4), *SLOW])
def test_samplers_are_seeded_and_draw_nothing_twice_over_two_sittings(tmp_path, name, trials):
    space = {"x": {"low": 0.0, "high": 1.0}, "y": {"low": 1e-3, "high": 1.0, "log": True}, "z": {"choices": ["a", "b"]}}
    sampler = {"name": name, "startup": 3, "seed": 5}

    def sittings(folder, *counts):
        memory = InMemoryStorage()
        for count in counts:
            pool = FakePool(rising, epochs=1, size=1)
            study = search(folder, pool, memory, space=space, sampler=sampler, budget={"trials": count})
        return study

    whole, parts = sittings(tmp_path / "whole", trials), sittings(tmp_path / "parts", trials - 2, trials)
    assert told(whole) == told(parts)
    assert len({(t.params["x"], t.params["y"]) for t in whole.get_trials()}) == trials


def test_the_same_run_again_is_not_trained_again(tmp_path, monkeypatch):
    monkeypatch.setattr("dlrun.tuning.search.MOST_REPEATS", 5)
    pool = FakePool(rising, size=1)
    study = search(tmp_path, pool, space={"x": [0.25, 0.5]}, budget={"time": "1h"})
    assert {t.params["x"]: t.value for t in study.get_trials()} == {0.25: 0.29, 0.5: 0.54}
    assert len(pool.started) == 2
    assert len(study.get_trials()) < 20  # it stops when nothing new is to be found


def test_a_grid_is_gone_over_once(tmp_path):
    space = {"x": [0.1, 0.2], "y": {"low": 0, "high": 2}}
    study = search(tmp_path, FakePool(rising), space=space, sampler="grid", budget={"trials": 100})
    assert sorted((t.params["x"], t.params["y"]) for t in study.get_trials()) == [
        (x, y) for x in (0.1, 0.2) for y in range(3)
    ]


def test_the_budget_counts_trials_time_and_device_hours(tmp_path, monkeypatch):
    assert len(search(tmp_path / "a", FakePool(rising), budget={"trials": 3}).get_trials()) == 3
    hours = {"device_hours": 10 / 3600}  # each takes 4 s, as the fake says: three have been begun when 10 s are over
    assert len(search(tmp_path / "b", FakePool(rising, size=1), budget=hours).get_trials()) == 3
    what, where = asked(tmp_path / "c", budget={"time": "1h"})
    study = open_study(what, where, InMemoryStorage())
    one = Search(what, where, study, lambda trial: None, seconds=3590.0)
    clock = iter(range(10_000))
    monkeypatch.setattr(Search, "seconds", property(lambda self: 3590.0 + next(clock)))
    pool = FakePool(rising, epochs=30)
    one.go(pool)
    assert set(pool.pruned_at) == {0, 1}  # those under way stop at their next validation
    assert [t.user_attrs[OUTCOME]["status"] for t in study.get_trials()] == ["out_of_time", "out_of_time"]


def test_what_is_trained_to_its_end_counts_though_the_time_is_over(tmp_path, monkeypatch):
    what, where = asked(tmp_path, budget={"time": "1h"})
    study = open_study(what, where, InMemoryStorage())
    clock = iter([0.0])
    monkeypatch.setattr(Search, "seconds", property(lambda self: next(clock, 3601.0)))
    Search(what, where, study, lambda trial: None).go(FakePool(rising, epochs=1, size=1))
    assert [t.state.name for t in study.get_trials()] == ["COMPLETE"]


def test_a_trial_whose_process_dies_counts_in_device_hours(tmp_path):
    class Dying(FakePool):
        def _ended(self, job, status, epoch, values):
            ended = super()._ended(job, status, epoch, values)
            return dataclasses.replace(ended, status="failed", summary={}, seconds=5.0)

    study = search(tmp_path, Dying(rising, size=1), budget={"device_hours": 9 / 3600, "trials": 50})
    assert len(study.get_trials()) == 2


@pytest.mark.parametrize("sampler", ["gp", "cmaes", "nsga2"])
def test_samplers_that_learn_from_whole_trials_get_whole_trials(tmp_path, sampler):
    """Else they would ask for a pruned or diverged point again and again."""
    space = {"x": {"low": 0.0, "high": 1.0}, "y": {"low": 0.0, "high": 1.0}}

    def curve(params, epoch):
        return "diverged" if params["x"] > 0.6 and epoch == 2 else rising(params, epoch)

    pool = FakePool(curve, size=1)
    given = {"sampler": {"name": sampler, "startup": 3}, "pruner": {"name": "median", "startup": 0}}
    study = search(tmp_path, pool, space=space, budget={"trials": 9}, **given)
    assert not pool.pruned_at
    trials = study.get_trials()
    assert "COMPLETE" in {t.state.name for t in trials if t.user_attrs[OUTCOME]["status"] == "diverged"}
    best = best_trials(study, asked(tmp_path)[0].settings.objectives)[0]
    assert best.user_attrs[OUTCOME]["status"] == "completed"
    assert best.value == max(t.value for t in trials if t.user_attrs[OUTCOME]["status"] == "completed")


def test_a_pruned_run_is_not_trained_again(tmp_path):
    what, where = asked(tmp_path, pruner={"name": "median", "startup": 1}, budget={"trials": 3})
    study = open_study(what, where, InMemoryStorage())
    for value in (0.9, 0.1, 0.1):
        study.enqueue_trial({"x": value})
    pool = FakePool(rising, size=1)
    Search(what, where, study, lambda trial: None).go(pool)
    assert pool.started == [0, 1]
    first, again = study.get_trials()[1:]
    assert (again.state, again.intermediate_values) == (TrialState.PRUNED, first.intermediate_values)


def test_a_grid_that_was_not_wholly_written_down_is_completed(tmp_path):
    what, where = asked(tmp_path, space={"x": [0.1, 0.2, 0.3, 0.4]}, sampler="grid", budget={"trials": 100})
    study = open_study(what, where, InMemoryStorage())
    partial = InMemoryStorage()
    begun = optuna.create_study(storage=partial, study_name=study.study_name, direction="maximize")
    for trial in study.get_trials()[:2]:
        begun.enqueue_trial(trial.system_attrs["fixed_params"])
    again = open_study(what, where, partial)
    points = [t.system_attrs["fixed_params"]["x"] for t in again.get_trials()]
    assert sorted(points) == [0.1, 0.2, 0.3, 0.4]
    assert len(open_study(what, where, partial).get_trials()) == 4


def stop_at_once(one: Search, pool: FakePool) -> None:
    """Ctrl-C right after the first trials have been given out."""
    one._fill(pool)
    pool.stopping = True
    for event in pool.events():
        one._handle(event, pool)


def test_nothing_is_asked_for_once_it_is_to_stop(tmp_path):
    """What a trial tries depends on the results so far, which those under way have not given yet."""
    pool = FakePool(rising, size=2)
    what, where = asked(tmp_path, budget={"trials": 8})
    study = open_study(what, where, InMemoryStorage())
    stop_at_once(Search(what, where, study, lambda trial: None), pool)
    assert [t.state.name for t in study.get_trials()] == ["RUNNING", "RUNNING"]


def test_failures_at_the_beginning_of_a_later_sitting_do_not_end_the_search(tmp_path):
    memory = InMemoryStorage()
    search(tmp_path, FakePool(rising, size=1), memory, budget={"trials": 2})
    failing = FakePool(lambda params, epoch: "failed", size=1)
    study = search(tmp_path, failing, memory, budget={"trials": 7})
    assert len(study.get_trials()) == 7


def test_errors_of_others_are_not_the_storages(tmp_path):
    def broken(trial):
        raise BrokenPipeError("gone")

    what, where = asked(tmp_path)
    study = open_study(what, where, InMemoryStorage())
    with pytest.raises(BrokenPipeError):
        Search(what, where, study, broken).go(FakePool(rising))


@pytest.mark.parametrize("seed", range(6))
def test_a_killed_search_ends_as_if_undisturbed(tmp_path, seed):
    """Nothing is repeated beyond what no checkpoint holds, nothing lost, and no trial runs for ever."""
    chance = random.Random(seed)
    given = {"budget": {"trials": 6}, "sampler": "random", "pruner": {"name": "median", "startup": 2}}
    calm = FakePool(rising, size=1)
    undisturbed = search(tmp_path / "calm", calm, **given)
    trained: dict[int, list[int]] = {}
    memory = InMemoryStorage()
    for _ in range(4):
        pool = FakePool(rising, size=1, die_after=chance.randrange(6))
        with suppress(KilledError):
            search(tmp_path / "killed", pool, memory, **given)
        for number, epochs in pool.trained.items():
            trained.setdefault(number, []).extend(epochs)
    pool = FakePool(rising, size=1)
    study = search(tmp_path / "killed", pool, memory, **given)
    for number, epochs in pool.trained.items():
        trained.setdefault(number, []).extend(epochs)
    assert told(study) == told(undisturbed)
    assert not study.get_trials(states=(TrialState.RUNNING, TrialState.WAITING))
    assert {t.number: t.intermediate_values for t in study.get_trials()} == {
        t.number: t.intermediate_values for t in undisturbed.get_trials()
    }
    assert {number: sorted(set(epochs)) for number, epochs in trained.items()} == calm.trained
    assert (
        sum(map(len, trained.values())) <= sum(map(len, calm.trained.values())) + 2 * 4
    )  # the fake saves every second


def test_an_interrupted_trial_is_gone_on_with(tmp_path):
    pool = FakePool(rising)
    memory = InMemoryStorage()
    what, where = asked(tmp_path, budget={"trials": 2})
    study = open_study(what, where, memory)
    stop_at_once(Search(what, where, study, lambda trial: None), pool)
    assert [t.state.name for t in study.get_trials()] == ["RUNNING", "RUNNING"]
    again = search(tmp_path, FakePool(rising), memory, budget={"trials": 2})
    assert [t.state.name for t in again.get_trials()] == ["COMPLETE", "COMPLETE"]


def test_what_ended_before_it_was_told_is_told_and_not_trained_again(tmp_path):
    what, where = asked(tmp_path, budget={"trials": 1})
    study = open_study(what, where, InMemoryStorage())
    pool = FakePool(rising, size=1)
    one = Search(what, where, study, lambda trial: None)
    one._fill(pool)
    list(pool.events())  # the run ends, and the process dies before anybody hears of it
    again = FakePool(rising)
    Search(what, where, study, lambda trial: None).go(again)
    assert not again.started
    assert study.get_trials()[0].state == TrialState.COMPLETE


def test_another_machines_trial_is_left_alone_until_it_is_dead(tmp_path, monkeypatch):
    place = str(tmp_path / "shared.journal")
    given = {"storage": place, "budget": {"trials": 2}}
    what, where = asked(tmp_path / "here", **given)
    study = open_study(what, where, storage.open_storage(place))
    other = study.ask()
    params = what.settings.space.suggest(other)
    other.set_user_attr(storage.BEGUN, {"host": "elsewhere", "folder": "/there"})
    other.set_user_attr(storage.ALIVE, 1e12)  # alive, and long so
    Search(what, where, study, lambda trial: None).go(FakePool(rising))
    assert [t.state.name for t in study.get_trials()] == ["RUNNING", "COMPLETE"]
    other.set_user_attr(storage.ALIVE, 0.0)
    Search(what, where, study, lambda trial: None).go(FakePool(rising))
    assert [t.state.name for t in study.get_trials()] == ["FAIL", "COMPLETE", "COMPLETE"]
    assert study.get_trials()[2].params == params  # what it tried is tried here


def test_several_objectives_give_a_front_and_prune_nothing(tmp_path):
    space = {"x": {"low": 0.0, "high": 0.1}, "width": {"low": 1, "high": 6}}
    given = {"objectives": ["val/accuracy", "parameters"], "pruner": "median", "sampler": {"name": "random"}}
    pool = FakePool(lambda params, epoch: params["x"] + params["width"])
    study = search(tmp_path, pool, space=space, budget={"trials": 30}, **given)
    assert not pool.pruned_at
    front = best_trials(study, asked(tmp_path, space=space, **given)[0].settings.objectives)
    values = [tuple(t.values) for t in study.get_trials()]
    slow = {v for v in values if not any(o != v and o[0] >= v[0] and o[1] <= v[1] for o in values)}
    assert {tuple(t.values) for t in front} == slow
    assert front[0].values[0] == max(v[0] for v in values)


def test_the_winner_is_trained_from_each_seed_and_tested_once(tmp_path):
    what, where = asked(tmp_path, seeds=3)
    study = open_study(what, where, InMemoryStorage())
    Search(what, where, study, lambda trial: None).go(FakePool(rising))
    best = best_trials(study, what.settings.objectives)[0]
    pool = FakePool(lambda params, epoch: 0.5)
    found = retrain(what, where, best, pool, lambda label, summary: None)
    assert found["metrics"]["test/accuracy"] == {"mean": 0.5, "std": 0.0, "values": [0.5, 0.5, 0.5]}
    assert len(pool.started) == found["finished"] == 3
    again = FakePool(lambda params, epoch: 0.5)
    assert retrain(what, where, best, again, lambda label, summary: None) == found
    assert not again.started


def test_optuna_is_the_version_that_was_meant():
    assert int(optuna.__version__.split(".")[0]) >= 5
