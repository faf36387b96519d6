"""Deep networks at their start: how activations and gradients grow or fade from layer to layer.

The networks are dlrun's model=mlp with an init of dlrun's, chosen by words.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dlrun import build
from dlrun.contracts import DataSpec, Kind, Task
from dlrun.glossary.figures import label, panels, styles
from dlrun.glossary.measure import Measured
from dlrun.glossary.measures.common import Array, Words, config
from dlrun.glossary.measures.through_time import recurrent

WIDTH, DEPTH, EXAMPLES = 128, 50, 256
SPEC = DataSpec("noise", Task.REGRESSION, Kind.VECTOR, (WIDTH,), num_outputs=WIDTH)


@dataclass(frozen=True)
class Signals:
    """Of each hidden layer, the first one first.

    Attributes:
        activations: their mean square.
        gradients: the norm of the gradient of the layer's weights.
        errors: the norm of the gradient of the layer's outputs: what backpropagation hands on.
    """

    activations: Array
    gradients: Array
    errors: Array

    @property
    def growth(self) -> float:
        """By what the error is multiplied from a layer to the one before it, on average."""
        return float((self.errors[0] / self.errors[-1]) ** (1 / (len(self.errors) - 1)))

    @property
    def spread(self) -> float:
        """The first layer's gradient over the last one's."""
        return float(self.gradients[0] / self.gradients[-1])


def network(words: Words, depth: int = DEPTH, seed: int = 0) -> nn.Module:
    """dlrun's MLP with so many hidden layers, all equally wide, without norm unless the words say otherwise."""
    torch.manual_seed(seed)
    chosen = config("model=mlp", f"model.widths=[{WIDTH},{WIDTH}]", "model.norm=none", *words)
    return build.build_model({**chosen, "model": {**chosen["model"], "widths": [WIDTH] * depth}}, SPEC).double()


def signals(model: nn.Module, seed: int = 1) -> Signals:
    """What goes forwards and backwards on Gaussian inputs, the loss being a random direction of the outputs."""
    random = torch.Generator().manual_seed(seed)
    inputs = torch.randn(EXAMPLES, WIDTH, generator=random, dtype=torch.float64)
    kept: list[Tensor] = []
    hidden = [module for module in model.modules() if isinstance(module, nn.Linear)][:-1]
    last = [m for m in model.modules() if type(m).__module__.endswith("activation")] or hidden
    hooks = [m.register_forward_hook(lambda _, __, out: _keep(kept, out)) for m in last]
    outputs = model(inputs)
    direction = torch.randn(outputs.shape, generator=random, dtype=torch.float64)
    model.zero_grad()
    (outputs * direction).mean().backward()
    for hook in hooks:
        hook.remove()
    gradients = [float(m.weight.grad.norm()) for m in hidden if m.weight.grad is not None]
    errors = [float(x.grad.norm()) for x in kept if x.grad is not None]
    return Signals(np.array([float(x.detach().square().mean()) for x in kept]), np.array(gradients), np.array(errors))


def _keep(kept: list[Tensor], out: Tensor) -> None:
    out.retain_grad()
    kept.append(out)


