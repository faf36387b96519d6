"""pytorch_optimizer by name: refusals always, the optimizers themselves where it is installed."""

import sys

import pytest
import torch
from torch import nn

from dlrun.errors import ConfigError, MissingExtraError
from dlrun.optim.library import by_name


def groups() -> list[dict[str, object]]:
    torch.manual_seed(0)
    return [{"params": list(nn.Linear(4, 3).parameters()), "lr": 1e-3, "lr_factor": 1.0, "name": "all"}]


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'dlrun\[pytorch_optimizer\]'"):
        by_name(groups(), name="Lion")


def test_names_are_checked():
    pytest.importorskip("pytorch_optimizer")
    with pytest.raises(ConfigError, match=r"got 'Lyon'. Did you mean 'lion'"):
        by_name(groups(), name="Lyon")
    with pytest.raises(ConfigError, match="AdaHessian cannot be used here: it needs the gradient's own graph"):
        by_name(groups(), name="AdaHessian")
    assert type(by_name(groups(), name="LION", betas=(0.95, 0.98))).__name__ == "Lion"


def test_lion_is_the_sign_of_interpolated_momentum():
    pytest.importorskip("pytorch_optimizer")
    p = nn.Parameter(torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64))
    optimizer = by_name([p], name="lion", lr=0.1, betas=(0.9, 0.99))
    expected, momentum = p.detach().clone(), torch.zeros(3, dtype=torch.float64)
    for i in range(5):
        gradient = torch.tensor([1.0, -0.5, 0.1 - 0.1 * i], dtype=torch.float64)
        p.grad = gradient.clone()
        optimizer.step()
        expected = expected - 0.1 * (0.9 * momentum + 0.1 * gradient).sign()
        momentum = 0.99 * momentum + 0.01 * gradient
    torch.testing.assert_close(p.detach(), expected)
