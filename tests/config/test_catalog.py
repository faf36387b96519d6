"""The catalog reads YAML files as Hydra would, plus their comments; oracles are OmegaConf and Hydra themselves."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from dlrun.config.catalog import Catalog, groups_text, keys_text
from dlrun.config.choice import Choice, Key
from dlrun.config.location import CONF
from dlrun.errors import ConfigError, UsageError


def write(folder: Path, name: str, text: str) -> Choice:
    path = folder / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return Choice(path.parent.name, path.stem, path)


def every_choice() -> list[Choice]:
    catalog = Catalog()
    return [choice for group in catalog.groups for choice in catalog.choices(group)]


def leaves(node: object, prefix: str = "") -> dict[str, object]:
    """Dotted names and values of a plain configuration, without Hydra's own keys."""
    found: dict[str, object] = {}
    for key, value in node.items():
        if str(key).startswith("_") or (not prefix and key == "defaults"):
            continue
        inner = leaves(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
        found |= inner
    return found


@pytest.mark.parametrize("choice", every_choice(), ids=lambda choice: f"{choice.group}={choice.name}")
def test_keys_and_defaults_are_those_omegaconf_reads(choice):
    plain = OmegaConf.to_container(OmegaConf.load(choice.path), resolve=False)
    read = {key.name: key.default for key in choice.keys("") if key.default}
    expected = leaves(plain)
    assert list(read) == list(expected)
    for name, text in read.items():
        assert OmegaConf.to_container(OmegaConf.create(f"x: {text}"), resolve=False)["x"] == expected[name], name


@pytest.mark.parametrize("choice", every_choice(), ids=lambda choice: f"{choice.group}={choice.name}")
def test_every_choice_says_what_it_is(choice):
    assert choice.description


@pytest.mark.parametrize(
    ("head", "description", "source"),
    [
        ("Weight decay (Hutter 2019, arXiv:1711.0).", "Weight decay", "Hutter 2019, arXiv:1711.0"),
        ("Smoothing (arXiv:1) and focus (doi:2). More.", "Smoothing and focus", "arXiv:1; doi:2"),
        ("He et al. 2015, sec. 4.2, e.g. ReLU. Second sentence.", "He et al. 2015, sec. 4.2, e.g. ReLU", ""),
        ("99.4 % (5 seeds) in 40 s.\n# Then more.", "99.4 % (5 seeds) in 40 s", ""),
        ("One sentence that\n# goes on. Another.", "One sentence that goes on", ""),
        ("dlrun train experiment=x\n# What it reaches.", "What it reaches", ""),
        ("@package _global_\n# A recipe.", "A recipe", ""),
    ],
)  # fmt: skip
def test_the_head_gives_description_and_source(head, description, source, tmp_path):
    choice = write(tmp_path, "loss/mine", f"# {head}\n_target_: a.b\n# not the head: later.\nx: 1\n")
    assert (choice.description, choice.source, choice.target) == (description, source, "a.b")


def test_comments_belong_to_their_keys(tmp_path):
    choice = write(
        tmp_path,
        "model/mine",
        """# The head is nobody's comment.
first: 1
_target_: a.b
text: "a # b"       # beside
# above, in
# two lines
list: [1, 2]
after: 1e-3         # begins here
                    # goes on further in
next: null
block:
  - a
  - b
clip:               # of the group
  norm: ${.max}     # nested
  max: {a: 1}
empty: {}           # nothing in it
""",
    )
    assert list(choice.keys("model.")) == [
        Key("model.first", "1", ""),
        Key("model.text", '"a # b"', "beside"),
        Key("model.list", "[1, 2]", "above, in two lines"),
        Key("model.after", "1e-3", "begins here"),
        Key("model.next", "null", ""),
        Key("model.block", "[a, b]", ""),
        Key("model.clip", "", "of the group"),
        Key("model.clip.norm", "${.max}", "nested"),
        Key("model.clip.max.a", "1", ""),
        Key("model.empty", "{}", "nothing in it"),
    ]


def test_a_broken_file_is_named_with_its_line(tmp_path):
    choice = write(tmp_path, "model/mine", "a: 1\nb: [1, 2\nc: 3\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml:3: not valid YAML: "):
        list(choice.keys(""))
    assert choice.description == ""


def test_a_file_that_is_no_mapping_has_no_keys(tmp_path):
    assert list(write(tmp_path, "model/mine", "- a\n").keys("")) == []
    assert list(write(tmp_path, "model/none", "# Nothing.\n").keys("")) == []


def test_defaults_are_those_of_train_yaml():
    expected = {}
    for entry in OmegaConf.to_container(OmegaConf.load(CONF / "train.yaml"), resolve=False)["defaults"]:
        if isinstance(entry, dict):
            expected |= {key: value for key, value in entry.items() if "hydra" not in key}
    catalog = Catalog()
    assert catalog.default_choices == expected
    assert [group for group in catalog.groups if group in expected] == [g for g in expected if g in catalog.groups]


def test_a_folder_of_ones_own_adds_choices_and_groups(tmp_path):
    write(tmp_path, "model/mine", "# Mine.\n_target_: a.b\n")
    write(tmp_path, "model/deep/er", "# Deeper.\n_target_: a.b\n")
    write(tmp_path, "model/_base", "x: 1\n")
    write(tmp_path, "model/cnn", "# A second cnn.\n_target_: a.b\n")
    write(tmp_path, "zoo/animal", "x: 1\n")
    (tmp_path / "empty").mkdir()
    catalog = Catalog(tmp_path)
    names = [choice.name for choice in catalog.choices("model")]
    assert {"mine", "deep/er", "cnn"} <= set(names)
    assert "_base" not in names
    assert catalog.groups[-1] == "zoo"
    assert "empty" not in catalog.groups
    # Hydra takes the first on its search path, and dlrun's conf/ comes first.
    assert catalog.choice("model", "cnn").path == CONF / "model" / "cnn.yaml"


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UsageError, match="--config-dir: there is no folder"):
        Catalog(tmp_path / "nowhere")


