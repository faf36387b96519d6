"""What the words of a sweep become before Hydra sees them."""

from pathlib import Path

import pytest

from dlrun.config.sweep import sweep_words
from dlrun.errors import ConfigError

GRID = """# @package _global_
defaults: [{override /data: moons}]
hydra: {sweeper: {params: {seed: "0,1", optimizer.lr: "0.1,0.01"}}}
"""


@pytest.fixture
def mine(tmp_path: Path) -> str:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "grid.yaml").write_text(GRID)
    (tmp_path / "experiment" / "plain.yaml").write_text(GRID.split("hydra:")[0])
    return str(tmp_path)


def test_a_file_may_say_what_is_swept_and_what_is_typed_wins(mine: str):
    words = sweep_words(["experiment=grid", "seed=5"], None, None, mine)
    assert "optimizer.lr=0.1,0.01" in words
    assert [word for word in words if word.startswith("seed=")] == ["seed=5"]


@pytest.mark.parametrize("word", ["experiment=grid,plain", "experiment=plain,grid"])
def test_files_of_which_one_sweeps_are_not_swept_over(mine: str, word: str):
    with pytest.raises(ConfigError, match=r"one of these sweeps over seed, optimizer.lr by its hydra.sweeper.params"):
        sweep_words([word], None, None, mine)
