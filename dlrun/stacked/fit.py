"""Whether a stack does what its runs would do alone, found out before anything is written."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch

from dlrun.engine.loaders import ResidentLoader
from dlrun.engine.training import Training
from dlrun.errors import DlrunError
from dlrun.stacked.batches import Batches
from dlrun.stacked.stack import Stack

TOLERANCE = 1e-3  # of the largest output: what float32 and another order of summation may make of it

EXAMPLES = 2


class CannotStackError(DlrunError):
    """Runs cannot be trained as one, though each can be trained alone. Nothing has been written."""


class StackBrokenError(DlrunError):
    """Runs could not go on as one. What they have saved is enough to go on with each alone."""


def check_parts(trainings: Sequence[Training]) -> None:
    """Refuse what only the parts themselves can tell. Raises: CannotStackError."""
    for t in trainings:
        if t.total_steps == 0:
            raise CannotStackError("nothing in the model learns, so there is nothing to train in a stack.")
        if not isinstance(t.loader, ResidentLoader):
            raise CannotStackError(
                "data.loader=auto streams these data, which do not fit on the device, and a stack needs them there; "
                "train the runs one by one."
            )
        if hasattr(t.loader.examples, "lengths"):
            raise CannotStackError(
                "sequences of different lengths cannot be trained in a stack: each run cuts its batch to its own "
                "longest; train the runs one by one."
            )
        if t.train_step.needs_closure:
            name = type(t.train_step.optimizer).__name__
            raise CannotStackError(f"{name} cannot be trained in a stack: it evaluates the loss as often as it likes.")
        if {p.dtype for p in t.model.parameters()} != {next(t.model.parameters()).dtype}:
            raise CannotStackError("a model with parameters of several types cannot be trained in a stack.")


def check_outputs(stack: Stack, batches: Batches) -> None:
    """Two examples through the stack, forwards and backwards, and through each model.

    Raises: CannotStackError unless they agree.
    """
    batches.begin(0, 0)
    inputs, targets = batches.next(EXAMPLES)
    for model in stack.models:
        model.eval()
    try:
        with warnings.catch_warnings():
            # What vmap does one model at a time takes longer than without it.
            warnings.filterwarnings("error", message="There is a performance drop")
            _, outputs, _ = stack.gradients(inputs, targets)
        with torch.no_grad():
            alone = torch.stack([model(*(x[k] for x in inputs)) for k, model in enumerate(stack.models)])
    except Exception as error:
        reason = " ".join(str(error).split()).partition(". ")[0].rstrip(".")
        raise CannotStackError(f"{_model(stack)} cannot be trained in a stack: {reason}.") from error
    apart = (outputs.float() - alone.float()).abs().max() / alone.float().abs().max().clamp_min(1e-12)
    if not apart < TOLERANCE and stack.precision.name == "fp32":
        raise CannotStackError(
            f"{_model(stack)} cannot be trained in a stack: its outputs differ there by {float(apart):.1e}."
        )


def _model(stack: Stack) -> str:
    return f"the model ({type(stack.template).__name__})"
