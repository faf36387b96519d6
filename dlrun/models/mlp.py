"""Multilayer perceptron, plain or residual; without hidden layers it is linear or logistic regression."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from dlrun.contracts import Activation, DataSpec, Kind, Norm, PositiveInt, Probability
from dlrun.errors import ConfigError
from dlrun.layers import activation as make_activation
from dlrun.layers import follows_shift, normed
from dlrun.layers.dropout import DropoutKind, unit_dropout
from dlrun.layers.dropout import linear as make_linear


class Residual(nn.Sequential):
    """x + f(x), f being the modules in order. Source: He et al. 2015 (arXiv:1512.03385)."""

    def forward(self, input: Tensor) -> Tensor:
        output = input
        for module in self:
            output = module(output)
        return input + output


def mlp(
    spec: DataSpec,
    *,
    widths: Sequence[PositiveInt] = (256, 128),
    activation: Activation = "relu",
    norm: Norm = "layer",
    dropout: Probability = 0.0,
    dropout_kind: DropoutKind = "standard",
    residual: bool = False,
    bias: bool = True,
) -> nn.Module:
    """Linear → norm → activation → dropout for each width, then a linear output.

    Inputs (B, ...) of any shape are flattened to (B, features); outputs are (B, spec.num_outputs), without softmax.

    Args:
        spec: vectors, images or sequences.
        widths: of the hidden layers; none gives linear or logistic regression.
        activation: after each hidden layer.
        norm: before each activation; weight is of the hidden linear layers themselves.
        dropout: probability of zeroing a hidden unit, after each activation; with dropconnect, of zeroing a weight of
            a hidden layer.
        dropout_kind: standard, alpha (for activation=selu), or dropconnect.
        residual: adds its input to each hidden layer as wide as the one before it; where the width changes, and so
            always in the first layer, there is nothing to add and the layer stays plain.
        bias: of hidden layers and output; a layer followed by batch norm never has one, the norm's shift serves.

    Raises:
        ContractError if `spec` is of tokens.
        ConfigError if `residual` is asked for and no two neighbouring widths are equal, or if `dropout_kind` does not
            go with vectors or with `activation`.
    """
    spec.require("mlp", Kind.VECTOR, Kind.IMAGE, Kind.SEQUENCE)
    if residual and not any(a == b for a, b in itertools.pairwise(widths)):
        raise ConfigError(
            f"model.residual=true needs two equal neighbouring widths to connect, got model.widths={list(widths)}: "
            "write for example model.widths=[256,256,256], or model.residual=false"
        )
    if dropout_kind == "spatial":
        raise ConfigError(
            "model.dropout_kind=spatial zeroes whole channels of images, and the hidden layers of model=mlp are "
            "vectors: choose standard, alpha or dropconnect"
        )
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    if len(spec.shape) > 1:
        modules["flatten"] = nn.Flatten()
    features = spec.num_features
    for i, width in enumerate(widths, start=1):
        linear = make_linear(features, width, bias and not follows_shift(norm), dropout_kind, dropout)
        layer = OrderedDict[str, nn.Module](zip(("linear", "last_norm"), normed(linear, norm, width, 0), strict=False))
        if activation != "identity":
            layer["activation"] = make_activation(activation)
        if (drop := unit_dropout(dropout_kind, dropout, activation)) is not None:
            layer["dropout"] = drop
        if residual and i > 1 and width == features:
            modules[f"block{i}"] = Residual(layer)
        else:
            modules |= {f"{name.removeprefix('last_')}{i}": module for name, module in layer.items()}
        features = width
    modules["output"] = nn.Linear(features, spec.num_outputs, bias=bias)
    return nn.Sequential(modules)
