import copy

import pytest
import torch
from torch import Tensor, nn

from dlrun.engine.activations import checkpoint_activations
from dlrun.errors import ConfigError


class Block(nn.Module):
    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 6), norm, nn.GELU(), nn.Dropout(0.3))

    def forward(self, x: Tensor, *, scale: float = 1.0) -> Tensor:
        return x + scale * self.layers(x)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(4, 6), nn.ReLU())
        self.blocks = nn.ModuleList([Block(nn.BatchNorm1d(6)) for _ in range(3)])
        self.tail = nn.Sequential(Block(nn.LayerNorm(6)), nn.Linear(6, 2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x, scale=0.5)
        return self.tail(x)


def one_step(net: nn.Module, autocast: bool = False) -> Tensor:
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = net(torch.randn(16, 4)).float().square().mean()
    loss.backward()
    return loss


@pytest.mark.parametrize("autocast", [False, True])
def test_gradients_dropout_statistics_and_names_are_those_of_the_plain_model(autocast):
    torch.manual_seed(0)
    plain = Net()
    saving = copy.deepcopy(plain)
    checkpoint_activations(saving)
    losses = [one_step(net, autocast) for net in (plain, copy.deepcopy(saving), saving)]
    assert losses[0] == losses[1] == losses[2]
    assert plain.state_dict().keys() == saving.state_dict().keys()
    for (name, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad), name
    for (name, a), b in zip(plain.named_buffers(), saving.buffers(), strict=True):
        assert torch.equal(a, b), name
    random = torch.rand(1)
    one_step(plain, autocast)
    assert torch.equal(random, torch.rand(1))  # nothing more is drawn from the generator


def test_less_is_kept_for_the_backward_pass():
    def kept(net: nn.Module) -> int:
        sizes: list[int] = []

        def pack(tensor: Tensor) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            net(torch.randn(16, 4))
        return sum(sizes)

    plain, saving = Net(), Net()
    checkpoint_activations(saving)
    assert kept(saving) < kept(plain) / 2


def test_a_copy_has_its_own_weights():
    saving = Net()
    checkpoint_activations(saving)
    twin = copy.deepcopy(saving)
    with torch.no_grad():
        for p in twin.blocks.parameters():
            p.zero_()
    one_step(twin)
    assert all(p.grad is None for p in saving.parameters())


def test_models_without_blocks_are_refused():
    with pytest.raises(ConfigError, match=r"checkpoint_activations=true: Sequential has no repeated blocks"):
        checkpoint_activations(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