def test_inherited_and_common_keys_follow_own_ones(tmp_path):
    write(tmp_path, "zoo/_common", "legs: 4 # of most\nname: null\n")
    write(tmp_path, "zoo/animal", "legs: 6\nweight: 1\n")
    write(tmp_path, "zoo/dog", "defaults:\n  - animal\n  - _self_\nweight: 20\nbreed: x\n")
    keys = Catalog(tmp_path).keys("zoo", "dog")
    assert keys == [Key("zoo.weight", "20"), Key("zoo.breed", "x"), Key("zoo.legs", "6"), Key("zoo.name", "null")]
    assert Catalog(tmp_path).keys("zoo", None) == [Key("zoo.legs", "4", "of most"), Key("zoo.name", "null")]


def test_what_is_selected_follows_experiment_then_the_line(tmp_path):
    write(
        tmp_path,
        "experiment/recipe",
        "# @package _global_\n# A recipe.\ndefaults:\n  - override /model: cnn\n  - override /data: iris\nseed: 3\n",
    )
    catalog = Catalog(tmp_path)
    assert catalog.selected([])["model"] == "mlp"
    assert catalog.selected(["model=lenet5,cnn", "optimizer.lr=1"])["model"] == "lenet5"
    chosen = catalog.selected(["experiment=recipe", "data=wine"])
    assert (chosen["model"], chosen["data"]) == ("cnn", "wine")
    assert catalog.keys("experiment", "recipe") == [Key("seed", "3")]


def test_settings_of_no_group_are_found():
    names = [key.name for key in Catalog().top_keys()]
    assert names == ["name", "seed"]


def test_text_is_wrapped_and_loses_no_word():
    catalog = Catalog()
    text = groups_text(catalog, 60)
    assert max(map(len, text.splitlines())) <= 60
    words = set(text.replace("*", "").split())
    assert {choice.name for group in catalog.groups for choice in catalog.choices(group)} <= words
    assert "mlp*" in text.split()


def test_settings_are_words_that_can_be_typed():
    keys = [
        Key("optimizer.betas", "[0.9, 0.999]", "of both averages"),
        Key("a" * 60, "1", "long"),
        Key("clip", "", "x"),
    ]
    lines = keys_text(keys, 80).splitlines()
    assert lines[0].split(maxsplit=1) == ["optimizer.betas=[0.9,0.999]", "of both averages"]
    assert lines[1].strip() == "a" * 60 + "=1"
    assert lines[2].strip() == "long"
    assert lines[3].split() == ["clip", "x"]
