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

    def changed() -> dict[str, entries.Entry]:
        glossary = read()
        entry = glossary["bias_correction"]
        claims = [dataclasses.replace(claim, recorded=Verdict.FAILS) for claim in entry.claims]
        return glossary | {"bias_correction": dataclasses.replace(entry, claims=claims)}

    monkeypatch.setattr(entries, "read_glossary", changed)
    again = dlrun("glossary", "run", "bias correction", "lang=en")
    assert again.code == 1
    assert "the entry records: " in (folder / "index.html").read_text()
