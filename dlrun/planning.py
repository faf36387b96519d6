"""What a run would do, found out without training: shapes, parameters, steps, learning rates, memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dlrun import assembly
from dlrun.assembly import Assembly
from dlrun.contracts import Batch
from dlrun.engine.footprint import KeptForBackward, peak_bytes
from dlrun.engine.training import Training
from dlrun.recorded import load_teacher


@dataclass
class Layer:
    """One module without modules of its own: its name, type, output shape and number of parameters."""

    name: str
    kind: str
    shape: tuple[int, ...] | None
    parameters: int


@dataclass
class Plan:
    """Everything `dlrun plan` shows.

    Attributes:
        lrs: the learning rate of every step, of the first parameter group.
        groups: of the optimizer, as "name: parameters, lr, weight decay".
        memory: bytes by what needs them.
        multiply_adds: of the forward pass of one example.
    """

    assembly: Assembly
    training: Training
    layers: list[Layer]
    lrs: list[float]
    groups: list[str]
    memory: dict[str, int]
    multiply_adds: int


def plan(config: dict[str, Any]) -> Plan:
    """Assemble a run and measure it. Raises: DlrunError for all that would stop the run before its first step."""
    a = assembly.assemble(config)
    training = assembly.prepare_training(a, lambda record: None, (), load_teacher(a))
    batch = next(iter(training.loader.epoch(0)))
    layers = trace(a.model, batch)
    counted = multiply_adds(a.model, batch)
    rates = []  # of every group, by step
    schedule = training.train_step.schedule
    for _ in range(training.total_steps):
        rates.append(list(schedule.lrs))
        schedule.step()
    lrs = [step[0] for step in rates]
    groups = [
        f"{group.get('name', i)}: {sum(p.numel() for p in group['params']):,} parameters, "
        f"lr up to {max((step[i] for step in rates), default=0.0):.3g}"
        + (f", weight decay {group['weight_decay']:g}" if group.get("weight_decay") else "")
        for i, group in enumerate(training.train_step.optimizer.param_groups)
    ]
    return Plan(a, training, layers, lrs, groups, memory(training, batch), counted)


def trace(model: nn.Module, batch: Batch) -> list[Layer]:
    """The leaves of the model in the order in which they run, with the shapes they give."""
    layers: list[Layer] = []
    names = {module: name for name, module in model.named_modules()}

    def note(module: nn.Module, _: Any, output: Any) -> None:
        first = output[0] if isinstance(output, tuple) and output else output
        shape = tuple(first.shape) if isinstance(first, Tensor) else None
        count = sum(p.numel() for p in module.parameters())
        layers.append(Layer(names[module], type(module).__name__, shape, count))

    hooks = [module.register_forward_hook(note) for module in model.modules() if not list(module.children())]
    with evaluating(model):
        model(*batch.arguments)
    for hook in hooks:
        hook.remove()
    return layers


def multiply_adds(model: nn.Module, batch: Batch) -> int:
    """Multiplications with their additions that the forward pass of one example takes, in matrix products of all kinds.

    What is elementwise (norms, activations) is not counted, as usual. Measured, on the batch's mean length.
    """
    # torch counts the operations that these two fuse only when they are taken apart.
    with (
        evaluating(model),
        sdpa_kernel(SDPBackend.MATH),
        without_onednn(),
        FlopCounterMode(display=False) as counter,
    ):
        model(*batch.arguments)
    return int(counter.get_total_flops()) // (2 * len(batch))


@contextmanager
def without_onednn() -> Iterator[None]:
    """PyTorch's own kernels on the CPU; `torch.backends.mkldnn.flags` would set TF32 too, and warn of it."""
    before, *_ = torch.backends.mkldnn.set_flags(_enabled=False, _fp32_precision=None)
    try:
        yield
    finally:
        torch.backends.mkldnn.set_flags(_enabled=before, _fp32_precision=None)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode, without gradients."""
    was_training = model.training
    model.eval()
    with torch.no_grad():
        yield
    model.train(was_training)


def memory(training: Training, batch: Batch) -> dict[str, int]:
    """Bytes by what needs them, and "peak", the most that is there at one time in a step, all together.

    Activations are what is kept for the backward pass. The peak is more than the sum where a backward pass needs much
    for itself, and less where gradients come after activations have gone. Measured by two steps, so call it last.
    """
    step, device = training.train_step, training.device
    step.forward = step.model  # measured as it is written: compiling takes longer and needs no more
    model = step.model
    kept = KeptForBackward([*model.parameters(), *model.buffers()])
    beside = 0
    if training.total_steps:
        step(batch)  # makes the optimizer's state
        for parameter in model.parameters():
            parameter.grad = None
        with kept:
            beside = peak_bytes(lambda: step(batch), device)
    state = getattr(step.optimizer, "state", {})
    held = [
        v for values in state.values() if isinstance(values, dict) for v in values.values() if isinstance(v, Tensor)
    ]
    averages = [] if step.average is None else [*step.average.module.parameters(), *step.average.module.buffers()]
    examples = getattr(training.loader, "examples", None)
    standing = {
        "weights": _bytes([*model.parameters(), *model.buffers()]),
        "optimizer": _bytes(held),
        "averages": _bytes([*averages, *(step.lookahead.slow if step.lookahead else ())]),
        "data": 0 if examples is None else examples.nbytes,
    }
    gradients = _bytes(p for p in model.parameters() if p.requires_grad)
    peak = sum(standing.values()) + _bytes([*batch.arguments, batch.targets]) + beside
    return {**standing, "gradients": gradients, "activations": kept.peak, "peak": peak}


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
