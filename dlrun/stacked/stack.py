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
from dlrun.stacked.recurrent import recurrence_written_out

Loss = Callable[[Tensor, Tensor], Tensor]


class Stack:
    """The models and what they do together.

    Args:
        models: equal but for the numbers in their parameters and buffers, on one device.
        loss: (outputs, targets) to the mean over a batch. One that has `each` is given (K, B, …) at once.
        order: names of the parameters that learn, as they are to lie in `flat`; None: as in the model.

    Attributes:
        flat: all numbers that learn, (K, P), a model's in each row.
        columns: where each parameter lies in it: the first, and the first after it.
        way: how the forward pass is made: "by hand" (dlrun/stacked/layers.py) or "vmap".
    """

    def __init__(
        self, models: Sequence[nn.Module], loss: Loss, precision: Precision, order: Sequence[str] | None = None
    ) -> None:
        self.models = list(models)
        self.template = self.models[0]
        self.loss, self.precision = loss, precision
        stored = self.template.state_dict().keys()  # what is not stored is constant, so the template's serves for all
        self._buffer_names = [name for name, _ in self.template.named_buffers() if name in stored]
        self._layers = by_hand(self.template) if not self._buffer_names else None
        self.way = "vmap" if self._layers is None else "by hand"
        each = getattr(loss, "each", None)
        self._losses: Loss = each if each is not None else torch.vmap(loss, randomness="different")
        learning = {name: p for name, p in self.template.named_parameters() if p.requires_grad}
        self.columns: dict[str, tuple[int, int]] = {}
        end = 0
        for name in learning if order is None else order:
            self.columns[name] = (end, end + learning[name].numel())
            end += learning[name].numel()
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
        with (
            recurrence_written_out(self.template),
            sdpa_kernel(SDPBackend.MATH),
        ):  # attention by plain operations: vmap knows no other
            return made(self._weights, self._buffers, inputs)

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of each model, (K,)."""
        return self._losses(outputs, targets)

    def gradients(self, inputs: tuple[Tensor, ...], targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One forward and backward pass of each model on its own batch.

        Returns: losses (K,), outputs (K, B, …), both detached, and gradients (K, P), laid out as `flat` is.
        Raises: RuntimeError if the loss does not depend on one of the parameters.
        """
        with self.precision.autocast():
            outputs = self.outputs(inputs)
            losses = self.losses(outputs, targets)
        # No model's loss depends on another's weights, so the gradient of the sum is each model's own.
        found = torch.autograd.grad(losses.sum(), [self._weights[name] for name in self.columns])
        return losses.detach(), outputs.detach(), torch.cat([gradient.reshape(len(self), -1) for gradient in found], 1)

    def cut(self, flat: Tensor) -> list[dict[str, Tensor]]:
        """Rows laid out as those of `flat`, (K, P), as each model's tensors by name; views."""
        parts = {
            name: flat[:, first:last].view(len(flat), *self.template.get_parameter(name).shape).unbind()
            for name, (first, last) in self.columns.items()
        }
        return [dict(zip(parts, own, strict=True)) for own in zip(*parts.values(), strict=True)]

    def _call(self, weights: Mapping[str, Tensor], buffers: Mapping[str, Tensor], inputs: tuple[Tensor, ...]) -> Tensor:
        outputs: Tensor = functional_call(self.template, (dict(weights), dict(buffers)), inputs)
        return outputs

    def _gather(self) -> None:
        """Stack what the models have, and let what they have be views of that."""
        self._weights: dict[str, Tensor] = {}
        self._buffers: dict[str, Tensor] = {}
        with torch.no_grad():
            size = max((last for _, last in self.columns.values()), default=0)
            first = next(self.template.parameters())
            self.flat = torch.empty(len(self), size, dtype=first.dtype, device=first.device)
            for name, _ in self.template.named_parameters():
                own = [model.get_parameter(name) for model in self.models]
                if name in self.columns:
                    columns = slice(*self.columns[name])
                    self._weights[name] = _stacked(own, self.flat[:, columns]).requires_grad_()
                else:
                    self._weights[name] = _stacked(own)
            for name in self._buffer_names:
                self._buffers[name] = _stacked([model.get_buffer(name) for model in self.models])


def _stacked(tensors: Sequence[Tensor], place: Tensor | None = None) -> Tensor:
    """The tensors as one, which lies in the rows of `place` if that is given; each becomes a view of it."""
    stacked = torch.stack([tensor.detach() for tensor in tensors])
    if place is not None:
        stacked = place.view(stacked.shape).copy_(stacked).detach()
    for tensor, view in zip(tensors, stacked.unbind(), strict=True):
        tensor.data = view
    return stacked


def _own(model: nn.Module) -> None:
    """Give a model's parameters and buffers memory of their own."""
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()
