"""Searches that cannot be"""

import sqlite3
from pathlib import Path

import pytest

from dlrun.errors import UsageError
from dlrun.tuning.storage import closed_afterwards
from dlrun.tuning.study import StudyFolder

TINY = """
space: {optimizer.lr: {low: 1e-4, high: 0.1, log: true}}
objectives: [val/accuracy]
budget: {trials: 2}
"""


def refused(dlrun, *words):
    return dlrun("tune", "tune=mlp_digits", *words)


@pytest.fixture
def tiny(dlrun, tmp_path):
    """Runs the search of one key, which is checked soonest."""
    (tmp_path / "mine" / "tune").mkdir(parents=True)
    (tmp_path / "mine" / "tune" / "tiny.yaml").write_text(TINY)
    return lambda *words: dlrun("tune", "--config-dir", str(tmp_path / "mine"), "tune=tiny", *words)


def test_without_a_tune_file(dlrun):
    dlrun("tune").must_refuse("dlrun tune needs one tune=NAME", "mlp_digits")
    dlrun("tune", "tune=mlp_digit").must_refuse("tune=mlp_digit: must be one of", "Did you mean 'mlp_digits'?")
    dlrun("tune", "tune=mlp_digits", "tune=mlp_mnist").must_refuse("needs one tune=NAME", "got 2")
    dlrun("tune", "-m", "tune=mlp_digits").must_refuse("dlrun tune has no -m")
    dlrun("tune", "--jobs=2", "tune=mlp_digits").must_refuse("unknown option '--jobs=2' of dlrun tune")
    dlrun("train", "tune=mlp_digits").must_refuse("tune=mlp_digits", "dlrun tune tune=mlp_digits")


def test_a_range_that_is_none(dlrun):
    refused(dlrun, "tune.space.optimizer.lr.low=1").must_refuse("tune.space.optimizer.lr.low must be below high")
    refused(dlrun, "tune.space.optimizer.lr.low=0").must_refuse("low must be above 0 with log: true, got 0")
    refused(dlrun, "tune.space.optimizer.lr.type=normal").must_refuse("must be one of float, int, categorical")
    refused(dlrun, "tune.space.optimizer.choices=[]").must_refuse("tune.space.optimizer.choices must be a list")
    refused(dlrun, "tune.space.optimizer.lr.hihg=1").must_refuse("unknown key", "Did you mean 'high'?")


def test_conditions_on_what_is_not_there(dlrun):
    refused(dlrun, "tune.space.optimizer.momentum.when={optimiser: sgd}").must_refuse("Did you mean 'optimizer'?")
    refused(dlrun, "tune.space.optimizer.momentum.when={optimizer: lion}").must_refuse("optimizer is never 'lion'")


def test_keys_and_values_that_dlrun_does_not_know(dlrun):
    refused(dlrun, "tune.space.model.dorpout={low: 0.0, high: 0.5}").must_refuse(
        "tune.space allows", "unknown key 'model.dorpout'", "Did you mean 'dropout'?"
    )
    refused(dlrun, "tune.space.model.dropout.high=1.5", "tune.space.model.dropout.step=0.5").must_refuse(
        "tune.space allows", "model.dropout must be a number in [0, 1), got 1.5"
    )
    refused(dlrun, "tune.space.optimizer.momentum={low: 0.0, high: 0.9}").must_refuse(
        "unknown key 'optimizer.momentum'", "needs a condition, as in when: {optimizer: sgd}"
    )
    refused(dlrun, "tune.space.optimizer=[sgd,adamv]").must_refuse("optimizer=adamv: must be", "Did you mean 'adam")
    refused(dlrun, "model.widht=3").must_refuse("unknown key 'model.widht'")


def test_settings_of_the_search(dlrun):
    refused(dlrun, "tune.sampler=tpee").must_refuse("tune.sampler must be one of tpe", "got 'tpee'")
    refused(dlrun, "tune.pruner=hyper").must_refuse("tune.pruner must be one of median", "got 'hyper'")
    refused(dlrun, "tune.budget.trials=0").must_refuse("tune.budget.trials must be a whole number >= 1")
    refused(dlrun, "tune.budget.trials=null").must_refuse("tune.budget has no limit")
    refused(dlrun, "tune.budget.time=soon").must_refuse(
        "tune.budget.time must be a time such as 90, 30m or 2h, got 'soon'"
    )
    refused(dlrun, "tune.budget.trial_time=0s").must_refuse("tune.budget.trial_time must be a time such as 90, 30m")
    refused(dlrun, "tune.budget.trial_memory=8G8").must_refuse("tune.budget.trial_memory must be a size such as 800MB")
    refused(dlrun, "tune.objectives=[test/accuracy]").must_refuse("would choose by the test data")
    refused(dlrun, "tune.objectives=[]").must_refuse("tune.objectives is empty")
    refused(dlrun, "tune.sampler=cmaes", "tune.objectives=[val/loss,seconds]").must_refuse("cmaes takes one objective")
    refused(dlrun, "tune.sampler=grid", "tune.sampler.points=100").must_refuse("tune.sampler=grid would have")
    refused(dlrun, "tune.storage=somewhere").must_refuse("tune.storage must be null")
    refused(dlrun, "tune.trails=3").must_refuse("unknown key 'tune.trails'")
    refused(dlrun, "tune.space.optimizer.lr=1,2").must_refuse("gives several values, and a search has one")


def test_a_database_of_somebody_else(tiny, tmp_path):
    (tmp_path / "text.db").write_text("this is a text and no database, " * 40)
    tiny("tune.storage=text.db").must_refuse("is no database of Optuna's")
    tiny("tune.storage=postgresql://nobody@localhost:1/none").must_refuse("psycopg2 for PostgreSQL")


@pytest.fixture
def database(tmp_path) -> Path:
    """A study's database."""
    import optuna

    path = tmp_path / "study.db"
    with closed_afterwards(optuna.storages.RDBStorage(f"sqlite:///{path}")):
        return path


def test_a_locked_database(tiny, database, monkeypatch):
    monkeypatch.setattr("dlrun.tuning.storage.SECONDS_FOR_A_LOCK", 0.1)
    holder = sqlite3.connect(database, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        tiny("tune.storage=study.db").must_refuse("is locked by another program", "tune.storage=FILE.db")
    finally:
        holder.close()


def test_a_database_of_another_version(tiny, database):
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v99.0.0'")
        connection.execute("UPDATE version_info SET schema_version = 99, library_version = '99.0.0'")
    connection.close()
    tiny("tune.storage=study.db").must_refuse("is from another version of Optuna", "optuna storage upgrade")


def test_a_folder_that_holds_something_else(tiny, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("Dear")
    tiny("tune.folder=other").must_refuse("tune.folder=other is not empty and holds no search")
    (tmp_path / "other" / "tune.json").write_text('{"id": "12345678"}')
    tiny("tune.folder=other").must_refuse("holds another search (12345678)")


def test_two_searches_at_once_in_one_folder(tmp_path):
    (tmp_path / "study").mkdir()
    first, second = StudyFolder(tmp_path / "study"), StudyFolder(tmp_path / "study")
    with first.locked(), pytest.raises(UsageError, match="is being tuned by another process"), second.locked():
        pass
    with second.locked():  # the first has let go
        pass


def test_without_optuna(tiny, monkeypatch):
    monkeypatch.setattr("dlrun.tuning.storage.find_spec", lambda name: None)
    tiny().must_refuse("dlrun tune needs an optional package: pip install 'dlrun[tune]'")
