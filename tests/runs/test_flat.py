"""config.yaml by dotted keys: what OmegaConf reads, flattened."""

import re

import pytest
import yaml
from omegaconf import OmegaConf

from dlrun.config.compose import compose
from dlrun.runs.flat import flatten, frozen, parse_value, read_flat

TEXTS = [
    "a: 1\nb:\n  c: 1.0e-08\n  d: 1e-3\n  e: 'yes'\n  f: 2026-11-26\nlist:\n- 1\n- x: [2]\nempty: {}\nnone: null\n",
    "a: a text that is so long that it\n  goes on\nb: 'quoted: text\n\n  of two lines'\n# c: 3\nd: |\n  a: 1\n\n  b: 2",
    "on: 1\n'2': 3\nbase: &one\n  x: 1\nagain: *one\n",  # an alias reaches over pieces
    "{a: 1,\nb: 2}\n",
    "- no\n- mapping\n",
    "a: [1\n",
    "",
]


def by_omegaconf(text: str) -> dict[str, object]:
    return dict(flatten(OmegaConf.to_container(OmegaConf.create(text))))


@pytest.mark.parametrize("text", TEXTS[:4], ids=range(4))
def test_as_omegaconf_reads_it(text: str):
    assert repr(read_flat(text)) == repr(by_omegaconf(text))


@pytest.mark.parametrize("text", TEXTS[4:], ids=range(3))
def test_what_is_no_mapping_is_refused(text: str):
    with pytest.raises((ValueError, yaml.YAMLError)):
        read_flat(text)


@pytest.mark.parametrize("words", [[], ["data=mnist", "model=cnn", "optimizer=muon", "augment=[crop_flip,cutmix]"]])
def test_a_whole_configuration(words: list[str]):
    text = OmegaConf.to_yaml(OmegaConf.create(compose(words).config))
    assert read_flat(text) == by_omegaconf(text)
    changed = re.sub(r"^seed: 0", "seed: 7", text, flags=re.MULTILINE)
    assert set(read_flat(changed).items()) - set(read_flat(text).items()) == {("seed", 7)}


def test_values_as_typed():
    assert [parse_value(text) for text in ("1e-3", "[1, 2]", "null", "[", "relu")] == [1e-3, (1, 2), None, "[", "relu"]
    assert hash(frozen({"a": [1, {"b": 2}]}))