def saturated(model: nn.Module, limit: float = 4.0) -> float:
    """The share of hidden units whose input is beyond ±limit, on Gaussian inputs."""
    inputs = torch.randn(EXAMPLES, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    kept: list[Tensor] = []
    hidden = [module for module in model.modules() if isinstance(module, nn.Linear)][:-1]
    hooks = [m.register_forward_hook(lambda _, __, out: kept.append(out.detach())) for m in hidden]
    model(inputs)
    for hook in hooks:
        hook.remove()
    return float((torch.stack(kept).abs() > limit).double().mean())


def measured(words: Words, depth: int = DEPTH, seeds: int = 3) -> Signals:
    """The geometric means over some seeds."""
    each = [signals(network(words, depth, seed), seed + 100) for seed in range(seeds)]
    with np.errstate(divide="ignore"):
        return Signals(
            *(
                np.exp(np.mean([np.log(getattr(s, name)) for s in each], axis=0))
                for name in ("activations", "gradients", "errors")
            )
        )


DEFAULT, XAVIER, HE = ("init=default",), ("init=xavier",), ("init=he",)


def vanishing(he: Words = HE, depth: int = 30, tanh_start: Words = XAVIER) -> Measured:
    """Where gradients vanish, what it does to learning, its causes and each of the four cures on its own."""
    sigmoid, relu = ("model.activation=sigmoid",), ("model.activation=relu",)
    cases = {
        "sigmoid": (*sigmoid, *DEFAULT),
        "relu": (*relu, *DEFAULT),
        "sigmoid_he": (*sigmoid, *he),
        "relu_he": (*relu, *he),
        "sigmoid_norm": (*sigmoid, *DEFAULT, "model.norm=batch"),
        "relu_norm": (*relu, *DEFAULT, "model.norm=batch"),
        "sigmoid_skip": (*sigmoid, *DEFAULT, "model.residual=true"),
        "relu_skip": (*relu, *DEFAULT, "model.residual=true"),
        "sigmoid_xavier": (*sigmoid, *XAVIER),
        "tanh_xavier": ("model.activation=tanh", *tanh_start),
    }
    found = {name: measured(words, depth) for name, words in cases.items()}
    figure, (layers, depths) = panels("Vanishing gradients", 2)
    line = styles()
    for name, shown in (
        ("sigmoid", "sigmoid, PyTorch's init"),
        ("relu", "ReLU, PyTorch's init"),
        ("sigmoid_he", "sigmoid, He"),
        ("tanh_xavier", "tanh, Xavier"),
        ("relu_he", "ReLU, He"),
        ("sigmoid_norm", "sigmoid, batch norm"),
        ("sigmoid_skip", "sigmoid, skip connections"),
    ):
        g = found[name].gradients
        layers.semilogy(np.arange(1, depth + 1), np.maximum(g / g[-1], 1e-30), **next(line), label=shown)
    label(layers, "layer (1 is next to the input)", "gradient norm / that of the last layer", f"{depth} layers")
    _by_depth(depths)
    moved = learning(cases["sigmoid"])
    return Measured(
        {
            **{f"{name}_spread": s.spread for name, s in found.items()},
            **{f"{name}_decades": abs(math.log10(s.spread)) for name, s in found.items()},
            "sigmoid_saturated": 100 * saturated(network(cases["sigmoid_xavier"], depth)),
            "first_moved": moved[0],
            "last_moved": moved[-1],
            "moved_ratio": moved[0] / moved[-1],
        },
        figure,
    )


def _by_depth(axes: Any) -> None:
    depths, line = (2, 5, 10, 20, 35, 50), styles(marker=True)
    for activation, init, shown in (
        ("sigmoid", XAVIER, "sigmoid, Xavier"),
        ("tanh", XAVIER, "tanh, Xavier"),
        ("tanh", DEFAULT, "tanh, PyTorch's init"),
        ("relu", XAVIER, "ReLU, Xavier"),
        ("relu", HE, "ReLU, He"),
    ):
        spreads = [measured((f"model.activation={activation}", *init), d, 1).spread for d in depths]
        axes.semilogy(depths, spreads, **next(line), label=shown)
    label(axes, "number of layers", "gradient norm, first layer / last layer", "by depth")


def learning(words: Words, depth: int = 10, steps: int = 50, lr: float = 0.5) -> list[float]:
    """How much the weights of each hidden layer change in some steps of SGD, relative to their size."""
    model = network(words, depth).float()
    random = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(EXAMPLES, WIDTH, generator=random), torch.randn(EXAMPLES, WIDTH, generator=random)
    weights = [m.weight for m in model.modules() if isinstance(m, nn.Linear)][:-1]
    before = [w.detach().clone() for w in weights]
    made = torch.optim.SGD(model.parameters(), lr=lr)
    for _ in range(steps):
        made.zero_grad()
        nn.functional.mse_loss(model(inputs), targets).backward()
        made.step()
    return [float((w.detach() - b).norm() / b.norm()) for w, b in zip(weights, before, strict=True)]


def exploding(he: Words = HE, gain: float = 3.0, depth: int = 30) -> Measured:
    """That gradients grow exponentially, what a step does then, and what clipping and a better start change.

    Args:
        gain: of the bad start: weights of standard deviation gain / √n, where ReLU wants √2.
    """
    relu = ("model.activation=relu",)
    bad = (*relu, "init=he", f"init.gain={gain}")
    large, good = measured(bad, depth), measured((*relu, *he), depth)
    layers, errors = np.arange(depth), np.log(large.errors[::-1])
    unclipped, clipped = (after_a_step(network(bad, depth), limit) for limit in (None, 1.0))
    figure, (by_layer, by_length) = panels("Exploding gradients", 2)
    line = styles()
    for name, each in ((f"weights of std {gain:g}/√n", large), ("He: std √2/√n", good)):
        by_layer.semilogy(layers + 1, each.errors / each.errors[-1], **next(line), label=name)
    label(by_layer, "layer (1 is next to the input)", "gradient / that of the last layer", f"ReLU, {depth} layers")
    recurrent(by_length)
    return Measured(
        {
            "growth": float(np.exp(np.polyfit(layers, errors, 1)[0])),
            "straight": float(np.corrcoef(layers, errors)[0, 1] ** 2),
            "loss_ratio": unclipped["ratio"],
            "clipped_loss_ratio": clipped["ratio"],
            "norm": unclipped["norm"],
            "clipped_norm": clipped["norm"],
            "he_growth": good.growth,
        },
        figure,
    )


def after_a_step(model: nn.Module, limit: float | None, lr: float = 0.01) -> dict[str, float]:
    """One step of SGD, the gradients clipped or not: the loss after it over the loss before, and the norm."""
    random = torch.Generator().manual_seed(0)
    inputs = torch.randn(EXAMPLES, WIDTH, generator=random, dtype=torch.float64)
    targets = torch.randn(EXAMPLES, WIDTH, generator=random, dtype=torch.float64)
    made = torch.optim.SGD(model.parameters(), lr=lr)
    loss = nn.functional.mse_loss(model(inputs), targets)
    loss.backward()
    if limit is not None:
        nn.utils.clip_grad_norm_(model.parameters(), limit)
    made.step()
    ratio = nn.functional.mse_loss(model(inputs), targets).item() / loss.item()
    norm = nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    return {"ratio": ratio if math.isfinite(ratio) else math.inf, "norm": float(norm)}
