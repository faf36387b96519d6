"""Composing gives what Hydra gives, plus a place for right keys that no YAML lists; oracle: Hydra's own compose."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from dlrun.config import resolvers, sweep
from dlrun.config.compose import compose, open_hydra, plain
from dlrun.config.location import CONF
from dlrun.config.sweep import sweep_words
from dlrun.errors import ConfigError


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In an empty folder, with the module search path left as it was."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def by_hydra(words: list[str]) -> dict[str, Any]:
    """The resolved configuration that Hydra composes."""
    resolvers.register()
    with initialize_config_dir(str(CONF), version_base=None):
        composed = hydra_compose("train", words, return_hydra_config=True)
        HydraConfig.instance().set_config(composed)
        plain = OmegaConf.to_container(composed, resolve=False)
        plain.pop("hydra")
        return {
            key: OmegaConf.to_container(composed[key], resolve=True) if isinstance(value, dict) else composed[key]
            for key, value in plain.items()
        }


@pytest.mark.parametrize(
    ("words", "hydras"),
    [
        ([], []),
        (["model=cnn", "optimizer=sgd", "optimizer.lr=0.1", "trainer.clip.norm=1"], None),
        (["augment=[translate,cutout]", "model.widths=[32,16]"], None),
        (["trainer.early_stopping=null", "seed=3", "~optimizer.eps"], None),
        (["scheduler=onecycle", "optimizer.lr=0.3", "name=mine"], None),
        (
            ["logger=null", "~augment", "scheduler=null", "experiment=null", " "],
            ["logger=none", "augment=none", "scheduler=constant"],
        ),
        (["optimizer.maximize=true"], ["+optimizer.maximize=true"]),
        (["optimizer.param_groups.lr_factors={head: 10}"], ["+optimizer.param_groups.lr_factors={head: 10}"]),
        (["optimizer.param_groups.lr_factors.head=10"], ["+optimizer.param_groups.lr_factors.head=10"]),
        (["data.imbalance={0: 0.1}"], None),
        (["trainer={epochs: 3}"], None),
        (["trainer.clip={norm: 2}", "model=linear"], None),
    ],
    ids=str,
)
def test_it_is_what_hydra_composes(words: list[str], hydras: list[str] | None):
    assert compose(words).config == by_hydra(words if hydras is None else hydras)


def test_a_run_directory_is_named_by_time_name_and_id(somewhere: Path):
    path = compose(["name=my/own run"]).run_dir
    assert path.parent == somewhere / "outputs" / "runs"
    date, time, name, run_id = path.name.split("_")
    assert [len(part) for part in (date, time, run_id)] == [10, 8, 8]
    assert name == "my-own-run"
    assert compose(["hydra.run.dir=here/it/is"]).run_dir == somewhere / "here" / "it" / "is"


def test_hydras_own_files_hold_what_was_typed():
    composed = compose(["model=cnn", "seed=3"])
    files = {name: OmegaConf.create(text) for name, text in composed.hydra_files.items()}
    assert list(files["overrides.yaml"]) == ["model=cnn", "seed=3"]
    assert OmegaConf.to_container(files["config.yaml"]) == composed.config
    assert files["hydra.yaml"].hydra.runtime.choices.model == "cnn"


def test_ones_own_choices_come_first_and_the_others_stay(somewhere: Path):
    (somewhere / "mine" / "model").mkdir(parents=True)
    (somewhere / "mine" / "model" / "mlp.yaml").write_text("_target_: dlrun.models.mlp.mlp\nwidths: [3]\n")
    (somewhere / "mine" / "model" / "small.yaml").write_text("defaults: [cnn, _self_]\nchannels: [2]\n")
    assert compose([], config_dir="mine").config["model"] == {"_target_": "dlrun.models.mlp.mlp", "widths": [3]}
    small = compose(["model=small"], config_dir="mine").config["model"]
    assert small == {**compose(["model=cnn"]).config["model"], "channels": [2]}


def test_a_recorded_configuration_composes_to_itself(somewhere: Path):
    first = compose(["model=cnn", "optimizer=sgd", "augment=cutout"])
    (somewhere / "config.yaml").write_text(first.hydra_files["config.yaml"])
    again = compose([], config_path=str(somewhere), config_name="config")
    assert again.config == first.config
    assert again.run_dir.parent == somewhere / "outputs" / "runs"
    changed = compose(["optimizer.lr=0.5"], config_path=str(somewhere), config_name="config")
    assert changed.config == {**first.config, "optimizer": {**first.config["optimizer"], "lr": 0.5}}


def jobs(words: list[str]) -> list[list[str]]:
    """The overrides of each job that Hydra makes of a sweep's words, those of its own settings left out."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_overrides([word for word in words if not word.startswith("hydra")])
    return [list(job) for job in BasicSweeper.split_arguments(parsed, None)[0]]


