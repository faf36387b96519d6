"""What Adam's moments are in the first steps, with and without the correction of their start at zero."""

from __future__ import annotations

import numpy as np
import torch

from dlrun.glossary.figures import label, panels, styles
from dlrun.glossary.measure import Measured
from dlrun.glossary.measures.common import Words, furthest, path, path_by_hand
from dlrun.glossary.measures.update_rules import BETAS, LR, adam_rule

STEPS = 60
SLOPES = np.linspace(-3.0, 4.0, 12) + 0.1  # a constant gradient


def measure(words: Words = ("optimizer=adam", f"optimizer.lr={LR}")) -> Measured:
    """Under a constant gradient g, m / (1 - β₁ᵗ) is g at every step, and v / (1 - β₂ᵗ) is g²."""
    slopes = torch.tensor(SLOPES)
    first, second, raw = [], [], []
    for t in range(1, 6):
        state = next(iter(path(words, np.zeros(12), t, lambda w: (slopes * w).sum())[1].state.values()))
        m, v = (state[key].numpy().reshape(-1) for key in ("exp_avg", "exp_avg_sq"))
        first.append(np.abs(m / (1 - BETAS[0] ** t) - SLOPES).max())
        second.append(np.abs(v / (1 - BETAS[1] ** t) - SLOPES**2).max())
        raw.append(np.abs(m / SLOPES).max())
    with_it, without = (path_by_hand(adam_rule(corrected=corrected), steps=STEPS) for corrected in (True, False))
    ours, _ = path(words, steps=STEPS)
    one = np.abs(np.diff(ours, axis=0))[0].max() / LR
    two = np.abs(np.diff(without, axis=0))[0].max() / LR
    figure, (axes,) = panels("Adam's steps with and without bias correction (constant gradient)")
    steps = np.arange(1, 2001)
    uncorrected = (1 - BETAS[0] ** steps) / np.sqrt(1 - BETAS[1] ** steps)
    line = styles()
    axes.semilogx(steps, np.ones(len(steps)), **next(line), label="with bias correction")
    axes.semilogx(steps, uncorrected, **next(line), label="without: (1 - β₁ᵗ) / √(1 - β₂ᵗ)")
    label(axes, "step t", "size of the step / lr")
    return Measured(
        {
            "first_error": float(max(first)),
            "second_error": float(max(second)),
            "raw_share": float(raw[0]),
            "path_error": furthest(ours, with_it),
            "first_step": float(one),
            "first_step_without": float(two),
        },
        figure,
    )
