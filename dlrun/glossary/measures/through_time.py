"""Gradients through time: what of the last step's gradient reaches the first, by length, for RNNs and LSTMs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from dlrun.glossary.figures import label, styles


def recurrent(axes: Any, lengths: Sequence[int] = (2, 5, 10, 20, 50, 100)) -> None:
    """The gradient at the first time step over that at the last, by length, for RNNs and an LSTM."""
    line = styles(marker=True)
    for name, gain, bias in (
        ("RNN, recurrent weights of radius 1.5", 1.5, None),
        ("RNN, radius 0.9", 0.9, None),
        ("LSTM, forget bias 1", None, 1.0),
        ("LSTM, forget bias 5", None, 5.0),
    ):
        axes.semilogy(lengths, [through_time(n, gain, bias) for n in lengths], **next(line), label=name)
    label(axes, "sequence length", "gradient norm, first step / last step", "through time")


def through_time(length: int, gain: float | None, forget_bias: float | None, width: int = 64) -> float:
    """Gradient at the first input over that at the last; of an RNN with orthogonal weights times `gain`, or an LSTM."""
    torch.manual_seed(0)
    cell = nn.LSTM(8, width) if gain is None else nn.RNN(8, width)
    parameters = dict(cell.named_parameters())
    if gain is not None:
        nn.init.orthogonal_(parameters["weight_hh_l0"], gain)
    if forget_bias is not None:
        nn.init.constant_(parameters["bias_ih_l0"].detach()[width : 2 * width], forget_bias)
    inputs = (0.01 * torch.randn(length, 16, 8)).requires_grad_()
    outputs, _ = cell(inputs)
    outputs[-1].sum().backward()
    assert inputs.grad is not None
    return float(inputs.grad[0].norm() / inputs.grad[-1].norm())
