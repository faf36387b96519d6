"""dlrun glossary: what is printed and written, and the exit code when a verdict is another than before."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dlrun.glossary import entry as entries
from dlrun.glossary.claims import Verdict

from .conftest import Answer


def test_list_and_show_tell_terms_verdicts_and_definitions(dlrun: Callable[..., Answer]):
    listed = dlrun("glossary", "lang=en")
    assert listed.code == 0
    assert all(name in listed.out for name in entries.read_glossary())
    shown = dlrun("glossary", "show", "recorte", "de", "gradiente", "lang=es")
    assert shown.code == 0
    assert "se cumple" in shown.out
    assert "trainer.clip.norm=1.0" in shown.out
    assert not shown.changes


def test_run_prints_writes_and_ends_with_1_if_a_verdict_is_another(
    dlrun: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    measured = dlrun("glossary", "run", "Bias-Correction", "lang=en")
    assert measured.code == 0, measured
    folder = tmp_path / "outputs" / "glossary"
    result = json.loads((folder / "bias_correction" / "result.json").read_text())
    assert {claim["verdict"] for claim in result["claims"]} == {"holds"}
    assert (folder / "bias_correction" / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert "data:image/png" in (folder / "index.html").read_text()
    read = entries.read_glossary

    def changed(config_dir: str | None) -> dict[str, entries.Entry]:
        glossary = read(config_dir)
        entry = glossary["bias_correction"]
        claims = [dataclasses.replace(claim, recorded=Verdict.FAILS) for claim in entry.claims]
        return glossary | {"bias_correction": dataclasses.replace(entry, claims=claims)}

    monkeypatch.setattr(entries, "read_glossary", changed)
    again = dlrun("glossary", "run", "bias correction", "lang=en")
    assert again.code == 1
    assert "the entry records: " in (folder / "index.html").read_text()


MINE = """
term: Doubling
line: {en: twice as much, es: el doble}
definition: {en: twice as much, es: el doble}
formula: y = 2x
words: [dlrun train model=wide]
measure: doubling.measure
runs: {seeds: 1, common: [model=wide, data=moons, data.samples=80, trainer.epochs=1], arms: {one: []}}
claims:
  - id: twice
    line: 1
    says: {en: twice, es: doble}
    shows: {en: "{ratio}", es: "{ratio}"}
    holds_if: {ratio: "2 ± 0"}
    verdict: holds
"""
MEASURE = """
from dlrun.glossary.figures import panels
from dlrun.glossary.measure import Measured


def measure(runs):
    assert runs["one"][0].config["model"]["widths"] == [5]
    return Measured({"ratio": 2.0}, panels("Doubling", 1)[0])
"""


def test_a_term_of_ones_own_is_shown_and_measured(dlrun: Callable[..., Answer], tmp_path: Path):
    mine = tmp_path / "mine"
    for name, text in {
        "glossary/doubling.yaml": MINE,
        "doubling.py": MEASURE,
        "model/wide.yaml": "defaults: [mlp]\nwidths: [5]\n",
    }.items():
        (mine / name).parent.mkdir(parents=True, exist_ok=True)
        (mine / name).write_text(text)
    assert "Doubling" in dlrun("glossary", "show", "doubling", "--config-dir", "mine", "lang=en").out
    measured = dlrun("glossary", "--config-dir", "mine", "run", "doubling", "lang=en")
    assert measured.code == 0, measured
    assert "holds" in measured.out
    dlrun("glossary", "show", "doubling").must_refuse("the glossary has no term 'doubling'")
    dlrun("glossary", "--config-dir").must_refuse("--config-dir needs a folder: dlrun glossary --config-dir FOLDER")
    dlrun("reproduce", "--config-dir", "nope").must_refuse("--config-dir nope: there is no such folder")
