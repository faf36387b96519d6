"""`dlrun list`: what can be chosen and what can be set, without loading torch or Hydra."""

import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence

from dlrun.commands.offers import folder_typed, positional
from dlrun.commands.words import config_folder
from dlrun.config.catalog import Catalog, groups_text, keys_text
from dlrun.config.choice import Choice
from dlrun.errors import UsageError, did_you_mean, one_of

HELP = """dlrun list                            every group and its choices; a star marks the default
dlrun list model                      the choices of one group: what they are, where they are from
dlrun list model cnn                  the settings of one choice with their defaults (also: model=cnn)
dlrun list --config-dir mine model    your own choices too

dlrun list [--config-dir FOLDER] [GROUP [CHOICE]]"""

COMMON = {"data": "data set", "scheduler": "schedule"}  # what one of a group is called, where not as the group
UNLIMITED = 10_000  # characters; a line per choice for grep and other programs

FLAGS = ("--config-dir",)


def run(arguments: list[str]) -> int:
    """Print groups, the choices of a group, or the settings of a choice.

    Raises: UsageError for an unknown group, choice or option.
    """
    others, config_dir = config_folder(arguments, "list")
    words = _words(others)
    catalog = Catalog(config_dir)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else UNLIMITED
    if not words:
        print("What can be chosen (* by default), as in `dlrun train model=cnn`:\n")
        print(groups_text(catalog, width))
        print("\nMore: dlrun list GROUP, dlrun list GROUP CHOICE.")
        return 0
    group = _known_group(catalog, words[0])
    choices = catalog.choices(group)
    if len(words) == 2:
        print(_one(catalog, _known_choice(choices, group, words[1]), width))
    elif len(choices) == 1:
        print(_one(catalog, choices[0], width))
    else:
        print(_table(catalog, group, choices, width))
    return 0


def offer(typed: Sequence[str], current: str) -> Iterator[str]:
    """What may come next, at a tab."""
    catalog, words = Catalog(folder_typed(typed)), positional(typed)
    if not words:
        yield from catalog.groups
    elif len(words) == 1:
        yield from (choice.name for choice in catalog.choices(words[0]))


def _words(arguments: list[str]) -> list[str]:
    """Group and choice. Raises: UsageError."""
    words: list[str] = []
    for word in arguments:
        if word.startswith("-"):
            near = did_you_mean(word.partition("=")[0], ["--config-dir", "--help"])
            raise UsageError(f"unknown option '{word}'.{near}")
        words += [part for part in word.split("=", 1) if part]
    if len(words) > 2:
        raise UsageError(f"dlrun list takes a group and a choice, got {len(words)} words: {' '.join(words)}.")
    return words


def _known_group(catalog: Catalog, word: str) -> str:
    if word in catalog.groups:
        return word
    for group in catalog.groups:
        if any(choice.name == word for choice in catalog.choices(group)):
            raise UsageError(f"'{word}' is not a group but a choice of {group}: dlrun list {group} {word}.")
    near = did_you_mean(word, catalog.groups)
    raise UsageError(f"there is no group '{word}': must be one of {', '.join(catalog.groups)}.{near}")


def _known_choice(choices: list[Choice], group: str, word: str) -> Choice:
    for choice in choices:
        if choice.name == word:
            return choice
    names = [choice.name for choice in choices]
    raise UsageError(f"{group}={word}: must be {one_of(names, group)}.{did_you_mean(word, names)}")


def _one(catalog: Catalog, choice: Choice, width: int) -> str:
    """What a choice is, what is behind it, and every setting."""
    title = f"{choice.group}={choice.name}: {choice.head}." if choice.head else f"{choice.group}={choice.name}"
    about = [textwrap.fill(title, width), f"  {choice.path}"]
    if choice.target:
        about[1] += f" -> {choice.target}"
    all_keys = catalog.keys(choice.group, choice.name)
    common = {key.name for key in catalog.keys(choice.group, None)} - {
        key.name for key in choice.keys(f"{choice.group}.")
    }
    own = [key for key in all_keys if key.name not in common]
    sections = ["\n".join(about), keys_text(own, width) if own else "  Nothing to set."]
    if common:
        shared = keys_text([key for key in all_keys if key.name in common], width)
        sections.append(f"Common to every {COMMON.get(choice.group, choice.group)}:\n{shared}")
    return "\n\n".join(sections)


def _table(catalog: Catalog, group: str, choices: list[Choice], width: int) -> str:
    """Name, description and source of every choice, in columns."""
    default = catalog.default_choices.get(group)
    rows = [("  NAME", "DESCRIPTION", "SOURCE")]
    for choice in choices:
        own = "" if choice.path.is_relative_to(catalog.folders[0]) else str(choice.path)
        rows.append(
            (f"{'*' if choice.name == default else ' '} {choice.name}", choice.description, choice.source or own)
        )
    name = max(len(row[0]) for row in rows) + 2
    # A word is never cut (a DOI in two halves cannot be copied), so the column is as wide as the longest at least.
    narrowest = max(len(word) for row in rows for word in row[2].split(" "))
    source = min(max(len(row[2]) for row in rows), max((width - name) * 2 // 5, narrowest))
    description = max(min(max(len(row[1]) for row in rows), width - name - 2 - source), 16)
    lines = []
    for row in rows:
        left = textwrap.wrap(row[1], description) or [""]
        right = textwrap.wrap(row[2], source, break_on_hyphens=False) or [""]
        for i in range(max(len(left), len(right))):
            cells = (row[0] if i == 0 else "", left[i] if i < len(left) else "", right[i] if i < len(right) else "")
            lines.append(f"{cells[0]:<{name}}{cells[1]:<{description}}  {cells[2]}".rstrip())
    lines.append(f"\nSettings of one: dlrun list {group} {choices[0].name}")
    return "\n".join(lines)
