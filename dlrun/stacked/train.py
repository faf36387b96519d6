"""The door: several runs trained as one, each leaving an ordinary run directory."""

from __future__ import annotations

import shlex
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

from dlrun.config.compose import Composed
from dlrun.config.identity import run_id
from dlrun.engine.device import describe_device
from dlrun.engine.interrupt import Interrupt
from dlrun.engine.loaders import Draw, ResidentLoader
from dlrun.engine.loop import after_step, diverge, finish, logs_next, start, validate
from dlrun.engine.meter import DivergedError
from dlrun.errors import DlrunError, UsageError
from dlrun.experiment import FINISHED
from dlrun.runs.console import Console
from dlrun.runs.directory import RunDirectory
from dlrun.runs.provenance import provenance
from dlrun.stacked.batches import Batches
from dlrun.stacked.counting import Counts
from dlrun.stacked.members import Logs, Member, make_members, share_schedules
from dlrun.stacked.plan import obstacle, stacks
from dlrun.stacked.stack import Stack
from dlrun.stacked.update import Each, Together, Update, can_be_together, column_order
from dlrun.stacked.validation import Validation

TOLERANCE = 1e-3  # of the largest output: what float32 and another order of summation may make


class CannotStackError(DlrunError):
    """Runs cannot be trained as one, though each can be trained alone. Nothing has been written."""


def train_stack(composed: Sequence[Composed], consoles: Sequence[Console]) -> list[RunDirectory]:
    """Train, test and record several runs as one. How each ended is in its summary.json.

    A run that diverges, stops early or fails leaves the stack, and the others go on. SIGINT and SIGTERM interrupt all.

    Args:
        consoles: one for each run.

    Raises: CannotStackError, and other DlrunErrors, before anything is written.
    """
    _refuse(composed)
    members = make_members(composed, consoles)
    training = StackedTraining(members)
    training.check()
    _create(composed, members)
    training.go()
    return [member.session.run for member in members]


