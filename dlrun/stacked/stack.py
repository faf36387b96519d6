"""K models of one shape as one: weights stacked along a new first axis, of which each model's own are views.

So whatever updates, saves or evaluates a single one of the models works as ever, and sees and changes the stack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from dlrun.engine.precision import Precision
from dlrun.stacked.layers import by_hand

Loss = Callable[[Tensor, Tensor], Tensor]


class Stack:
    """The models and what they do together.

    Args:
        models: equal but for the numbers in their parameters and buffers, on one device.
        loss: (outputs, targets) to the mean over a batch. One that has `each` is given (K, B, …) at once.

    Attributes:
        parameters: those that learn, by name, (K, …).
        way: how the forward pass is made: "by hand" (dlrun/stacked/layers.py) or "vmap".
    """

    def __init__(self, models: Sequence[nn.Module], loss: Loss, precision: Precision) -> None:
        self.models = list(models)
        self.template = self.models[0]
        self.loss, self.precision = loss, precision
        stored = self.template.state_dict().keys()  # what is not stored is constant, so the template's serves for all
        self._buffer_names = [name for name, _ in self.template.named_buffers() if name in stored]
        self._layers = by_hand(self.template) if not self._buffer_names else None
        self.way = "vmap" if self._layers is None else "by hand"
        each = getattr(loss, "each", None)
        self._losses: Loss = each if each is not None else torch.vmap(loss, randomness="different")
        self._gather()

    def __len__(self) -> int:
        return len(self.models)

    def keep(self, chosen: Sequence[int]) -> None:
        """Go on with these models only; the others take their weights with them."""
        for k in set(range(len(self.models))) - set(chosen):
            _own(self.models[k])
        self.models = [self.models[k] for k in chosen]
        if self.models:
            self._gather()

    @contextmanager
    def apart(self, model: nn.Module) -> Iterator[None]:
        """Let a model have its weights for itself meanwhile: torch.save would write the whole stack for each view."""
        tensors = [*model.parameters(), *model.buffers()]
        views = [tensor.data for tensor in tensors]
        _own(model)
        try:
            yield
        finally:
            for tensor, view in zip(tensors, views, strict=True):
                tensor.data = view

    def outputs(self, inputs: tuple[Tensor, ...], *, shared: bool = False) -> Tensor:
        """The outputs of each model, (K, B, …).

        Args:
            inputs: the model's positional arguments, (K, B, …), or (B, …) if all models see the same.
        """
        if self._layers is not None:
            x = inputs[0].expand(len(self), *inputs[0].shape) if shared else inputs[0]
            return self._layers(x, self._weights)
        made = torch.vmap(self._call, in_dims=(0, 0, None if shared else 0), randomness="different")
        with sdpa_kernel(SDPBackend.MATH):  # attention by plain operations: vmap knows no other
            return made(self._weights, self._buffers, inputs)

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of each model, (K,)."""
        return self._losses(outputs, targets)

    def gradients(self, inputs: tuple[Tensor, ...], targets: Tensor) -> tuple[Tensor, Tensor, list[list[Tensor | None]]]:
        """One forward and backward pass of each model on its own batch.

        Returns: losses (K,), outputs (K, B, …), both detached, and for each model the gradients of its parameters that
            learn; None for one that the loss does not depend on.
        """
        with self.precision.autocast():
            outputs = self.outputs(inputs)
            losses = self.losses(outputs, targets)
        # No model's loss depends on another's weights, so the gradient of the sum is each model's own.
        learning = list(self.parameters.values())
        found = torch.autograd.grad(losses.sum(), learning, allow_unused=True)
        # Laid out as the parameters are, which fused optimizers take for granted.
        by_parameter = [[None] * len(self) if grad is None else grad.contiguous().unbind() for grad in found]
        return losses.detach(), outputs.detach(), [list(own) for own in zip(*by_parameter, strict=True)]

    def learning(self, model: nn.Module) -> list[nn.Parameter]:
        """Those of a model's parameters that learn, in the order of `gradients`."""
        return [p for p in model.parameters() if p.requires_grad]

    def _call(self, weights: Mapping[str, Tensor], buffers: Mapping[str, Tensor], inputs: tuple[Tensor, ...]) -> Tensor:
        outputs: Tensor = functional_call(self.template, (dict(weights), dict(buffers)), inputs)
        return outputs

    def _gather(self) -> None:
        """Stack what the models have, and let what they have be views of that."""
        self._weights: dict[str, Tensor] = {}
        self._buffers: dict[str, Tensor] = {}
        with torch.no_grad():
            for name, parameter in self.template.named_parameters():
                stacked = _stacked([model.get_parameter(name) for model in self.models])
                self._weights[name] = stacked.requires_grad_(parameter.requires_grad)
            for name in self._buffer_names:
                self._buffers[name] = _stacked([model.get_buffer(name) for model in self.models])
        self.parameters = {name: tensor for name, tensor in self._weights.items() if tensor.requires_grad}


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    """The tensors as one; each becomes a view of it."""
    stacked = torch.stack([tensor.detach() for tensor in tensors])
    for tensor, view in zip(tensors, stacked.unbind(), strict=True):
        tensor.data = view
    return stacked


def _own(model: nn.Module) -> None:
    """Give a model's parameters and buffers memory of their own."""
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()
