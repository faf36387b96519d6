"""The speed-record network against a forward pass written out from the paper, and its start."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dlrun.contracts import DataSpec, Kind, Task
from dlrun.errors import ContractError
from dlrun.models.whitened_cnn import whitened_cnn


def images(*shape):
    return DataSpec("photos", Task.CLASSIFICATION, Kind.IMAGE, shape, 10)


def made(*shape, **settings):
    torch.manual_seed(0)
    return whitened_cnn(images(*shape), **settings)


def by_hand(state, x, stages):
    """The same in training mode, straight from the description."""

    def norm(x, bias):
        mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
        return (x - mean) / (var + 1e-12).sqrt() + bias[:, None, None]

    x = F.gelu(F.conv2d(x, state["whitening.weight"], state["whitening.bias"]))
    for i in range(1, stages + 1):
        x = F.max_pool2d(F.conv2d(x, state[f"stage{i}.conv1.weight"], padding=1), 2)
        x = F.gelu(norm(x, state[f"stage{i}.norm1.bias"]))
        x = F.conv2d(x, state[f"stage{i}.conv2.weight"], padding=1)
        x = F.gelu(norm(x, state[f"stage{i}.norm2.bias"]))
    return x.amax((2, 3)) @ state["output.weight"].T


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (3, 20, 41)])
def test_outputs_are_those_of_the_description(shape):
    model = made(*shape, widths=[8, 16, 16])
    for name, parameter in model.named_parameters():
        if "bias" in name:
            nn.init.normal_(parameter)
    x = torch.randn(6, *shape)
    torch.testing.assert_close(model(x), by_hand(dict(model.named_parameters()), x, 3), rtol=1e-4, atol=1e-5)


def test_what_learns_is_counted_and_the_rest_stays():
    model = made(3, 32, 32)
    learns = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    convs = 9 * (24 * 64 + 64 * 64 + 64 * 256 + 256 * 256 * 3)
    assert sum(learns.values()) == 24 + convs + 2 * (64 + 256 + 256) + 2560 == 1_971_352
    assert model.whitening.weight.shape == (24, 3, 2, 2)
    assert {name for name, p in model.named_parameters() if not p.requires_grad} == {"whitening.weight"} | {
        f"stage{i}.norm{j}.weight" for i in (1, 2, 3) for j in (1, 2)
    }
    assert all((norm.weight == 1).all() for norm in model.modules() if isinstance(norm, nn.BatchNorm2d))


def test_it_starts_as_the_identity_with_small_logits():
    model = made(3, 32, 32)
    x = torch.randn(2, 64, 7, 7)
    assert torch.equal(model.stage2.conv1(x)[:, :64], x)
    spread = model.stage2.conv1.weight[64:]  # PyTorch's own: uniform, variance 1 / (3 fan_in)
    assert spread.var().item() == pytest.approx(1 / (3 * 64 * 9), rel=0.05)
    assert model.output.weight.std().item() == pytest.approx(1 / 256, rel=1e-6)


def test_images_too_small_and_other_data_are_refused():
    with pytest.raises(
        ContractError, match=r"halves images in 3 stages, .* shape \(1, 8, 8\): give fewer model.widths"
    ):
        made(1, 8, 8)
    assert made(1, 8, 8, widths=[4, 4])(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    one = DataSpec("photos", Task.REGRESSION, Kind.IMAGE, (1, 8, 8), 1)
    assert whitened_cnn(one, widths=[1]).output.weight.isfinite().all()
    with pytest.raises(ContractError, match="model=whitened_cnn reads images"):
        whitened_cnn(DataSpec("moons", Task.CLASSIFICATION, Kind.VECTOR, (2,), 2))
