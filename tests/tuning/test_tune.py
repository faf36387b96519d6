"""`dlrun tune` from words to the tested winner, with real runs: moons, one or two epochs."""

import json

import pytest

from dlrun.commands import resume
from dlrun.config.compose import compose
from dlrun.config.identity import run_id
from dlrun.config.location import CONF
from dlrun.runs.directory import RunDirectory
from dlrun.tuning import sitting
from dlrun.tuning.recipe import recomposed, write_experiment
from dlrun.tuning.settings import read_settings
from dlrun.tuning.sitting import tune
from dlrun.tuning.space import word
from dlrun.tuning.storage import open_storage
from dlrun.tuning.study import STUDIES, Composer, ask

TUNE = """
# Moons.
words: [data=moons, data.samples=200, model=mlp, "model.widths=[8]", trainer.epochs=2, trainer.device=cpu]
space:
  optimizer: [adamw, sgd]
  optimizer.lr: {low: 1e-3, high: 0.3, log: true}
  optimizer.momentum: {low: 0.0, high: 0.9, when: {optimizer: sgd}}
objectives: [val/accuracy]
budget: {trials: 3}
seeds: 2
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "mine" / "tune").mkdir(parents=True)
    (tmp_path / "mine" / "tune" / "moons.yaml").write_text(TUNE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def finals(folder):
    return {path.name: RunDirectory(path).read_json(path / "summary.json") for path in folder.glob("final/*")}


def test_a_search_ends_with_a_tested_winner_and_its_recipe(here, capsys, monkeypatch):
    opened = []
    monkeypatch.setattr(sitting, "open_storage", lambda place: opened.append(open_storage(place)) or opened[-1])
    assert tune(["tune=moons"], "mine") == 0
    assert [database.engine.pool.checkedin() for database in opened] == [0]  # all connections are closed
    (folder,) = STUDIES.iterdir()
    content = json.loads((folder / "tune.json").read_text())
    assert content["status"] == "completed"
    assert content["trials"]["ended"] == 3
    for path in (folder / "trials").iterdir():
        run = RunDirectory(path)
        assert run.read_json(run.summary)["metrics"] == {}  # selection is by validation alone
        assert not run.read_config()["trainer"]["test"]
    tested = [summary["metrics"]["test/accuracy"] for summary in finals(folder).values()]
    assert len(tested) == 2
    found = content["test"]["metrics"]["test/accuracy"]
    assert found["mean"] == pytest.approx(sum(tested) / 2)
    assert found["std"] == pytest.approx(abs(tested[0] - tested[1]) / 2**0.5)
    best = content["best"][0]
    recorded = RunDirectory(folder / best["run"])
    again = recomposed(folder.absolute() / "conf" / "experiment" / "best.yaml", "mine")
    again["trainer"]["test"] = False
    assert run_id(again) == recorded.read_json(recorded.provenance)["run_id"]
    assert {path.name for path in (folder / "plots").iterdir()} >= {"history.png", "slice.png", "parallel.png"}
    out = capsys.readouterr().out
    assert f"test/accuracy {found['mean']:.4f} ± {found['std']:.4f} (2 seeds" in out

    # The same words again repeat nothing; more trials are added to those there are.
    times = {path: path.stat().st_mtime_ns for path in folder.glob("*/*/summary.json")}
    assert resume.run([content["id"]]) == 0
    assert tune(["tune=moons", "tune.budget.trials=4", "tune.seeds=0"], "mine") == 0
    assert [path.name for path in STUDIES.iterdir()] == [folder.name]
    assert len(list((folder / "trials").iterdir())) == 4
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "tune").glob("*.yaml")))
def test_every_tune_file_composes_at_its_ends_and_tries_its_defaults(name):
    asked = ask(read_settings([f"tune={name}"], None), None)
    assert asked.defaults is not None, asked.note
    run_dir = STUDIES / "one"
    of_defaults = asked.composer.of(asked.defaults, run_dir=run_dir)
    assert run_id(of_defaults.config) == run_id(asked.base.config)


def test_configurations_are_those_of_hydra():
    composer = Composer(["data=digits"], None)
    for params in (
        {"optimizer": "sgd", "optimizer.lr": 1e-05, "optimizer.momentum": 0.5, "model.widths": "[64,32]"},
        {"optimizer": "sgd", "optimizer.lr": 0.1, "optimizer.momentum": 0.25, "model.widths": "[8]"},
        {"scheduler.warmup": "5%", "optimizer.maximize": True},
    ):
        by_hydra = composer.compose([word(key, value) for key, value in params.items()])
        assert composer.of(params).config == by_hydra.config


@pytest.mark.parametrize(
    "words",
    [
        [
            "data=moons",
            "model=mlp",
            "model.widths=[8,4]",
            "optimizer=sgd",
            "optimizer.momentum=0.5",
            "optimizer.lr=1e-05",
        ],
        ["experiment=mnist_mlp", "augment=[translate,cutout]", "augment.cutout.size=3", "trainer.sam.rho=0.1"],
        ["data=digits", "optimizer.maximize=true", "trainer.clip.norm=1", "scheduler.warmup=5%", "seed=3"],
    ],
)
def test_a_recipe_composes_to_the_configuration_it_was_made_from(tmp_path, words):
    composer = Composer([*words, "trainer.test=false"], None)
    path = tmp_path / "experiment" / "best.yaml"
    best = composer.compose()
    assert write_experiment(path, composer, best, ["dlrun train"], ["optimizer.lr"])
    again = compose(["experiment=best", "trainer.test=false"], config_dir=str(tmp_path)).config
    assert run_id(again) == run_id(best.config)
    assert "  lr: " in path.read_text()


def test_a_recipe_that_would_have_to_take_away_is_not_written(tmp_path):
    composer = Composer(["~optimizer.weight_decay"], None)
    assert not write_experiment(tmp_path / "experiment" / "best.yaml", composer, composer.compose(), [])
    assert not list(tmp_path.iterdir())
