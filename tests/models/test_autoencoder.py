"""The autoencoder against the network written out, and what its bottleneck lets through."""

import pytest
import torch
from torch.nn import functional as F

from dlrun.contracts import DataSpec, Kind, Task
from dlrun.errors import ContractError
from dlrun.models.autoencoder import autoencoder


def images(*shape, task=Task.RECONSTRUCTION):
    outputs = torch.Size(shape).numel() if task is Task.RECONSTRUCTION else 10
    return DataSpec("photos", task, Kind.IMAGE, shape, outputs)


def test_the_network_is_strided_convolutions_there_and_back():
    torch.manual_seed(0)
    model = autoencoder(images(1, 28, 28), norm="none")
    x = torch.randn(3, 1, 28, 28)
    c1, b1, c2, b2, w3, b3, w4, b4, c5, b5, c6, b6 = model.parameters()
    h = torch.relu(F.conv2d(torch.relu(F.conv2d(x, c1, b1, 2, 1)), c2, b2, 2, 1))
    code = F.linear(h.flatten(1), w3, b3)
    torch.testing.assert_close(model.encode(x), code)
    h = torch.relu(F.linear(code, w4, b4)).reshape(3, 64, 7, 7)
    h = torch.relu(F.conv_transpose2d(h, c5, b5, 2, 1, 1))
    torch.testing.assert_close(model(x), F.conv_transpose2d(h, c6, b6, 2, 1, 1).flatten(1))


@pytest.mark.parametrize("size", [(28, 28), (1, 1), (7, 12), (33, 2)])
@pytest.mark.parametrize("bottleneck", [5, None])
@pytest.mark.parametrize("norm", ["none", "batch", "weight"])
def test_any_size_comes_back(size, bottleneck, norm):
    model = autoencoder(images(2, *size), channels=[4, 5, 6], bottleneck=bottleneck, norm=norm)
    x = torch.randn(4, 2, *size)
    assert model(x).shape == (4, 2 * size[0] * size[1])
    assert torch.equal(model.eval()(x), model.decode(model.encode(x)).flatten(1))
    model(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_nothing_but_the_code_passes_the_bottleneck():
    """The derivative of the output by the input has the rank of the bottleneck."""
    torch.manual_seed(0)
    model = autoencoder(images(1, 8, 8), channels=[8, 16], bottleneck=3, activation="tanh", norm="none").double()
    x = torch.randn(1, 1, 8, 8, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(model, x).reshape(64, 64)
    assert torch.linalg.matrix_rank(jacobian, rtol=1e-9) == 3


def test_weight_norm_of_transposed_convolutions_is_by_output():
    model = autoencoder(images(3, 8, 8), channels=[4, 6], norm="weight")
    assert model.decoder.conv2.parametrizations.weight.original0.shape == (1, 4, 1, 1)


def test_other_tasks_are_refused_with_the_way_out():
    with pytest.raises(ContractError, match=r"data=photos is a classification task: write data.reconstruct=true"):
        autoencoder(images(1, 28, 28, task=Task.CLASSIFICATION))
    with pytest.raises(ContractError, match="model=autoencoder reads images"):
        autoencoder(DataSpec("wine", Task.RECONSTRUCTION, Kind.VECTOR, (13,), 13))
