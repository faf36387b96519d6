"""A single layer of neurons on the inputs themselves: Rosenblatt's perceptron, with a step, and the logistic neuron."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from dlrun.contracts import DataSpec, Kind, Task
from dlrun.errors import ContractError


def perceptron(spec: DataSpec, *, activation: Literal["step", "logistic"] = "step", bias: bool = True) -> nn.Module:
    """One neuron a = w · x + b for two classes, which fires (class 1) where a > 0; one for each of more classes.

    Inputs (B, ...) of any shape are flattened to (B, features); outputs are (B, spec.num_outputs). Weights start at 0:
    the problem is convex, so nothing is gained by another start, and the bound of Novikoff (1962) on the number of
    mistakes holds.

    With loss=perceptron, optimizer=sgd and data.batch_size=1 the step perceptron is trained by Rosenblatt's rule: a
    mistake adds ± lr · x to the weights, and what is right changes nothing. The loss is then the share of mistakes.

    Args:
        spec: vectors, images or sequences with classes.
        activation: step, whose outputs are 1 for the class that fires (or has the largest a) and 0 for the others, and
            whose gradient is that of a itself (straight-through, Hinton's Coursera lecture 9c; arXiv:1308.3432);
            logistic, whose outputs are logits, -a/2 and a/2 for two classes: their softmax is the sigmoid of a.
        bias: b.

    Raises: ContractError if `spec` is of tokens or has no classes.
    Source: Rosenblatt 1958, doi:10.1037/h0042519; for more than two classes Duda & Hart 1973, sec. 5.12 (Kesler).
    """
    spec.require("perceptron", Kind.VECTOR, Kind.IMAGE, Kind.SEQUENCE)
    if spec.task is not Task.CLASSIFICATION:
        raise ContractError(
            f"model=perceptron decides between classes, but data={spec.name} is a {spec.task.value.replace('_', ' ')} "
            "task: model=linear is a linear neuron for each output"
        )
    return Perceptron(spec.num_features, spec.num_outputs, bias, fires=activation == "step")


class Perceptron(nn.Module):
    """See `perceptron`."""

    def __init__(self, features: int, classes: int, bias: bool, fires: bool) -> None:
        super().__init__()
        self.fires = fires
        self.neurons = nn.Linear(features, 1 if classes == 2 else classes, bias)
        for parameter in self.neurons.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        a = self.neurons(x.flatten(1))
        if a.shape[1] == 1:
            a = torch.cat((-a, a), dim=1) / 2
        return straight_through(a) if self.fires else a


def straight_through(a: Tensor) -> Tensor:
    """1 where a (B, K) is the largest of its row and 0 elsewhere, equals sharing the 1; the gradient is that of a."""
    largest = (a == a.amax(dim=1, keepdim=True)).to(a.dtype)
    winner = largest / largest.sum(dim=1, keepdim=True)
    return winner + (a - a.detach())
