"""L2 regularisation and weight decay: the same under plain SGD, two things under Adam; what the source leaves out."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlrun import build, techniques
from dlrun.contracts import Batch
from dlrun.glossary.figures import label, panels, styles
from dlrun.glossary.measure import Arms, Measured
from dlrun.glossary.measures.common import (
    START,
    Array,
    Point,
    Words,
    config,
    furthest,
    hills,
    paired_test,
    path,
    path_by_hand,
    slope,
)
from dlrun.glossary.measures.early_stopping import curve
from dlrun.glossary.measures.update_rules import adam_rule

LR, DECAY = 0.01, 0.1
ADAMW: Words = ("optimizer=adamw", f"optimizer.lr={LR}", f"optimizer.weight_decay={DECAY}")
ADAM_L2: Words = ("optimizer=adam", f"optimizer.lr={LR}", f"optimizer.weight_decay={DECAY}")
SGD_L2: Words = ("optimizer=sgd", f"optimizer.lr={LR}", f"optimizer.weight_decay={DECAY}")
SCALES = 10.0 ** np.linspace(0, 3, 7)  # of gradients
STEPS, WEIGHTS = 200, 64  # of the noise, and with each scale of it


def weight_decay(words: Words = ADAMW, runs: Arms | None = None) -> Measured:
    """How much a weight without a gradient falls in a step; whether decay sees the gradient; whether weights fall."""
    start = np.abs(START) + 1.0
    fallen = 1 - path(words, start, 1, lambda w: (w * 0).sum())[0][1] / start
    decays = {name: decay_by_gradient(chosen) for name, chosen in (("adamw", words), ("adam", ADAM_L2))}
    same = furthest(path(SGD_L2)[0], _sgd_decoupled())
    figure, (axes,) = panels("What decay takes from a weight, by the size of its gradients")
    _draw_decay(axes, decays)
    norms = _weight_sizes(runs) if runs else {}
    return Measured(
        {
            "without_lr_error": float(np.abs(fallen - DECAY).max()),
            "with_lr_error": float(np.abs(fallen - LR * DECAY).max()),
            "fallen": float(fallen.mean()),
            "decay_spread": float(np.ptp(decays["adamw"])),
            "l2_power": slope(SCALES, decays["adam"]),
            "sgd_difference": same,
            **norms,
        },
        figure,
    )


def adamw(words: Words = ADAMW, runs: Arms | None = None) -> Measured:
    """The rule; that it is not L2; that its moments do not see the decay; and test accuracy beside Adam with L2."""
    points, _ = path(words)
    no_decay, plain = path([*words, "optimizer.weight_decay=0"], steps=1), path(words, steps=1)
    decays = {name: decay_by_gradient(chosen) for name, chosen in (("adamw", words), ("adam", ADAM_L2))}
    numbers = {
        "rule_error": furthest(points, path_by_hand(adam_rule(LR, decay=LR * DECAY))),
        "l2_error": furthest(points, path(ADAM_L2)[0]),
        "moment_error": _moment_difference(no_decay[1], plain[1]),
        "zero_decay": float(decay_by_gradient(words, np.zeros(1))[0]),
        "huge_decay": float(decays["adamw"][-1]),
        "default_decay": float(torch.optim.AdamW([torch.zeros(1)]).defaults["weight_decay"]),
    }
    figure, axes = panels("AdamW beside Adam with L2", 2 if runs else 1)
    _draw_decay(axes[0], decays)
    if runs:
        numbers |= _compare(runs, axes[1])
    return Measured(numbers, figure)


def l2(sgd: Words = ("optimizer=sgd", f"optimizer.lr={LR}"), penalty: Any = None) -> Measured:
    """Whether the penalty is the norm or its square, and which weight_decay is the formula's λ."""
    penalty = penalty or _penalty
    w = torch.tensor(START).reshape(1, -1)
    growth = float(penalty(2 * w) / penalty(w))
    by_formula, _ = path(sgd, loss=lambda w: hills(w) + DECAY * (w**2).sum())
    same, double = (path([*sgd, f"optimizer.weight_decay={d}"])[0] for d in (DECAY, 2 * DECAY))
    without, _ = path(sgd, steps=400)
    with_l2, _ = path([*sgd, f"optimizer.weight_decay={2 * DECAY}"], steps=400)
    figure, (gap, size) = panels("L2: which weight_decay is the formula's λ, and what it does", 2)
    line = styles()
    for name, other in (("weight_decay = λ", same), ("weight_decay = 2λ", double)):
        gap.semilogy(np.maximum(np.abs(by_formula - other).max(1), 1e-18), **next(line), label=name)
    label(gap, "step of SGD", "largest |w - w by L + λ Σw²|", "distance from the formula")
    line = styles()
    for name, points in (("λ = 0", without), ("λ = 0.1", with_l2)):
        size.plot(np.linalg.norm(points, axis=1), **next(line), label=name)
    label(size, "step of SGD", "‖w‖", "size of the weights")
    return Measured(
        {
            "growth": growth,
            "same_error": furthest(by_formula, same),
            "double_error": furthest(by_formula, double),
            "size_ratio": float(np.linalg.norm(with_l2[-1]) / np.linalg.norm(without[-1])),
        },
        figure,
    )


