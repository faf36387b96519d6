"""Do data, model and loss fit together? Tried once, before anything is trained or written."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from dlrun.build.calling import one_line
from dlrun.contracts import Batch, Splits, Task
from dlrun.engine.footprint import Allocations
from dlrun.engine.loaders import gather
from dlrun.engine.memory import INSTEAD, DeviceMemoryError, is_out_of_memory
from dlrun.errors import ContractError, DlrunError


def check_fit(model: nn.Module, loss: nn.Module, splits: Splits, prepare: Callable[[Batch, int], Batch]) -> int:
    """One forward pass of two examples, without touching the generators or the model's statistics.

    Returns: the bytes that model and loss take for an example, at most at one time.
    Raises: ContractError if the model cannot read the data, or its outputs are not what the loss needs.
    """
    spec, was_training = splits.spec, model.training
    where = next((p.device for p in model.parameters()), torch.device("cpu"))
    batch = prepare(
        gather(splits.train, torch.arange(min(2, len(splits.train)))).map(lambda tensor: tensor.to(where)), 0
    )
    model.eval()
    name, made = type(model).__name__, Allocations()
    with torch.random.fork_rng(devices=[where] if where.type == "cuda" else []), torch.no_grad(), made:
        try:
            outputs = model(*batch.arguments)
        except DlrunError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise DeviceMemoryError(
                    f"out of memory in a forward pass of the model ({name}) with {len(batch)} examples: {INSTEAD}"
                ) from error
            raise ContractError(
                f"the model ({name}) cannot read data={spec.name}, {spec.kind.plural} of shape {spec.shape}: "
                f"{one_line(error)}."
            ) from error
        by_token = spec.task in (Task.LANGUAGE_MODELLING, Task.SEQUENCE_TO_SEQUENCE)
        expected = (*batch.targets.shape[: 2 if by_token else 1], spec.num_outputs)
        if not isinstance(outputs, Tensor) or tuple(outputs.shape) != expected:
            got = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            each = "one row per token of each example" if by_token else "one row per example"
            raise ContractError(
                f"the model ({name}) gives outputs of shape {got} for data={spec.name}, whose task "
                f"({spec.task.value}) needs {expected}: {each}, {spec.num_outputs} outputs each."
            )
        try:
            loss(outputs, batch.targets)
        except Exception as error:
            raise ContractError(f"the loss does not fit data={spec.name}: {one_line(error)}.") from error
    model.train(was_training)
    return -(-made.peak // len(batch))


def check_smallest_batch(
    model: nn.Module, splits: Splits, prepare: Callable[[Batch, int], Batch], batch_size: int, drop_last: bool
) -> None:
    """Train on one example, on a copy, if an epoch has a batch of one; batch norm cannot, and would at its end say so.

    Raises: ContractError.
    """
    count = len(splits.train)
    last = 0 if drop_last else count % batch_size
    if 1 not in (count, batch_size, last):
        return
    where = next((p.device for p in model.parameters()), torch.device("cpu"))
    batch = prepare(gather(splits.train, torch.zeros(1, dtype=torch.long)).map(lambda tensor: tensor.to(where)), 0)
    with torch.random.fork_rng(devices=[where] if where.type == "cuda" else []), torch.no_grad():
        try:
            copy.deepcopy(model).train()(*batch.arguments)
        except Exception as error:
            raise ContractError(
                f"data.batch_size={batch_size} makes a batch of one example out of {count:,}, on which the model "
                f"({type(model).__name__}) cannot train: {one_line(error)}; choose another, or data.drop_last=true."
            ) from error
