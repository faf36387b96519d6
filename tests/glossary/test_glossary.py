"""The entries of conf/glossary: what they tell to type is right, all terms are there, and docs/glossary is in step."""

import importlib
import inspect
import re
import shlex
from pathlib import Path

import pytest

from dlrun.config.catalog import Catalog
from dlrun.config.compose import compose
from dlrun.glossary import docs
from dlrun.glossary.claims import placeholders
from dlrun.glossary.entry import find_entry, read_glossary
from dlrun.glossary.page import page
from dlrun.glossary.reading import LANGUAGES

GLOSSARY, CATALOG = read_glossary(), Catalog()
PAGES = Path(__file__).parent.parent.parent / "docs" / "glossary"
TERMS = """Adam, AdamW, Batch Size, Bias Correction, Callback, Checkpoint, Cosine Annealing, Early Stopping,
Exploding Gradients, Glorot Initialization, Gradient Clipping, He Initialization, Learning Rate, Learning Rate Schedule,
L2 Regularization, Momentum, Model State Dict, OneCycleLR, Optimizer State Dict, Patience, ReduceLROnPlateau, SGD,
StepLR, Vanishing Gradients, Warmup, Weight Decay, Xavier Initialization, Update Rules, Inicialización"""


def test_every_term_of_the_source_has_an_entry():
    found = [find_entry(term, GLOSSARY).name for term in re.split(r",\s+", TERMS)]
    assert len(found) == len(set(found)) + 1  # Glorot is Xavier


@pytest.mark.parametrize("name", GLOSSARY)
def test_what_an_entry_tells_to_type_is_right_and_its_measurement_is_there(name: str):
    entry = GLOSSARY[name]
    for line in entry.words:
        command, *words = shlex.split(line.removeprefix("dlrun "))
        if command not in ("train", "plan") or any("my_module" in word or "RUN" in word for word in words):
            continue
        if not all(CATALOG.choice(*word.split("=", 1)) for word in words):  # Hydra takes its time
            compose(words)
    module, _, function = entry.measure.rpartition(".")
    parameters = inspect.signature(getattr(importlib.import_module(module), function)).parameters
    assert ("runs" in parameters) == (entry.runs is not None)


def test_the_pages_are_in_step_with_the_entries():
    """`dlrun glossary run all`, then `python -m dlrun.glossary.docs`, where this fails."""
    records = docs.known_records(GLOSSARY, PAGES)
    for lang in LANGUAGES:
        assert (PAGES / f"{lang}.md").read_text(encoding="utf-8") == docs.page(GLOSSARY, records, lang)
    assert [name for name, record in records.items() if not record.agrees] == []


def test_every_picture_is_there_and_small():
    sizes = {path.stem: path.stat().st_size for path in (PAGES / "pictures").glob("*.png")}
    assert sizes.keys() == GLOSSARY.keys()
    assert max(sizes.values()) < 60_000


def test_every_number_that_is_shown_or_wanted_has_been_measured():
    records = docs.known_records(GLOSSARY, PAGES)
    for name, entry in GLOSSARY.items():
        for claim in entry.claims:
            assert {*placeholders(claim.shows["en"]), *(c.name for c in claim.conditions)} <= records[
                name
            ].numbers.keys()


def test_the_index_is_one_file_that_fetches_nothing(tmp_path: Path):
    records = docs.known_records(GLOSSARY, PAGES)
    some = {name: records[name] for name in ("adam", "he")}
    for name in some:
        (tmp_path / name).mkdir()
        (tmp_path / name / "plot.png").write_bytes(b"\x89PNG")
    html = page(GLOSSARY, some, "es", tmp_path)
    assert not re.search(r"""(src|href)=["']?(http|//|file)""", html)
    assert html.count("data:image/png;base64,iVBORw") == 2
    assert "dlrun glossary run momentum" in html
    assert html.count("<section") == html.count("</section>") == len(GLOSSARY)
