"""What can be chosen and what can be set, read from the YAML files of conf/ as they stand.

Neither Hydra nor torch is loaded, so that help, `dlrun list` and tab completion answer at once.
"""

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from dlrun.config.choice import Choice, Key
from dlrun.config.location import CONF, NOT_CHOICES
from dlrun.errors import UsageError


class Catalog:
    """All choices of all groups.

    Args:
        config_dir: a folder with further choices, as given to --config-dir.

    Raises: UsageError if the folder does not exist.
    """

    def __init__(self, config_dir: str | Path | None = None) -> None:
        self.folders = [CONF]
        if config_dir is not None:
            folder = Path(config_dir).expanduser()
            if not folder.is_dir():
                raise UsageError(f"--config-dir: there is no folder '{config_dir}'.")
            self.folders.append(folder)
        self.root = Choice("", "train", CONF / "train.yaml")

    @cached_property
    def default_choices(self) -> dict[str, str | None]:
        """What train.yaml chooses in each group, in its order; None where it chooses nothing."""
        return dict(_choices_in(self.root.defaults))

    @cached_property
    def groups(self) -> list[str]:
        """Every group: first those of train.yaml in its order, then others."""
        found = {path.name for folder in self.folders for path in folder.iterdir() if self._names(folder, path.name)}
        ordered = [group for group in self.default_choices if group in found]
        return ordered + sorted(found - {*ordered, *NOT_CHOICES})

    def choices(self, group: str) -> list[Choice]:
        """The choices of one group, by name; dlrun's own come first where a name is taken twice, as in Hydra."""
        found: dict[str, Choice] = {}
        for folder in self.folders:
            for name in self._names(folder, group):
                found.setdefault(name, Choice(group, name, folder / group / f"{name}.yaml"))
        return [found[name] for name in sorted(found)]

    def choice(self, group: str, name: str) -> Choice | None:
        """One choice, files that begin with an underscore included; None if there is none."""
        paths = (folder / group / f"{name}.yaml" for folder in self.folders)
        return next((Choice(group, name, path) for path in paths if path.is_file()), None)

    def keys(self, group: str, name: str | None) -> list[Key]:
        """The settings of a choice: its own, what it inherits, then those common to its group.

        Args:
            group, name: the choice; without a name only what is common to the group.
        """
        found: dict[str, Key] = {}
        for choice in [*(self._lineage(group, name) if name else ()), self.choice(group, "_common")]:
            if choice is not None:
                for key in choice.keys("" if choice.is_global else f"{group}."):
                    found.setdefault(key.name, key)
        return list(found.values())

    def top_keys(self) -> list[Key]:
        """The settings that belong to no group, such as `seed`."""
        return list(self.root.keys(""))

    def selected(self, overrides: Sequence[str]) -> dict[str, str | None]:
        """The choice in each group once `overrides` are applied; an experiment's choices count too."""
        pairs = (word.partition("=") for word in overrides)
        # The first choice of a sweep stands for all.
        typed = {group: value.split(",")[0] for group, _, value in pairs if group in self.groups}
        experiment = self.choice("experiment", typed.get("experiment") or self.default_choices.get("experiment") or "")
        recipe = dict(_choices_in(experiment.defaults)) if experiment else {}
        return {**self.default_choices, **recipe, **typed}

    def _lineage(self, group: str, name: str) -> Iterator[Choice]:
        """A choice and those of the same group that its defaults list builds on, nearest first."""
        choice = self.choice(group, name)
        if choice is None:
            return
        yield choice
        for entry in choice.defaults:
            if isinstance(entry, str) and entry != "_self_":
                parent = entry.removeprefix(f"/{group}/").split("@")[0]
                if parent != name:
                    yield from self._lineage(group, parent)

    @staticmethod
    def _names(folder: Path, group: str) -> list[str]:
        """Choices a folder offers in a group, `sub/name` for those in its subfolders."""
        base = folder / group
        files = (path.relative_to(base).with_suffix("") for path in base.rglob("*.yaml"))
        return sorted(file.as_posix() for file in files if not any(part.startswith("_") for part in file.parts))


def _choices_in(defaults: list[Any]) -> Iterator[tuple[str, str | None]]:
    """The (group, choice) pairs of a Hydra defaults list, of dlrun's groups only."""
    for entry in defaults:
        if isinstance(entry, dict):
            for key, value in entry.items():
                group = str(key).removeprefix("override ").strip().lstrip("/").split("@")[0]
                if not group.startswith("hydra/"):
                    yield group, value


def groups_text(catalog: Catalog, width: int = 100) -> str:
    """Every group with its choices, the default one starred, wrapped at `width` characters."""
    margin = max(map(len, catalog.groups)) + 4
    lines = []
    for group in catalog.groups:
        names = [choice.name for choice in catalog.choices(group)]
        starred = [f"{name}*" if name == catalog.default_choices.get(group) else name for name in names]
        lines.append(_fill(f"  {group}", margin, "  ".join(starred), width))
    return "\n".join(lines)


def keys_text(keys: Iterable[Key], width: int = 100) -> str:
    """Settings with their defaults, ready to be typed, and their comments, wrapped at `width` characters."""
    # A list is written without blanks: as an argument in a shell it is one word.
    settings = [(f"{key.name}={key.default}" if key.default else key.name, key.comment) for key in keys]
    rows = [(f"  {setting.replace(', ', ',')}", comment) for setting, comment in settings]
    margin = min(max((len(setting) for setting, _ in rows), default=0), 44) + 2
    return "\n".join(_fill(setting, margin, comment, width) for setting, comment in rows)


def _fill(label: str, margin: int, text: str, width: int) -> str:
    """`text` in a column that begins at `margin`, `label` before it; on a line of its own where it is longer."""
    body = textwrap.wrap(text, max(width - margin, 20), break_long_words=False, break_on_hyphens=False)
    if not body:
        return label
    first = [f"{label:<{margin}}{body[0]}"] if len(label) < margin else [label, " " * margin + body[0]]
    return "\n".join(first + [" " * margin + line for line in body[1:]])
