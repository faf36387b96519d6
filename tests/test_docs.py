"""What the tables of docs/techniques.md and docs/tasks.md say can be typed, can be; what pages link to is there."""

import re
import shlex
from pathlib import Path

import pytest

from dlrun.config.compose import compose

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "techniques.md").read_text()
EXAMPLES = re.findall(r"^\| (`\w+=[^|]*)\|", (DOCS / "tasks.md").read_text(), re.MULTILINE)  # the table headed `data.`
ROWS = [row.split("|")[2] for row in PAGE.splitlines() if row.startswith("| ") and "| how |" not in row]


def commands(cell: str) -> list[list[str]]:
    """The code spans of a cell that set something; `.key=value` goes on from the group of the span before it."""
    found: list[list[str]] = []
    group = ""
    for span in re.findall(r"`([^`]+)`", cell):
        words = [group + word if word.startswith(".") else word for word in shlex.split(span)]
        if all("=" in word for word in words):
            found.append(words)
            group = words[0].partition("=")[0].rpartition(".")[0]
    return found


CELLS = [words for cell in ROWS for words in commands(cell)]


def test_there_are_cells():
    assert len(CELLS) > 30


@pytest.mark.parametrize("words", CELLS, ids=" ".join)
def test_every_technique_is_a_setting(words: list[str]):
    context = [] if any(word.startswith("model=") for word in words) else context_of(words)
    compose([*context, *[word.replace("=FOLDER", "=runs/one") for word in words]])


def context_of(words: list[str]) -> list[str]:
    """The choice that has the keys set, where the page has named it in the same row."""
    key = words[0].partition("=")[0]
    if key == "model.variational":
        return ["model=lstm"]
    if key.startswith("loss."):
        return ["loss=cross_entropy"]
    return []


@pytest.mark.parametrize("words", [words for cell in EXAMPLES for words in commands(cell)], ids=" ".join)
def test_every_key_of_the_data_is_a_setting(words: list[str]):
    compose([f"data.{word}" for word in words])


@pytest.mark.parametrize("page", sorted(DOCS.glob("**/*.md")), ids=lambda page: page.name)
def test_what_a_page_links_to_is_there(page: Path):
    names = re.findall(r"\]\((?!http)([^)#\s]+)", page.read_text())
    assert [name for name in names if not (page.parent / name).is_file()] == []
