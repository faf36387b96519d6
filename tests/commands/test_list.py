"""`dlrun list`: what is printed for groups, choices and settings, and for words that are neither."""

from pathlib import Path

import pytest

from dlrun.commands import list as command
from dlrun.config.catalog import Catalog
from dlrun.errors import UsageError


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder of a user's own with one model."""
    (tmp_path / "model").mkdir()
    text = "# My own net (Me 2026). With two sentences.\n_target_: nets.mine\nwidth: 64   # of it\n"
    (tmp_path / "model" / "mine.yaml").write_text(text)
    return tmp_path


def test_every_group_and_choice_is_listed(capsys):
    assert command.run([]) == 0
    words = capsys.readouterr().out.replace("*", "").split()
    catalog = Catalog()
    assert set(catalog.groups) <= set(words)
    assert {choice.name for group in catalog.groups for choice in catalog.choices(group)} <= set(words)


def test_a_group_is_a_line_per_choice_with_description_and_source(capsys):
    command.run(["model"])
    lines = {line.split()[0 if line[0] == " " else 1]: line for line in capsys.readouterr().out.splitlines() if line}
    assert lines["mlp"].startswith("* mlp ")
    assert lines["lenet5"].startswith("  lenet5 ")
    assert lines["lenet5"].endswith("LeCun et al. 1998, doi:10.1109/5.726791")
    assert "LeNet-5 as taught today" in lines["lenet5"]


def test_a_narrow_terminal_wraps_columns_and_cuts_no_reference(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    command.run(["loss"])
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert "doi:10.1214/aoms/1177703732" in text


@pytest.mark.parametrize("words", [["model", "cnn"], ["model=cnn"]])
def test_a_choice_shows_its_settings(words, capsys):
    command.run(words)
    out = capsys.readouterr().out
    assert "model=cnn: Convolutional network" in out
    assert "conf/model/cnn.yaml -> dlrun.models.cnn.cnn" in out
    for key in Catalog().keys("model", "cnn"):
        assert f"{key.name}={key.default.replace(', ', ',')}" in out
        assert key.comment in out


def test_what_is_common_to_a_group_stands_apart(capsys):
    command.run(["data", "digits"])
    own, _, common = capsys.readouterr().out.partition("Common to every data set:")
    assert "data.val_fraction=0.1" in common
    assert "data.val_fraction" not in own


def test_a_group_with_one_choice_shows_it_at_once(capsys):
    command.run(["trainer"])
    assert "trainer.precision=auto" in capsys.readouterr().out


@pytest.mark.parametrize("option", [["--config-dir", "{}"], ["--config-dir={}"], ["-cd", "{}"]])
def test_choices_of_ones_own_are_listed(option, mine, capsys):
    command.run([word.format(mine) for word in option] + ["model", "mine"])
    out = capsys.readouterr().out
    assert "model=mine: My own net (Me 2026)." in out
    assert f"{mine / 'model' / 'mine.yaml'} -> nets.mine" in out
    assert "model.width=64  of it" in out


def test_the_source_of_ones_own_is_its_file_unless_it_cites(mine, capsys):
    (mine / "model" / "bare.yaml").write_text("_target_: nets.bare\n")
    command.run(["--config-dir", str(mine), "model"])
    lines = capsys.readouterr().out.splitlines()
    assert next(line for line in lines if line.startswith("  bare")).endswith(str(mine / "model" / "bare.yaml"))
    assert next(line for line in lines if line.startswith("  mine")).endswith("  Me 2026")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["modle"], r"there is no group 'modle': must be one of .*model.*Did you mean 'model'\?"),
        (["cnn"], r"'cnn' is not a group but a choice of model: dlrun list model cnn"),
        (["model", "cnnn"], r"model=cnnn: must be one of the \d+ that `dlrun list model` shows. Did you mean 'cnn'\?"),
        (["model", "cnn", "more"], r"takes a group and a choice, got 3 words: model cnn more"),
        (["--confg-dir", "x"], r"unknown option '--confg-dir'.*Did you mean '--config-dir'\?"),
        (["--config-dir"], r"--config-dir needs a folder"),
        (["--config-dir", "/nowhere"], r"there is no folder '/nowhere'"),
    ],
)
def test_what_is_not_there_is_one_sentence(words, message):
    with pytest.raises(UsageError, match=message):
        command.run(words)
