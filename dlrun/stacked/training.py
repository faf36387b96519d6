"""The training of a stack: one forward and backward pass for all runs, then for each what is its own.

What is due after a step (records, validation, callbacks, saving) is done by the functions of engine/loop.py, on each
run's own `Training`, so that it is what the run alone would do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dlrun.engine.interrupt import Interrupt
from dlrun.engine.loop import after_step, diverge, finish, logs_next, start
from dlrun.engine.meter import DivergedError
from dlrun.engine.training import Training
from dlrun.session import FINISHED
from dlrun.stacked.batches import Batches
from dlrun.stacked.counting import Counts
from dlrun.stacked.fit import StackBrokenError
from dlrun.stacked.members import Logs, Member, share_schedules
from dlrun.stacked.stack import Stack
from dlrun.stacked.update import Each, Together, Update, can_be_together, column_order
from dlrun.stacked.validation import Validation

COMMON_CHANCE = (
    "This run is trained in a stack, where one generator draws what all its runs drop out: it does not end with the "
    "numbers that it would end with alone."
)


class StackedTraining:
    """Several runs under way.

    Attributes:
        members: that still train.
        ended: whose curves are being drawn.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = list(members)
        self.ended: list[Member] = []
        self.logs, self.interrupt = Logs(), Interrupt()
        models, steps = [t.model for t in self._trainings], [t.train_step for t in self._trainings]
        a = self.members[0].session.a
        self.stack = Stack(models, a.loss, a.precision, column_order(models, steps))
        is_together = can_be_together(steps)
        if is_together:
            share_schedules(self.members)
        self.update: Update = Together(self.stack, steps) if is_together else Each(self.stack, steps)
        for member in self.members:
            self._share(member)
        self._compose()

    def go(self) -> None:
        """Train all to their ends, whatever happens to some.

        Raises: StackBrokenError for what fails in a step of all; each can be gone on with alone.
        """
        members = list(self.members)
        try:
            with self.interrupt:
                self._each(self._open)
                self._each(lambda member: start(member.training))
                self._part()
                while self.members:
                    self._epoch()
            self._close_ended()
        except Exception as error:  # of what all do together: alone each may do better, as with less memory
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise StackBrokenError(f"the stack failed in a step of all its runs: {reason}") from error
        finally:
            self._close_ended()
            for member in members:
                self.logs.speaker = member
                member.open.close()

    @property
    def _trainings(self) -> list[Training]:
        return [member.training for member in self.members]

    def _epoch(self) -> None:
        """Steps until the end of an epoch, or until no run is left."""
        self._close_ended()
        t = self.members[0].training
        epoch, first = divmod(t.step, t.loader.steps_per_epoch)
        self.batches.begin(epoch, first)
        for position in range(first, t.loader.steps_per_epoch):
            self._step()
            if not self.members:
                return
            if self.batches.position <= position:  # made anew, as some runs have left
                self.batches.begin(epoch, position + 1)

    def _step(self) -> None:
        """One optimizer step of every run, and what is due after it."""
        inputs, targets = self.batches.next()
        size = inputs[0].shape[1]
        before = self._generator() if self.members[0].training.step == 0 else None
        losses, outputs, gradients = self.stack.gradients(inputs, targets)
        if before is not None and not torch.equal(before, self._generator()):
            self._each(lambda member: member.session.console.warn(COMMON_CHANCE))
        self.counts.update(outputs, targets)
        rates = self.update(gradients, logs_next(self.members[0].training))
        self._measured.clear()
        for member, loss, lr in zip(self.members, losses.unbind(), rates, strict=True):
            self._at(member, partial(_after, loss=loss, size=size, lr=lr))
        if any(member.has_ended for member in self.members):
            self._part()

    def _generator(self) -> Tensor:
        """The state of the generator that dropout draws from."""
        device = self.stack.flat.device
        return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()

    def _part(self) -> None:
        """Let go of the runs that have ended, and go on with the others in a smaller stack."""
        staying = [k for k, member in enumerate(self.members) if not member.has_ended]
        leaving = [k for k, member in enumerate(self.members) if member.has_ended]
        if not leaving:
            return
        self._close_ended()
        for k in leaving:
            self.update.hand_back(k)
        self.stack.keep(staying)
        before, self.members = self.members, [self.members[k] for k in staying]
        for k in leaving:
            self._at(before[k], self._end)
        if self.members:
            self.update.keep(staying)
            self._compose()

    def _end(self, member: Member) -> None:
        """Finish a run that has left; what is drawn meanwhile is waited for later."""
        finish(member.training)
        try:
            member.finish = member.session.end()
        except DivergedError as error:  # found as the last losses were read to be saved
            diverge(member.training, error)
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
        """Make what depends on who is in the stack."""
        self.batches = Batches([t.loader for t in self._trainings])
        self.counts = Counts([t.metrics for t in self._trainings])
        self.validation = Validation(self.stack, [member.evaluator for member in self.members])
        self._measured: dict[int, dict[str, float]] = {}

    def _share(self, member: Member) -> None:
        """Let a run use what belongs to all: the handling of signals, the validation, and its view of the weights."""
        t, session = member.training, member.session
        t.interrupt = self.interrupt
        member.evaluator = t.validate
        if t.train_step.average is None:
            t.validate = lambda model: self._validated(member, model)
        t.save = partial(self._saved, member, session.save)
        t.save_weights = partial(self._saved, member, session.save_weights)

    def _saved(self, member: Member, save: Callable[..., None], *arguments: Any) -> None:
        """Save a run as if it were alone."""
        if member not in self.members:
            save(*arguments)
            return
        self.update.hand_back(self.members.index(member))
        with self.stack.apart(member.training.model):
            save(*arguments)

    def _validated(self, member: Member, model: nn.Module) -> dict[str, float]:
        """The validation of one run; the first that asks has all validated."""
        if not self._measured:
            self._measured = {id(m): result for m, result in zip(self.members, self.validation(), strict=True)}
        return self._measured[id(member)]

    def _each(self, act: Callable[[Member], None]) -> None:
        for member in self.members:
            self._at(member, act)

    def _at(self, member: Member, act: Callable[[Member], None]) -> None:
        """Do something for one run; if it raises, the run has failed and the others go on."""
        if member.error is not None:
            return
        self.logs.speaker = member
        try:
            act(member)
        except DivergedError as error:
            diverge(member.training, error)
        except Exception as error:
            self._fail(member, error)

    def _fail(self, member: Member, error: BaseException) -> None:
        """Keep what there is of a run that has failed, and say why."""
        self.logs.speaker = member
        try:
            member.session.fail(error)
        except KeyboardInterrupt:
            pass
        except Exception as told:
            member.error = told
            member.session.console.warn(str(told))

    def _open(self, member: Member) -> None:
        self.logs.attach(member.open.enter_context(member.session.opened(None)), member)
        member.session.begin()


def _after(member: Member, loss: Any, size: int, lr: float) -> None:
    after_step(member.training, loss, size, lr)