def decay_by_gradient(words: Words, scales: Array = SCALES) -> Array:
    """What decay takes of weights under gradients that are noise, over lr · decay · w, by the noise's std.

    The same noise is met with decay and without; what they end apart is what decay took.
    """
    noise = torch.randn(STEPS, WEIGHTS, len(scales), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gradients = (noise * torch.tensor(scales)).flatten(1)

    def points(chosen: Words) -> Array:
        slopes = iter(gradients)
        return path(chosen, np.ones(gradients.shape[1]), STEPS, lambda w: (next(slopes) * w).sum())[0]

    with_decay, without = points(words), points([*words, "optimizer.weight_decay=0"])
    taken = (without[-1] - with_decay[-1]).reshape(WEIGHTS, -1).sum(0)
    wanted = LR * DECAY * with_decay[:-1].sum(0).reshape(WEIGHTS, -1).sum(0)
    return np.asarray(taken / wanted)


def _draw_decay(axes: Any, decays: dict[str, Array]) -> None:
    line = styles(marker=True)
    for name, shown in (("adamw", "AdamW (decoupled)"), ("adam", "Adam with L2 in the gradient")):
        axes.loglog(SCALES, decays[name], **next(line), label=shown)
    label(axes, "std of the weight's gradients (zero mean)", "decay in 200 steps / Σ lr · λ · w", "weights of 1, λ 0.1")


def _penalty(w: Tensor) -> Tensor:
    """dlrun's own L2 penalty of some weights, λ = 1."""
    point = Point(w.numpy())
    settings = build.trainer_settings(config("trainer.penalty={l2: 1.0}"))
    rules = build.parameter_rules(config())
    objective = techniques.build_objective(settings, rules, None, point, torch.nn.L1Loss(), None)  # type: ignore[arg-type]
    nothing = torch.zeros(1, dtype=torch.float64)
    return objective(nothing, Batch(inputs=nothing, targets=nothing)).detach()


def _sgd_decoupled() -> Array:
    """SGD whose weights are decayed directly, in NumPy."""
    return path_by_hand(lambda w, g: w - LR * DECAY * w - LR * g)


def _moment_difference(one: torch.optim.Optimizer, other: torch.optim.Optimizer) -> float:
    a, b = (next(iter(each.state.values())) for each in (one, other))
    return float(max((a[key] - b[key]).abs().max() for key in ("exp_avg", "exp_avg_sq")))


def _weight_sizes(runs: Arms) -> dict[str, float]:
    """Mean absolute weight of matrices, with decay over without, and the p of their difference over seeds."""
    sizes = {
        name: [
            float(torch.cat([p.detach().abs().flatten() for p in run.model.parameters() if p.ndim > 1]).mean())
            for run in each
        ]
        for name, each in runs.items()
    }
    return {
        "size_ratio": float(np.mean(sizes["decay"]) / np.mean(sizes["none"])),
        "size_p": paired_test(sizes["none"], sizes["decay"]).p,
    }


def _compare(runs: Arms, axes: Any) -> dict[str, float]:
    """Each method at the decay that is best on validation, over seeds; the test accuracies of both."""
    best: dict[str, tuple[float, list[float]]] = {}
    line = styles(marker=True)
    for method in ("adamw", "adam"):
        arms = {float(name.partition("_")[2]): each for name, each in runs.items() if name.partition("_")[0] == method}
        tests = {d: [100 * run.metrics["test/accuracy"] for run in each] for d, each in arms.items()}
        vals = {d: float(np.mean([curve(run, "val/accuracy")[-1] for run in each])) for d, each in arms.items()}
        chosen = max(vals, key=lambda d: vals[d])
        best[method] = (chosen, tests[chosen])
        decays = sorted(tests)
        means, errors = [np.mean(tests[d]) for d in decays], [np.std(tests[d], ddof=1) for d in decays]
        name = {"adamw": "AdamW", "adam": "Adam with L2"}[method]
        axes.errorbar(decays, means, errors, capsize=3, **next(line), label=name)
    axes.set_xscale("log")
    label(axes, "weight_decay", "test accuracy, % (mean ± std over seeds)", "digits, 300 examples, 20 % wrong labels")
    gain = paired_test(best["adamw"][1], best["adam"][1])
    return {
        "gain": gain.mean,
        "gain_low": gain.low,
        "gain_high": gain.high,
        "gain_p": gain.p,
        "adamw_decay": best["adamw"][0],
        "adam_decay": best["adam"][0],
        "adamw_accuracy": float(np.mean(best["adamw"][1])),
        "adam_accuracy": float(np.mean(best["adam"][1])),
        "seeds": float(len(best["adamw"][1])),
    }