class StackedTraining:
    """The training of several runs: one forward and backward pass, then for each what is its own."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = list(members)  # that still train
        self.ended: list[Member] = []  # whose curves are being drawn
        self.logs = Logs()
        self.interrupt = Interrupt()
        first = self.members[0]
        self._refuse_differences()
        models, steps = [t.model for t in self._trainings], [t.train_step for t in self._trainings]
        order = column_order(models, steps)
        self.stack = Stack(models, first.session.a.loss, first.session.a.precision, order)
        is_together = can_be_together(steps)
        if is_together:
            share_schedules(self.members)
        self.update: Update = Together(self.stack, steps) if is_together else Each(self.stack, steps)
        for member in self.members:
            self._share(member)
        self._compose()

    def check(self) -> None:
        """Two examples through the stack and through each model. Raises: CannotStackError unless they agree."""
        step, t = self.stack, self.members[0].training
        inputs, targets = self.batches.make([_few(next(t.loader.draws(0))) for t in self._trainings])
        name = type(step.template).__name__
        for model in step.models:
            model.eval()
        try:
            with warnings.catch_warnings():
                # What vmap does one model at a time takes longer than without it.
                warnings.filterwarnings("error", message="There is a performance drop")
                _, outputs, _ = step.gradients(inputs, targets)
            with torch.no_grad():
                alone = [model(*(x[k] for x in inputs)) for k, model in enumerate(step.models)]
        except Exception as error:
            reason = " ".join(str(error).split()).partition(". ")[0].rstrip(".")
            raise CannotStackError(f"the model ({name}) cannot be trained in a stack: {reason}.") from error
        expected = torch.stack(alone).float()
        apart = (outputs.float() - expected).abs().max() / expected.abs().max().clamp_min(1e-12)
        if not apart < TOLERANCE:
            raise CannotStackError(
                f"the model ({name}) cannot be trained in a stack: its outputs differ there, by {float(apart):.1e}."
            )

    def go(self) -> None:
        """Train all to their ends, whatever happens to some."""
        members = list(self.members)
        try:
            with self.interrupt:
                self._each(self._open)
                self._each(lambda member: start(member.training))
                if self.members and self.members[0].training.total_steps == 0:
                    self._each(lambda member: validate(member.training))
                self._part()
                while self.members:
                    self._epoch()
            self._close_ended()
        except (Exception, KeyboardInterrupt) as error:  # of the step that all take together
            for member in self.members:
                self.logs.speaker = member
                self._fail(member, error)
            if isinstance(error, KeyboardInterrupt):
                raise
        finally:
            for member in members:
                self.logs.speaker = member
                member.open.close()

    @property
    def _trainings(self) -> list[Any]:
        return [member.training for member in self.members]

    def _epoch(self) -> None:
        """Steps until the end of an epoch, or until no run is left."""
        self._close_ended()
        epoch, first = divmod(self.members[0].training.step, self.members[0].training.loader.steps_per_epoch)
        left = self.members[0].training.loader.steps_per_epoch - first
        for member in self.members:
            member.draws = member.training.loader.draws(epoch, first)
        while left and self.members:
            self._step([next(member.draws) for member in self.members])
            left -= 1

    def _step(self, draws: list[Draw]) -> None:
        """One optimizer step of every run, and what is due after it."""
        inputs, targets = self.batches.make(draws)
        losses, outputs, gradients = self.stack.gradients(inputs, targets)
        self.counts.update(outputs, targets)
        rates = [t.lr for t in self._trainings]
        self.update(gradients, logs_next(self.members[0].training))
        self._measured = None
        ended = False
        for member, loss, lr, draw in zip(self.members, losses.unbind(), rates, draws, strict=True):
            self._at(member, lambda m, loss=loss, lr=lr, size=draw.size: after_step(m.training, loss, size, lr))
            ended = ended or member.has_ended
        if ended:
            self._part()

    def _part(self) -> None:
        """Let go of the runs that have ended, and go on with the others in a smaller stack."""
        staying = [k for k, member in enumerate(self.members) if not member.has_ended]
        if len(staying) == len(self.members):
            return
        leaving = [member for member in self.members if member.has_ended]
        self._close_ended()
        for k, member in enumerate(self.members):
            if member.has_ended:
                self.update.hand_back(k)
        self.stack.keep(staying)
        self.members = [self.members[k] for k in staying]
        for member in leaving:
            self._at(member, self._end)
        if self.members:
            self.update.keep(staying)
            self._compose()

    def _end(self, member: Member) -> None:
        if member.error is not None:
            return
        finish(member.training)
        member.finish = member.session.end()
        if member.training.status in FINISHED:
            self.ended.append(member)
        else:
            member.finish()
            member.open.close()

    def _close_ended(self) -> None:
        """Wait for the curves of the runs that have ended, and write their summaries."""
        ended, self.ended = self.ended, []
        for member in ended:
            self._at(member, lambda m: m.finish())
            member.open.close()

    def _compose(self) -> None:
        """What depends on who is in the stack."""
        trainings = self._trainings
        self.batches = Batches([t.loader for t in trainings])
        self.counts = Counts([t.metrics for t in trainings])
        self.validation = Validation(self.stack, [member.evaluator for member in self.members])
        self._measured: dict[int, dict[str, float]] | None = None

    def _share(self, member: Member) -> None:
        """Let a run use what belongs to all: the handling of signals, the validation, and its view of the weights."""
        t, session = member.training, member.session
        t.interrupt = self.interrupt
        member.evaluator = t.validate
        if t.train_step.average is None:
            t.validate = lambda model: self._validated(member)
        t.save = self._apart(member, session.save)
        t.save_weights = self._apart(member, session.save_weights)

    def _apart(self, member: Member, save: Callable[..., None]) -> Callable[..., None]:
        def saved(*arguments: Any) -> None:
            if member not in self.members:  # it has all for itself
                return save(*arguments)
            self.update.hand_back(self.members.index(member))
            with self.stack.apart(member.training.model):
                save(*arguments)

        return saved

    def _validated(self, member: Member) -> dict[str, float]:
        """The validation of one run; the first that asks has all validated."""
        if self._measured is None:
            self._measured = {id(m): result for m, result in zip(self.members, self.validation(), strict=True)}
        return self._measured[id(member)]

    def _each(self, act: Callable[[Member], None]) -> None:
        for member in self.members:
            self._at(member, act)

    def _at(self, member: Member, act: Callable[[Member], None]) -> None:
        """Do something for one run; if it raises, the run has failed and the others go on."""
        self.logs.speaker = member
        if member.error is not None:
            return
        try:
            act(member)
        except DivergedError as error:
            diverge(member.training, error)
        except Exception as error:
            self._fail(member, error)

    def _fail(self, member: Member, error: BaseException) -> None:
        """Keep what there is of a run that has failed, and say why."""
        try:
            member.session.fail(error)
        except Exception as told:
            member.error = told
            member.session.console.warn(str(told))
        except KeyboardInterrupt:
            pass

    def _open(self, member: Member) -> None:
        handler = member.open.enter_context(member.session.opened(None))
        self.logs.attach(handler, member)
        member.session.begin()

    def _refuse_differences(self) -> None:
        """Refuse what only the parts themselves can tell."""
        for t in self._trainings:
            step = t.train_step
            if not isinstance(t.loader, ResidentLoader):
                raise CannotStackError("a stack needs its data on the device, which is too small for them.")
            if hasattr(t.loader.examples, "lengths"):
                raise CannotStackError(
                    "sequences of different lengths cannot be trained in a stack: each run's batch has its own length."
                )
            if step.needs_closure:
                name = type(step.optimizer).__name__
                raise CannotStackError(f"{name} cannot be trained in a stack: it evaluates the loss as it likes.")
            if t.loader.steps_per_epoch != self._trainings[0].loader.steps_per_epoch:
                raise CannotStackError("the runs of a stack must have equally many steps in an epoch.")


def _few(draw: Draw) -> Draw:
    return Draw(draw.step, min(2, draw.size), tuple(tensor[:2] for tensor in draw.tensors), draw.longest)


def _refuse(composed: Sequence[Composed]) -> None:
    """Raises: CannotStackError if configurations cannot be trained together; UsageError if a folder is taken."""
    for item in composed:
        if reason := obstacle(item.config):
            raise CannotStackError(reason)
    groups = stacks([item.config for item in composed])
    if len(groups) > 1:
        raise CannotStackError(
            f"a stack needs runs that differ in seed, init, optimizer, scheduler, data.label_noise, trainer.clip and "
            f"trainer.early_stopping alone; these {len(composed)} make {len(groups)} stacks."
        )
    folders = [item.run_dir for item in composed]
    if len(set(folders)) < len(folders):
        raise UsageError("the runs of a stack need a folder each, and two of them have the same hydra.run.dir.")
    for folder in folders:
        run = RunDirectory(folder)
        if run.config.exists():
            raise UsageError(f"hydra.run.dir={run.path} already holds a run; choose another, or: dlrun resume {run}.")


def _create(composed: Sequence[Composed], members: Sequence[Member]) -> None:
    """Begin all run directories."""
    common = provenance(
        run_id="",
        command=["dlrun", *map(shlex.quote, sys.argv[1:])],
        fingerprint="",
        device=describe_device(members[0].session.a.device),
    )
    for item, member in zip(composed, members, strict=True):
        own = {"run_id": run_id(item.config), "data_fingerprint": member.session.header["fingerprint"]}
        member.session.run.create(item.config, common | own | {"stacked": len(members)}, item.hydra_files)
