"""Terms are measured in processes; one that dies takes no other term with it."""

import dataclasses
import os
import time
from pathlib import Path

from dlrun.glossary.entry import Entry, read_glossary
from dlrun.glossary.runner import measure_all


def stub(entry: Entry, outputs: Path) -> str:
    if entry.name == "dies":
        os._exit(9)
    time.sleep(0.2)
    return f"{entry.name} in {outputs}"


def test_an_entry_whose_process_dies_is_told_and_the_others_are_measured():
    any_entry = next(iter(read_glossary().values()))
    entries = [dataclasses.replace(any_entry, name=name) for name in ("one", "dies", "two", "three")]
    found = {entry.name: outcome for entry, outcome in measure_all(entries, Path("out"), 2, stub)}
    assert found.pop("dies") == "its process was killed, perhaps for want of memory"
    assert found == {name: f"{name} in out" for name in ("one", "two", "three")}
