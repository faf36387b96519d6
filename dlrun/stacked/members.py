"""The runs of a stack: each an ordinary session, on data that they share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from dlrun import assembly, build
from dlrun.assembly import Assembly
from dlrun.config import schema
from dlrun.config.compose import Composed
from dlrun.config.identity import canonical
from dlrun.contracts import Arrays, Augment, Splits
from dlrun.engine.loaders import Loader, ResidentLoader
from dlrun.engine.order import make_order
from dlrun.engine.step import Schedule
from dlrun.engine.training import Training
from dlrun.runs.console import Console
from dlrun.runs.directory import RunDirectory
from dlrun.session import Session


@dataclass(eq=False)
class Member:
    """One run of a stack.

    Attributes:
        open: what is to be closed when the run ends: its files, its lock, its log.
        error: what it has failed with.
        finish: what is left to do once its curves are drawn.
    """

    session: Session
    open: ExitStack = field(default_factory=ExitStack)
    error: Exception | None = None
    finish: Callable[[], None] = lambda: None
    evaluator: Any = None

    @property
    def training(self) -> Training:
        return self.session.training

    @property
    def has_ended(self) -> bool:
        t = self.training
        return self.error is not None or t.status != "running" or t.step >= t.total_steps


class Logs:
    """Whose turn it is: what is said meanwhile goes to the log of that run alone."""

    def __init__(self) -> None:
        self.speaker: Member | None = None

    def attach(self, handler: logging.Handler, member: Member) -> None:
        """Let a handler write what is said while it is this member's turn."""
        handler.addFilter(lambda record: self.speaker is member)


def make_members(
    composed: Sequence[Composed], consoles: Sequence[Console], check: Callable[[Assembly], None] | None = None
) -> list[Member]:
    """Everything that the runs need, in the order given; nothing is written.

    Args:
        check: told of the first, before the others are made; may raise.

    Raises: DlrunError if something of one of them does not fit.
    """
    data = SharedData()
    members: list[Member] = []
    for item, console in zip(composed, consoles, strict=True):
        a = assembly.assemble(item.config, splits=data.splits(item.config))
        if check is not None and not members:
            check(a)
        a.loader = data.loader
        session = Session(a, RunDirectory(item.run_dir), data.fingerprint(a), console)
        members.append(Member(session))
    return members


def share_schedules(members: Sequence[Member]) -> None:
    """Let runs whose learning rates go the same way have one schedule, to be advanced once for all."""
    known: dict[str, Schedule] = {}
    for member in members:
        step, config = member.training.train_step, member.session.a.config
        course = {key: config.get(key) for key in ("optimizer", "scheduler")}
        # One that cycles momentum writes it into the optimizer it was made for, so each needs its own.
        if getattr(step.schedule, "interval", "metric") != "metric" and not step.schedule.cycles_momentum:
            step.schedule = known.setdefault(canonical(course), step.schedule)


class SharedData:
    """One copy of the data for all runs, whose labels may differ by noise; and one of the inputs made ready."""

    def __init__(self) -> None:
        self._splits: dict[Any, Splits] = {}
        self._fingerprints: dict[Any, str] = {}
        self._loader: ResidentLoader | None = None

    def splits(self, config: Mapping[str, Any]) -> Splits:
        """The splits of a run."""
        noise = config["data"].get("label_noise", 0.0)
        if noise not in self._splits:
            made = build.build_data(config)
            first = next(iter(self._splits.values()), made)
            self._splits[noise] = made if made is first else _with_inputs_of(first, made)
        return self._splits[noise]

    def fingerprint(self, a: Assembly) -> str:
        """Of the data of a run."""
        noise = a.config["data"].get("label_noise", 0.0)
        if noise not in self._fingerprints:
            self._fingerprints[noise] = assembly.data_fingerprint(a)
        return self._fingerprints[noise]

    def loader(self, a: Assembly, data: schema.Data, augment: Sequence[Augment]) -> Loader:
        """The loader of a run: its own order and labels over inputs that were normalised once for all."""
        first = self._loader
        if first is None or augment or data.alternating_flip or not isinstance(a.splits.train, Arrays):
            made = assembly.build_loader(a, data, augment)
            self._loader = made if isinstance(made, ResidentLoader) else None
            return made
        assert isinstance(first.examples, Arrays)
        loader = copy(first)
        loader.examples = Arrays(first.examples.inputs, a.splits.train.targets.to(a.device))
        if torch.equal(loader.examples.targets, first.examples.targets):
            loader.examples = first.examples
        loader.order = make_order(
            data.order, a.splits.train, first.batch_size, a.config["seed"], data.curriculum_epochs
        )
        return loader


def _with_inputs_of(first: Splits, other: Splits) -> Splits:
    """`other` with the very tensors of `first` where they are equal."""

    def shared(one: Any, two: Any) -> Any:
        if not (isinstance(one, Arrays) and isinstance(two, Arrays) and torch.equal(one.inputs, two.inputs)):
            return two
        return one if torch.equal(one.targets, two.targets) else Arrays(one.inputs, two.targets)

    return replace(
        other,
        train=shared(first.train, other.train),
        val=shared(first.val, other.val),
        test=shared(first.test, other.test),
    )