def test_a_sweep_is_every_combination():
    words = sweep_words(
        ["optimizer=sgd,adamw", "seed=range(3)", "model.widths=[8]", "optimizer.maximize=true,false"], None, None, None
    )
    expected = product(["sgd", "adamw"], [0, 1, 2], ["true", "false"])
    assert [[word.lower() for word in job] for job in jobs(words)] == [
        [f"optimizer={optimizer}", f"seed={seed}", "model.widths=[8]", f"++optimizer.maximize={flag}"]
        for optimizer, seed, flag in expected
    ]


def test_a_sweeps_folders_are_named_by_what_differs():
    words = sweep_words(["seed=1,2", "trainer.epochs=3", "data=iris"], None, None, None)
    assert "hydra.job.config.override_dirname.exclude_keys=['data','trainer.epochs']" in words
    assert any(word.startswith("hydra.sweep.dir='outputs/sweeps/") for word in words)
    assert "hydra.sweep.dir=mine" in sweep_words(["seed=1,2", "hydra.sweep.dir=mine"], None, None, None)


def test_a_glob_means_choices_only():
    words = sweep_words(["scheduler=glob(*co*)"], None, None, None)
    assert words[0] == "scheduler=constant,cosine,cosine_restarts"  # and not _common


@pytest.mark.parametrize(
    "words", [["seed=1,2,x"], ["seed=1,2", "optimizer.lr=0.1,0.2,-1"], ["optimizer=sgd,adamw,nope"]]
)
def test_every_value_of_a_sweep_is_checked(words: list[str]):
    with pytest.raises(ConfigError):
        sweep_words(words, None, None, None)


NONSENSE = ["callbacks=[{a: 1}]", "hydra/launcher=[{a: 1}]", "hydra.searchpath=x", "data@x=", "augment.cutout.foo=???"]
NONSENSE += ["trainer.clip.norm.x={a: {b: 1}}", "model=${model}", "_target_=x", "hydra.mode=x", "defaults=[]"]


@pytest.mark.parametrize("word", NONSENSE)
def test_nonsense_is_refused_in_our_words(word: str):
    with pytest.raises(ConfigError) as caught:
        compose([word])
    assert 10 < len(str(caught.value)) < 500


COMPOSED = [
    ["optimizer=sgd", "seed=3", "optimizer.lr=0.5", "model.widths=[8]"],
    ["optimizer=sgd", "seed=4", "optimizer.lr=0.25", "model.widths=[16,8]"],
    ["optimizer=adamw", "seed=4", "optimizer.lr=0.25", "model.widths=[16,8]"],
    ["optimizer=adamw", "seed=3", "optimizer.lr=0.25", "++optimizer.amsgrad=true"],
    ["optimizer=adamw", "seed=2", "trainer.clip={norm: 1}"],
    ["optimizer=adamw", "seed=2", "~trainer.early_stopping"],
]


@pytest.mark.parametrize("extra", [[], ["++data.val_fraction=${optimizer.lr}"]], ids=["plain", "one refers to another"])
def test_the_jobs_of_a_sweep_are_composed_as_by_hydra(extra: list[str]):
    loader = open_hydra(None, None).config_loader
    master = loader.load_configuration("train", ["data=iris", *extra], RunMode.MULTIRUN)
    composer = sweep.JobComposer(loader, master)
    for job in COMPOSED:
        overrides = ["data=iris", *extra, *job]
        assert composer.config(overrides) == compose_plainly(loader, master, overrides), job


def compose_plainly(loader: Any, master: DictConfig, overrides: list[str]) -> dict[str, Any]:
    config = loader.load_sweep_config(master, overrides)
    HydraConfig.instance().set_config(config)
    return plain(config)


def test_jobs_that_differ_in_values_alone_are_composed_once():
    loader = open_hydra(None, None).config_loader
    master = loader.load_configuration("train", ["data=iris"], RunMode.MULTIRUN)
    asked: list[list[str]] = []
    own = loader.load_sweep_config
    loader.load_sweep_config = lambda master, words: asked.append(words) or own(master, words)
    composer = sweep.JobComposer(loader, master)
    for seed in range(20):
        composer.config(["optimizer=sgd", f"seed={seed}"])
    assert len(asked) == 1
