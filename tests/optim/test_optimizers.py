"""Each optimizer of conf/optimizer against its own equations, written from the paper in float64 numpy."""

import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dlrun.build.optimizing import can_fuse

Array = np.ndarray
STEPS = 8
START = np.array([[1.0, -2.0, 0.5], [0.3, 4.0, -1.5]])
FALLING = np.geomspace(1, 0.1, STEPS)[:, None, None]  # so that AMSGrad's maximum is not the latest value
GRADIENTS = np.random.default_rng(0).normal(size=(STEPS, 2, 3)) * np.array([0.1, 1.0, 10.0]) * FALLING


def sgd(w: Array, gradients: Array, *, lr, momentum, weight_decay, nesterov, dampening=0.0, **_) -> Array:
    v = None
    for g in gradients:
        g = g + weight_decay * w
        v = g if v is None else momentum * v + (1 - dampening) * g
        w = w - lr * (g + momentum * v if nesterov else v)
    return w


def adagrad(w: Array, gradients: Array, *, lr, lr_decay, weight_decay, initial_accumulator_value, eps) -> Array:
    s = np.full_like(w, initial_accumulator_value)
    for t, g in enumerate(gradients):
        g = g + weight_decay * w
        s = s + g**2
        w = w - lr / (1 + t * lr_decay) * g / (np.sqrt(s) + eps)
    return w


def adadelta(w: Array, gradients: Array, *, lr, rho, eps, weight_decay) -> Array:
    s, d = np.zeros_like(w), np.zeros_like(w)
    for g in gradients:
        g = g + weight_decay * w
        s = rho * s + (1 - rho) * g**2
        step = np.sqrt(d + eps) / np.sqrt(s + eps) * g
        d = rho * d + (1 - rho) * step**2
        w = w - lr * step
    return w


def rmsprop(w: Array, gradients: Array, *, lr, alpha, eps, weight_decay, momentum, centered) -> Array:
    s, mean, v = np.zeros_like(w), np.zeros_like(w), np.zeros_like(w)
    for g in gradients:
        g = g + weight_decay * w
        s = alpha * s + (1 - alpha) * g**2
        mean = alpha * mean + (1 - alpha) * g
        v = momentum * v + g / (np.sqrt(s - mean**2 if centered else s) + eps)
        w = w - lr * v
    return w


def adam(w: Array, gradients: Array, *, lr, betas, eps, weight_decay, amsgrad=False, decoupled=False, **_) -> Array:
    """AMSGrad as torch has it: the running maximum is bias-corrected, the paper's is not."""
    (b1, b2), m, v, largest = betas, 0.0, 0.0, 0.0
    for t, g in enumerate(gradients, 1):
        w, g = (w * (1 - lr * weight_decay), g) if decoupled else (w, g + weight_decay * w)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        largest = np.maximum(largest, v) if amsgrad else v
        w = w - lr * (m / (1 - b1**t)) / (np.sqrt(largest / (1 - b2**t)) + eps)
    return w


def adamw(w: Array, gradients: Array, **settings) -> Array:
    return adam(w, gradients, decoupled=True, **settings)


def adamax(w: Array, gradients: Array, *, lr, betas, eps, weight_decay) -> Array:
    (b1, b2), m, u = betas, 0.0, 0.0
    for t, g in enumerate(gradients, 1):
        g = g + weight_decay * w
        m = b1 * m + (1 - b1) * g
        u = np.maximum(b2 * u, np.abs(g) + eps)
        w = w - lr / (1 - b1**t) * m / u
    return w


def nadam(w: Array, gradients: Array, *, lr, betas, eps, momentum_decay, weight_decay, decoupled_weight_decay) -> Array:
    (b1, b2), m, v, product = betas, 0.0, 0.0, 1.0
    for t, g in enumerate(gradients, 1):
        w, g = (w * (1 - lr * weight_decay), g) if decoupled_weight_decay else (w, g + weight_decay * w)
        mu, mu_next = (b1 * (1 - 0.5 * 0.96 ** (s * momentum_decay)) for s in (t, t + 1))
        product *= mu
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        ahead = mu_next * m / (1 - product * mu_next) + (1 - mu) * g / (1 - product)
        w = w - lr * ahead / (np.sqrt(v / (1 - b2**t)) + eps)
    return w


def radam(w: Array, gradients: Array, *, lr, betas, eps, weight_decay, decoupled_weight_decay) -> Array:
    (b1, b2), m, v = betas, 0.0, 0.0
    limit = 2 / (1 - b2) - 1
    for t, g in enumerate(gradients, 1):
        w, g = (w * (1 - lr * weight_decay), g) if decoupled_weight_decay else (w, g + weight_decay * w)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        rho = limit - 2 * t * b2**t / (1 - b2**t)
        step = m / (1 - b1**t)
        if rho > 5:  # from the sixth step on
            r = np.sqrt((rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho))
            step = step * r * np.sqrt(1 - b2**t) / (np.sqrt(v) + eps)
        w = w - lr * step
    return w


