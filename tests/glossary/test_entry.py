"""Reading entries: what is refused, and how a term is found."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from dlrun.errors import ConfigError, UsageError
from dlrun.glossary.entry import find_entry, read_entry, read_glossary

BOTH = {"en": "text {x}", "es": "texto {x}"}
GOOD: dict[str, Any] = {
    "term": "Term",
    "line": BOTH,
    "definition": BOTH,
    "formula": "x",
    "words": ["dlrun train"],
    "measure": "a.b",
    "claims": [{"id": "one", "line": 3, "says": BOTH, "shows": BOTH, "holds_if": {"x": "<= 1"}, "verdict": "holds"}],
}


def read(content: Any, folder: Path) -> Any:
    path = folder / "term.yaml"
    path.write_text(yaml.safe_dump(content, allow_unicode=True))
    return read_entry(path)


def test_an_entry_is_read(tmp_path: Path):
    entry = read(GOOD, tmp_path)
    assert (entry.name, entry.term, entry.claims[0].holds_if[0].high, entry.runs) == ("term", "Term", 1, None)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("term", 3, "term.yaml: term must be a text, in quotes .*, got 3"),
        ("term", None, "term must be a text"),
        ("trem", "x", "term.yaml has no key 'trem'.*Did you mean 'term'"),
        ("line", {"en": "only"}, "line must be a text in each of en and es"),
        ("words", "dlrun train", "words must be a list of texts"),
        ("claims", [], "claims must be a list of 1 or more"),
        ("claims.0.line", 0, "line must be a whole number >= 1, got 0"),
        ("claims.0.line", True, "line must be a whole number"),
        ("claims.0.verdict", "true", "verdict must be one of holds, .*got 'true'"),
        ("claims.0.verdict", "holds with a correction", "needs correction and corrected_if"),
        ("claims.0.correction", BOTH, "corrected_if and correction come together"),
        ("claims.0.holds_if", {}, "holds_if must be a mapping"),
        ("claims.0.holds_if", {"x": "small"}, "the condition on x must be"),
        ("claims.0.shows", {"en": "{x}", "es": "{y}"}, "shows must show the same numbers"),
        ("claims.0.hold_if", {"x": "< 1"}, r"claims\[0\] has no key 'hold_if'"),
        ("runs", {"arms": {"a": ["data=iris"]}}, "seeds must be a whole number"),
        ("runs", {"arms": {"a": "data=iris"}, "seeds": 1}, "runs.arms: a must be a list of texts"),
        (
            "hyperparameters",
            [{"name": "lr", "typical": 0.1}],
            r"hyperparameters\[0\]: typical must be a text, in quotes",
        ),
    ],
)
def test_a_mistake_is_one_sentence_that_names_its_place(path: str, value: Any, message: str, tmp_path: Path):
    content: Any = copy.deepcopy(GOOD)
    *before, last = path.split(".")
    node = content
    for key in before:
        node = node[int(key) if key.isdigit() else key]
    node[last] = value
    with pytest.raises(ConfigError, match=message):
        read(content, tmp_path)


def test_two_claims_of_one_id_and_an_unreadable_file_are_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"ids of the claims must differ, got one, one"):
        read({**GOOD, "claims": GOOD["claims"] * 2}, tmp_path)
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match=r"glossary/bad.yaml cannot be read"):
        read_entry(tmp_path / "bad.yaml")
    (tmp_path / "bad.yaml").unlink()


def test_entries_of_ones_own_are_read_beside_dlruns(tmp_path: Path):
    own = tmp_path / "glossary"
    own.mkdir()
    read({**GOOD, "related": ["adam"]}, own)
    both = read_glossary(str(tmp_path))
    assert set(both) == {*read_glossary(), "term"}
    assert (both["term"].config_dir, both["adam"].config_dir) == (str(tmp_path.resolve()), None)
    read({**GOOD, "related": ["trem"]}, own)
    with pytest.raises(ConfigError, match=r"related names no entry 'trem'. Did you mean 'term'"):
        read_glossary(str(tmp_path))
    (own / "term.yaml").rename(own / "adam.yaml")
    with pytest.raises(ConfigError, match=r"dlrun has glossary/adam.yaml itself; call yours otherwise"):
        read_glossary(str(tmp_path))
    with pytest.raises(UsageError, match=r"--config-dir nowhere: there is no such folder"):
        read_glossary("nowhere")


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("xavier", "xavier"),
        ("Glorot", "xavier"),
        ("recorte de gradiente", "gradient_clipping"),
        ("RECORTE-DE-GRADIÉNTE", "gradient_clipping"),
        ("Learning-Rate", "learning_rate"),
        ("bola pesada", "momentum"),
        ("regularizacion L2", "l2"),
        ("ReduceOnPlateau", "reduce_on_plateau"),
    ],
)
def test_a_term_is_found_by_any_of_its_names(word: str, name: str):
    assert find_entry(word, read_glossary()).name == name


def test_a_term_that_is_not_there_names_the_nearest():
    with pytest.raises(UsageError, match=r"no term 'xavyer'.* Did you mean 'xavier'"):
        find_entry("xavyer", read_glossary())
    with pytest.raises(UsageError, match=r"no term 'quantum': `dlrun glossary` lists them.$"):
        find_entry("quantum", read_glossary())
