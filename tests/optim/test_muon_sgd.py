"""MuonSGD against torch's SGD, and against its formula written out with a singular value decomposition."""

import copy
import io

import pytest
import torch
from torch import nn

from dlrun.optim.muon import COEFFICIENTS
from dlrun.optim.muon_sgd import MuonSGD

SHAPES = [(8, 3, 2, 2), (4, 9), (8, 3, 2, 2), (6, 6)]


def parameters(shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64)) for shape in shapes]


def follow(optimizer, params, seeds=range(4)):
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype)
        optimizer.step()


def test_the_others_move_as_with_torchs_nesterov_and_the_decay_is_relative_to_the_first_rate():
    ours, theirs = parameters([(5,), (3, 4)]), parameters([(5,), (3, 4)])
    groups = [{"params": ours[:1], "lr": 0.5}, {"params": ours[1:], "lr": 0.02}]
    optimizer = MuonSGD(groups, weight_decay=0.004, sgd_momentum=0.85)
    settings = [{"lr": 0.5, "weight_decay": 0.008}, {"lr": 0.02, "weight_decay": 0.2}]
    decays = [{"params": [p], **own} for p, own in zip(theirs, settings, strict=True)]
    expected = torch.optim.SGD(decays, momentum=0.85, nesterov=True)
    for factor in (1.0, 0.5):
        for group, other in zip(optimizer.param_groups, expected.param_groups, strict=True):
            other["lr"] = factor * other["lr"]
            group["lr"] = torch.tensor(other["lr"], dtype=torch.float64)  # as in a captured step
        follow(optimizer, ours)
        follow(expected, theirs)
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-14)


def test_hidden_matrices_follow_the_formula():
    params = parameters(SHAPES)
    expected = [p.detach().clone() for p in params]
    momenta = [torch.zeros_like(p) for p in params]
    follow(MuonSGD([{"params": params, "hidden": True}], lr=0.1, weight_decay=0.3), params)
    a, b, c = COEFFICIENTS
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        for w, m in zip(expected, momenta, strict=True):
            grad = torch.randn(w.shape, generator=generator, dtype=torch.float64)
            m.mul_(0.6).add_(grad)
            left, s, right = torch.linalg.svd((grad + 0.6 * m).flatten(1), full_matrices=False)
            s = s / s.norm()
            for _ in range(3):
                s = a * s + b * s**3 + c * s**5
            w.mul_(len(w) ** 0.5 / w.norm()).sub_(0.1 * (left @ s.diag() @ right).view(w.shape))
    for p, w in zip(params, expected, strict=True):
        torch.testing.assert_close(p.detach(), w, rtol=1e-9, atol=1e-11)


def test_what_has_no_gradient_is_left_alone():
    hidden, other = parameters([(3, 3), (4,)])
    before = hidden.detach().clone(), other.detach().clone()
    MuonSGD([{"params": [hidden], "hidden": True}, {"params": [other]}], weight_decay=0.1).step()
    assert torch.equal(hidden, before[0])
    assert torch.equal(other, before[1])


def test_its_state_continues_exactly_from_a_file():
    params = parameters([*SHAPES, (5,)])
    optimizer = MuonSGD(
        [{"params": params[:-1], "hidden": True}, {"params": params[-1:], "lr": 2.0}], weight_decay=0.01
    )
    follow(optimizer, params)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    copies = copy.deepcopy(params)
    again = MuonSGD([{"params": copies[:-1], "hidden": True}, {"params": copies[-1:], "lr": 1.0}], weight_decay=0.01)
    again.load_state_dict(torch.load(file, weights_only=True))
    follow(optimizer, params, range(9, 12))
    follow(again, copies, range(9, 12))
    assert all(torch.equal(p, q) for p, q in zip(params, copies, strict=True))


def test_that_it_can_be_captured_stands_in_its_groups():
    """What makes learning rates tensors on a CUDA device looks for it there."""
    assert MuonSGD(parameters([(4,)]), capturable=True).param_groups[0]["capturable"] is True


def test_a_vector_is_no_matrix():
    with pytest.raises(ValueError, match="hidden: true may hold matrices only"):
        MuonSGD([{"params": parameters([(4,)]), "hidden": True}])
