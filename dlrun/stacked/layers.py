"""Forward passes of stacked models, written out for the layers that small models consist of.

`torch.vmap` does it for almost any model, at about 0.2 ms for every operation, which is more than a small model's whole
step takes. Each layer here does for (K, B, …), with weights (K, …), what its module does for (B, …) with one of the K.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Weights = Mapping[str, Tensor]  # by the name of the parameter, (K, …)
Layer = Callable[[Tensor, Weights], Tensor]

# What they do to a number does not depend on where it stands.
ELEMENTWISE = (
    nn.ReLU,
    nn.LeakyReLU,
    nn.ELU,
    nn.SELU,
    nn.GELU,
    nn.SiLU,
    nn.Hardswish,
    nn.Sigmoid,
    nn.Tanh,
    nn.Softplus,
    nn.Identity,
    nn.Dropout,
)


def by_hand(module: nn.Module, prefix: str = "") -> Layer | None:
    """The stacked form of a module, or None if it has, or holds, anything that is not known here."""
    if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks:
        return None
    if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
        return _sequence([by_hand(child, f"{prefix}{name}.") for name, child in module.named_children()])
    kind: object = type(module)
    if kind in ELEMENTWISE:
        return lambda x, weights: module(x)
    if kind is nn.Linear and isinstance(module, nn.Linear):
        return _linear(prefix, module.bias is not None)
    if (
        kind is nn.LayerNorm
        and isinstance(module, nn.LayerNorm)
        and module.elementwise_affine
        and module.bias is not None
    ):
        return _layer_norm(prefix, module)
    if isinstance(module, nn.Flatten) and module.start_dim == 1 and module.end_dim == -1:
        return lambda x, weights: x.flatten(2)
    return None


def _sequence(layers: list[Layer | None]) -> Layer | None:
    known = [layer for layer in layers if layer is not None]
    if len(known) < len(layers):
        return None

    def forward(x: Tensor, weights: Weights) -> Tensor:
        for layer in known:
            x = layer(x, weights)
        return x

    return forward


def _linear(prefix: str, has_bias: bool) -> Layer:
    weight_name, bias_name = f"{prefix}weight", f"{prefix}bias"

    def forward(x: Tensor, weights: Weights) -> Tensor:
        weight = weights[weight_name].transpose(1, 2)
        rows = x.flatten(1, -2)  # of each model: (K, rows, in)
        outputs = torch.baddbmm(weights[bias_name].unsqueeze(1), rows, weight) if has_bias else torch.bmm(rows, weight)
        return outputs.view(*x.shape[:-1], -1)

    return forward


def _layer_norm(prefix: str, module: nn.LayerNorm) -> Layer:
    weight_name, bias_name, shape, eps = f"{prefix}weight", f"{prefix}bias", module.normalized_shape, module.eps

    def forward(x: Tensor, weights: Weights) -> Tensor:
        weight, bias = weights[weight_name], weights[bias_name]
        own = (len(weight), *(1,) * (x.ndim - weight.ndim), *shape)
        return torch.addcmul(bias.view(own), F.layer_norm(x, shape, eps=eps), weight.view(own))

    return forward
