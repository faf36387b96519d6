"""RNN, GRU and LSTM of stacked models: torch's own cannot be vmapped, so their steps are written out for (K, B, …)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Step = Callable[[Tensor, tuple[Tensor, ...], Tensor, Tensor], tuple[Tensor, ...]]


@contextmanager
def recurrence_written_out(model: nn.Module) -> Iterator[None]:
    """Let the recurrent modules of a model work under vmap meanwhile."""
    found = [module for module in model.modules() if isinstance(module, nn.RNNBase)]
    for module in found:
        module.forward = partial(_forward, module)
    try:
        yield
    finally:
        for module in found:
            del module.forward


def _forward(module: nn.RNNBase, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
    """What the module's own forward does for (B, T, features), under vmap."""
    if (
        not module.batch_first
        or module.proj_size
        or state is not None
        or getattr(module, "nonlinearity", "tanh") != "tanh"
    ):
        raise RuntimeError(
            "a recurrent layer that is given a state, projects, or has its time first is not written out"
        )
    weights = [parameter for own in module.all_weights for parameter in own]
    outputs, *last = _Vmapped.apply(module, x, *weights)
    return outputs, tuple(last) if len(last) > 1 else last[0]


class _Vmapped(torch.autograd.Function):
    """Hands vmap's tensors, all K models at once, to plain operations, which autograd follows."""

    @staticmethod
    def forward(module: nn.RNNBase, x: Tensor, *weights: Tensor) -> Any:
        raise RuntimeError("recurrence is written out for stacks only")

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing: `vmap` never comes here."""

    @staticmethod
    def vmap(info: Any, in_dims: Sequence[int | None], module: nn.RNNBase, x: Tensor, *weights: Tensor) -> Any:
        """Outputs (K, B, T, directions · hidden), and the last states (K, layers · directions, B, hidden)."""
        size, (_, x_dim, *weight_dims) = info.batch_size, in_dims
        moved = [_first(weight, dim, size) for weight, dim in zip(weights, weight_dims, strict=True)]
        outputs, states = layers(module, _first(x, x_dim, size), moved)
        last = [torch.stack(own, 1) for own in zip(*states, strict=True)]
        return (outputs, *last), (0,) * (1 + len(last))


def layers(module: nn.RNNBase, x: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
    """All layers and directions of K models.

    Args:
        x: (K, B, T, features).
        weights: of each layer and direction those of the module, (K, …), in its order.

    Returns: outputs (K, B, T, directions · hidden); the last states, (K, B, hidden), of each layer and direction.
    """
    step = {"LSTM": _lstm, "GRU": _gru}.get(module.mode, _rnn)
    directions, each = (2 if module.bidirectional else 1), (4 if module.bias else 2)
    last = []
    for layer in range(module.num_layers):
        outputs = []
        for direction in range(directions):
            first = (layer * directions + direction) * each
            own = weights[first : first + each]
            zeros = own[0].new_zeros(()).expand(own[0].shape[:2])
            w_in, w_state, b_in, b_state = own if module.bias else (*own, zeros, zeros)
            output, state = _direction(step, x.flip(2) if direction else x, module, w_in, w_state, b_in, b_state)
            outputs.append(output.flip(2) if direction else output)
            last.append(state)
        x = torch.cat(outputs, -1) if directions > 1 else outputs[0]
        if module.dropout and layer < module.num_layers - 1:
            x = F.dropout(x, module.dropout, module.training)
    return x, last


def _direction(
    step: Step, x: Tensor, module: nn.RNNBase, w_in: Tensor, w_state: Tensor, b_in: Tensor, b_state: Tensor
) -> tuple[Tensor, tuple[Tensor, ...]]:
    models, batch, time, _ = x.shape
    # Time first, so that the inputs of a step lie together: (K, T, B, gates).
    rows = x.transpose(1, 2).reshape(models, time * batch, -1)
    entering = torch.baddbmm(b_in.unsqueeze(1), rows, w_in.transpose(1, 2)).view(models, time, batch, -1)
    zero = x.new_zeros(models, batch, module.hidden_size, dtype=w_in.dtype)
    state: tuple[Tensor, ...] = (zero, zero) if module.mode == "LSTM" else (zero,)
    recurrent, bias, outputs = w_state.transpose(1, 2), b_state.unsqueeze(1), []
    for entered in entering.unbind(1):
        state = step(entered, state, recurrent, bias)
        outputs.append(state[0])
    return torch.stack(outputs, 2), state


def _lstm(entered: Tensor, state: tuple[Tensor, ...], recurrent: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
    h, c = state
    gates = torch.baddbmm(entered + bias, h, recurrent)
    enter, forget, new, out = gates.chunk(4, -1)
    c = forget.sigmoid() * c + enter.sigmoid() * new.tanh()
    return out.sigmoid() * c.tanh(), c


def _gru(entered: Tensor, state: tuple[Tensor, ...], recurrent: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
    (h,) = state
    size = h.shape[-1]
    own = torch.baddbmm(bias, h, recurrent)
    reset, update = (entered[..., : 2 * size] + own[..., : 2 * size]).sigmoid().chunk(2, -1)
    new = torch.addcmul(entered[..., 2 * size :], reset, own[..., 2 * size :]).tanh()
    return (torch.lerp(new, h, update),)


def _rnn(entered: Tensor, state: tuple[Tensor, ...], recurrent: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
    return (torch.baddbmm(entered + bias, state[0], recurrent).tanh(),)


def _first(tensor: Tensor, dim: int | None, size: int) -> Tensor:
    """The tensor with the models' axis first; one that all share is repeated, without a copy."""
    return tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
