"""What clipping does to the length and the direction of a gradient, and to a training that would explode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor, nn

from dlrun.glossary.figures import label, panels, styles
from dlrun.glossary.measure import Measured
from dlrun.optim.gradients import ClipNorm, ClipValue

LIMIT = 1.0
Clip = Callable[[Sequence[Tensor]], Any]
Make = Callable[[float], Clip]


def measure(by_norm: Clip | None = None, by_value: Make = ClipValue, steps: int = 80) -> Measured:
    """Lengths and directions of random gradients after clipping by norm and to the same norm by value; an RNN."""
    by_norm = by_norm or ClipNorm(LIMIT)
    lengths = 10.0 ** np.linspace(-2, 2, 9)
    after = {
        "norm": [clipped(by_norm, size) for size in lengths],
        "value": [clipped(by_value(value_limit(size, by_value)), size) for size in lengths],
    }
    unclipped, limited = steepest(None, steps), steepest(by_norm, steps)
    figure, (sizes, training) = panels("Gradient clipping", 2)
    line = styles(marker=True)
    for name, shown in (("norm", "by norm, limit 1"), ("value", "by value, to the same norm")):
        sizes.semilogx(lengths, [cosine for _, cosine in after[name]], **next(line), label=shown)
    label(sizes, "norm of the gradient before", "cosine between before and after", "is the direction kept?")
    line = styles()
    for name, norms in (("no clipping: ends in NaN", unclipped), ("clipped to norm 1", limited)):
        training.semilogy(np.where(np.isfinite(norms), norms, np.nan), **next(line), label=name)
    label(training, "step", "gradient norm before clipping", "an RNN over 60 time steps, lr 0.1")
    norms, value_norms = ([length for length, _ in after[name]] for name in ("norm", "value"))
    return Measured(
        {
            "largest_norm": max(norms),
            "untouched_error": float(max(abs(n - s) for n, s in zip(norms, lengths, strict=True) if s < LIMIT)),
            "norms_apart": float(np.abs(np.subtract(norms, value_norms)).max()),
            "norm_cosine": min(cosine for _, cosine in after["norm"]),
            "value_cosine": min(cosine for _, cosine in after["value"]),
            "steps_survived": float(np.isfinite(unclipped).sum()),
            "clipped_steps_survived": float(np.isfinite(limited).sum()),
        },
        figure,
    )


def value_limit(size: float, make: Make = ClipValue) -> float:
    """The limit by value that leaves a gradient of norm `size` the norm that clipping by norm does."""
    if size <= LIMIT:
        return size  # no number is larger: nothing is cut
    return float(brentq(lambda limit: clipped(make(limit), size)[0] - LIMIT, 1e-6, size, xtol=1e-9))


def clipped(clip: Clip, size: float) -> tuple[float, float]:
    """The norm of a gradient over two tensors after clipping, and the cosine with what it was; `size` before."""
    random = torch.Generator().manual_seed(0)
    parameters = [torch.zeros(n, dtype=torch.float64) for n in (300, 20)]
    drawn = torch.randn(320, generator=random, dtype=torch.float64) ** 3
    before = drawn / drawn.norm() * size
    for p, g in zip(parameters, before.split([300, 20]), strict=True):
        p.grad = g.clone()
    clip(parameters)
    after = torch.cat([p.grad for p in parameters if p.grad is not None])
    return float(after.norm()), float(nn.functional.cosine_similarity(before, after, 0))


def steepest(clip: Clip | None, steps: int) -> list[float]:
    """Gradient norms of an RNN that learns to add up what it reads, by SGD with a rate that is too high unclipped."""
    torch.manual_seed(0)
    model = nn.RNN(1, 32, batch_first=True)
    head = nn.Linear(32, 1)
    nn.init.orthogonal_(dict(model.named_parameters())["weight_hh_l0"], 1.2)
    parameters = [*model.parameters(), *head.parameters()]
    made = torch.optim.SGD(parameters, lr=0.1)
    norms = []
    for _ in range(steps):
        inputs = torch.rand(64, 60, 1)
        made.zero_grad()
        outputs, _ = model(inputs)
        loss = nn.functional.mse_loss(head(outputs[:, -1]), inputs.mean(1))
        loss.backward()
        norms.append(float(nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])))
        if clip is not None:
            clip(parameters)
        made.step()
    return norms