def adafactor(w: Array, gradients: Array, *, lr, beta2_decay, eps, d, weight_decay) -> Array:
    least_square, least_size = np.finfo(np.float64).eps if eps[0] is None else eps[0], eps[1]
    rows, columns = np.zeros((2, 1)), np.zeros((1, 3))
    for t, g in enumerate(gradients, 1):
        forget = t**beta2_decay
        rows = (1 - forget) * rows + forget * (g**2).mean(1, keepdims=True)
        columns = (1 - forget) * columns + forget * (g**2).mean(0, keepdims=True)
        u = g / np.sqrt(np.maximum(rows @ columns / max(rows.mean(), least_square), least_square**2))
        step = max(least_size, np.sqrt((w**2).mean())) * min(lr, 1 / np.sqrt(t))
        w = w * (1 - lr * weight_decay) - step * u / max(1, np.sqrt((u**2).mean()) / d)
    return w


def asgd(w: Array, gradients: Array, *, lr, lambd, alpha, t0, weight_decay) -> Array:
    eta = lr
    for t, g in enumerate(gradients, 1):
        w = w * (1 - lambd * eta) - eta * (g + weight_decay * w)
        eta = lr / (1 + lambd * lr * t) ** alpha
    return w


def rprop(w: Array, gradients: Array, *, lr, etas, step_sizes) -> Array:
    size, before = np.full_like(w, lr), np.zeros_like(w)
    for g in gradients:
        agree = np.sign(g * before)
        size = np.clip(size * np.select([agree < 0, agree > 0], etas, 1.0), *step_sizes)
        g = np.where(agree < 0, 0.0, g)
        w = w - np.sign(g) * size
        before = g
    return w


REFERENCES: dict[str, Callable[..., Array]] = {
    "sgd": sgd, "momentum": sgd, "nesterov": sgd, "adagrad": adagrad, "adadelta": adadelta, "rmsprop": rmsprop,
    "adam": adam, "amsgrad": adam, "adamax": adamax, "nadam": nadam, "radam": radam, "adamw": adamw,
    "adafactor": adafactor, "asgd": asgd, "rprop": rprop,
}  # fmt: skip


def run(config: dict[str, Any], make_optimizer) -> Array:
    model = nn.Linear(3, 2, bias=False, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(torch.from_numpy(START))
    optimizer = make_optimizer(config, model)
    for g in GRADIENTS:
        model.weight.grad = torch.from_numpy(g.copy())
        optimizer.step()
    return model.weight.detach().numpy()


def reference(config: dict[str, Any], name: str) -> Array:
    skipped = {"_target_", "_partial_", "param_groups", "fused"}
    settings = {key: value for key, value in config["optimizer"].items() if key not in skipped}
    return REFERENCES[name](START, GRADIENTS, **settings)


@pytest.mark.parametrize("name", REFERENCES)
def test_steps_equal_the_paper(name, compose, make_optimizer):
    config = compose(name)
    found = run(config, make_optimizer)
    assert np.abs(found - START).min() > 1e-5  # it moved everywhere
    np.testing.assert_allclose(found, reference(config, name), rtol=1e-6 if name == "asgd" else 1e-10)


VARIANTS = [
    *[(name, {"weight_decay": 0.1}) for name in REFERENCES if name != "rprop"],
    ("momentum", {"dampening": 0.5}),
    ("adagrad", {"lr_decay": 0.1, "initial_accumulator_value": 0.1}),
    ("rmsprop", {"momentum": 0.9}),
    ("rmsprop", {"centered": True, "alpha": 0.9}),
    ("nadam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("radam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("adamw", {"amsgrad": True}),
    ("adafactor", {"d": 2.0, "lr": 0.5}),
    ("asgd", {"lambd": 0.1}),
]


@pytest.mark.parametrize(("name", "changes"), VARIANTS, ids=str)
def test_every_listed_argument_does_what_it_says(name, changes, compose, make_optimizer):
    config = compose(name, **{f"optimizer__{key}": value for key, value in changes.items()})
    found = run(config, make_optimizer)
    assert not np.allclose(found - START, run(compose(name), make_optimizer) - START, rtol=1e-5, atol=0)
    np.testing.assert_allclose(found, reference(config, name), rtol=1e-6 if name == "asgd" else 1e-10)


@pytest.mark.parametrize("line_search", [None, "strong_wolfe"])
def test_lbfgs_solves_a_quadratic_in_few_steps(line_search, compose, make_optimizer):
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(10, 10, dtype=torch.float64, generator=generator)
    matrix = root @ root.T / 10 + torch.eye(10, dtype=torch.float64)
    target = torch.randn(10, dtype=torch.float64, generator=generator)
    model = nn.Linear(10, 1, bias=False, dtype=torch.float64)
    optimizer = make_optimizer(compose("lbfgs", optimizer__line_search_fn=line_search), model)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        x = model.weight[0]
        loss = x @ matrix @ x / 2 - target @ x
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
    least = -target @ torch.linalg.solve(matrix, target) / 2
    assert 0 <= closure().item() - least.item() < 1e-9


@pytest.mark.parametrize(
    ("name", "device", "fuses"), [("Adagrad", "cuda", False), ("AdamW", "cuda", True), ("Adagrad", "cpu", True)]
)
def test_adagrads_kernel_is_asked_for_on_the_cpu_alone(name, device, fuses):
    weight = SimpleNamespace(device=torch.device(device), is_floating_point=lambda: True)
    model = SimpleNamespace(parameters=lambda: [weight])
    parameters = inspect.signature(getattr(torch.optim, name)).parameters
    assert can_fuse(parameters, {"_target_": f"torch.optim.{name}"}, model) is fuses
