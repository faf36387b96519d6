import copy
import io

import pytest
import torch
from torch import Tensor, nn

from dlrun.optim.muon import COEFFICIENTS, Muon, orthogonalize
from dlrun.optim.parameter_groups import parameter_groups
from dlrun.optim.rules import ParameterGroups


class Net(nn.Sequential):
    """Input layer, two hidden matrices of one shape and a third, a convolution, an output layer."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.Conv2d(4, 6, 3, padding=1),
            nn.Flatten(),
            nn.Linear(6 * 16, 8),
            nn.Linear(8, 8),
            nn.LayerNorm(8),
            nn.Linear(8, 8),
            nn.Linear(8, 2),
        )


HIDDEN = {"1.weight", "3.weight", "4.weight", "6.weight"}


def train(model: nn.Module, optimizer: torch.optim.Optimizer, seeds: range) -> None:
    for seed in seeds:
        inputs = torch.randn(8, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
        optimizer.zero_grad()
        model(inputs).square().mean().backward()
        optimizer.step()


def hidden_names(optimizer: Muon, model: nn.Module) -> set[str]:
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)] for group in optimizer.param_groups if group["hidden"] for p in group["params"]}


@pytest.mark.parametrize("shape", [(3, 5, 8), (2, 9, 4), (1, 6, 6)])
def test_singular_values_follow_the_quintic_and_vectors_stay(shape):
    matrices = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    left, values, right = torch.linalg.svd(matrices, full_matrices=False)
    values = values / values.norm(dim=-1, keepdim=True)
    a, b, c = COEFFICIENTS
    for _ in range(5):
        values = a * values + b * values**3 + c * values**5
    torch.testing.assert_close(orthogonalize(matrices, 5), left @ values.diag_embed() @ right, rtol=1e-9, atol=1e-9)
    assert 0.6 < values.min() < values.max() < 1.25


@pytest.mark.parametrize("rule", ["original", "match_rms_adamw"])
@pytest.mark.parametrize("nesterov", [True, False])
def test_matrices_move_as_with_torch(rule, nesterov):
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=generator) for shape in [(8, 8), (16, 4), (4, 16), (8, 8)]]
    settings = {"lr": 0.1, "weight_decay": 0.1, "momentum": 0.9, "nesterov": nesterov, "adjust_lr_fn": rule}
    runs = []
    for make in (
        lambda p: Muon([{"params": p, "hidden": True}], **settings),
        lambda p: torch.optim.Muon(p, **settings),
    ):
        params = [nn.Parameter(p.clone()) for p in start]
        optimizer, gradients = make(params), torch.Generator().manual_seed(1)
        for _ in range(4):
            for p in params:
                p.grad = torch.randn(p.shape, generator=gradients)
            optimizer.step()
        runs.append([p.detach() - s for p, s in zip(params, start, strict=True)])
    for ours, theirs in zip(*runs, strict=True):  # torch iterates in bfloat16, of 8 bits
        assert (ours - theirs).norm() < 0.02 * theirs.norm()


def test_the_update_is_orthogonal_of_the_documented_size():
    weight = nn.Parameter(torch.zeros(8, 32, dtype=torch.float64))
    weight.grad = torch.randn(8, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    Muon([{"params": [weight], "hidden": True}], lr=0.1).step()
    scale = 0.1 * 0.2 * 32**0.5
    values = torch.linalg.svdvals(weight.detach() / scale)
    assert 0.65 < values.min() < values.max() < 1.25
    left, _, right = torch.linalg.svd(weight.grad, full_matrices=False)
    assert torch.linalg.vector_norm(-weight.detach() / scale - left @ right) < 0.25 * 8**0.5


def test_everything_else_is_adamw_exactly():
    model = Net()
    twin = copy.deepcopy(model)
    optimizer = Muon(model.parameters(), lr=0.01, weight_decay=0.1, betas=(0.8, 0.95), fused=True)
    others = [p for name, p in twin.named_parameters() if name not in HIDDEN]
    reference = torch.optim.AdamW(others, lr=0.01, weight_decay=0.1, betas=(0.8, 0.95), fused=True)
    for seed in range(3):
        train(model, optimizer, range(seed, seed + 1))
        for (name, p), (_, q) in zip(model.named_parameters(), twin.named_parameters(), strict=True):
            q.grad = p.grad.clone()
            if name in HIDDEN:
                q.data.copy_(p.data)
        reference.step()
        for (name, p), (_, q) in zip(model.named_parameters(), twin.named_parameters(), strict=True):
            assert torch.equal(p, q), name


def test_hidden_matrices_are_found_without_and_with_named_groups():
    model = Net()
    assert hidden_names(Muon(model.parameters()), model) == HIDDEN
    assert hidden_names(Muon([{"params": list(model.parameters())}]), model) == HIDDEN
    rules = ParameterGroups(split_hidden=True, lr_factors={"4": 0.5, "0": 2.0})
    optimizer = Muon(parameter_groups(model, lr=0.1, weight_decay=0.1, rules=rules), lr=0.1)
    assert hidden_names(optimizer, model) == HIDDEN
    assert {group["lr"] for group in optimizer.param_groups} == {0.05, 0.1, 0.2}
    assert not hidden_names(Muon(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)).parameters()), model)


def test_convolutions_are_matrices():
    weight = nn.Parameter(torch.zeros(4, 2, 3, 3))
    gradient = torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    flat = nn.Parameter(torch.zeros(4, 18))
    weight.grad, flat.grad = gradient.to(memory_format=torch.channels_last), gradient.flatten(1).clone()
    for p in (weight, flat):
        Muon([{"params": [p], "hidden": True}]).step()
    torch.testing.assert_close(weight.flatten(1), flat)


def test_a_restored_run_continues_identically():
    model = Net()
    optimizer = Muon(model.parameters(), lr=0.01)
    train(model, optimizer, range(3))
    buffer = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, buffer)
    buffer.seek(0)
    saved = torch.load(buffer, weights_only=True)
    second = Net()
    second.load_state_dict(saved["model"])
    restored = Muon(second.parameters(), lr=0.5)
    restored.load_state_dict(saved["optimizer"])
    train(model, optimizer, range(3, 6))
    train(second, restored, range(3, 6))
    for p, q in zip(model.parameters(), second.parameters(), strict=True):
        assert torch.equal(p, q)


def test_a_learning_rate_in_a_tensor_and_missing_gradients():
    model, twin = Net(), Net()
    first, second = Muon(model.parameters(), lr=0.01), Muon(twin.parameters(), lr=0.01)
    for group in second.param_groups:
        group["lr"] = torch.tensor(0.01)
        group["foreach"] = False
    model[4].requires_grad_(False)
    twin[4].requires_grad_(False)
    train(model, first, range(3))
    train(twin, second, range(3))
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)
    assert torch.equal(model[4].weight, Net()[4].weight)


def test_closure_and_added_groups():
    model = Net()
    layers = list(model)
    optimizer = Muon(nn.ModuleList(layers[:6]).parameters())
    optimizer.add_param_group({"params": nn.ModuleList(layers[6:]).parameters(), "hidden": False})
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = model(torch.ones(2, 1, 4, 4)).square().mean()
        loss.backward()
        return loss

    before = closure().item()
    assert optimizer.step(closure).item() == before
    assert closure().item() < before


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match=r"hidden: true may hold matrices only"):
        Muon([{"params": [nn.Parameter(torch.zeros(3))], "hidden": True}])
    with pytest.raises(ValueError, match=r"adjust_lr_fn must be .*, got rms"):
        Muon([nn.Parameter(torch.zeros(3, 3))], adjust_lr_fn="rms")
