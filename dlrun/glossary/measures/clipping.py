"""What clipping does to the length and the direction of a gradient, and to a training that would explode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dlrun.glossary.figures import label, panels, styles
from dlrun.glossary.measure import Measured
from dlrun.optim.gradients import ClipNorm, ClipValue

LIMIT = 1.0
Clip = Callable[[Sequence[Tensor]], Any]


def measure(by_norm: Clip | None = None, by_value: Clip | None = None, steps: int = 80) -> Measured:
    """Lengths and directions of random gradients after clipping; an RNN with and without."""
    by_norm, by_value = by_norm or ClipNorm(LIMIT), by_value or ClipValue(LIMIT / 100)
    lengths = 10.0 ** np.linspace(-2, 2, 9)
    clips = {"norm": by_norm, "value": by_value}
    after = {name: [clipped(clip, size) for size in lengths] for name, clip in clips.items()}
    unclipped, limited = steepest(None, steps), steepest(by_norm, steps)
    figure, (sizes, training) = panels("Gradient clipping", 2)
    line = styles(marker=True)
    for name, shown in (("norm", "by norm, limit 1"), ("value", "by value, limit 0.01")):
        sizes.semilogx(lengths, [cosine for _, cosine in after[name]], **next(line), label=shown)
    label(sizes, "norm of the gradient before", "cosine between before and after", "is the direction kept?")
    line = styles()
    for name, norms in (("no clipping: ends in NaN", unclipped), ("clipped to norm 1", limited)):
        training.semilogy(np.where(np.isfinite(norms), norms, np.nan), **next(line), label=name)
    label(training, "step", "gradient norm before clipping", "an RNN over 60 time steps, lr 0.1")
    norms = [length for length, _ in after["norm"]]
    return Measured(
        {
            "largest_norm": max(norms),
            "untouched_error": float(max(abs(n - s) for n, s in zip(norms, lengths, strict=True) if s < LIMIT)),
            "norm_cosine": min(cosine for _, cosine in after["norm"]),
            "value_cosine": min(cosine for _, cosine in after["value"]),
            "steps_survived": float(np.isfinite(unclipped).sum()),
            "clipped_steps_survived": float(np.isfinite(limited).sum()),
        },
        figure,
    )


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
