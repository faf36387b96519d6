"""What is minimised, against closed forms."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlrun.contracts import IGNORED, Batch
from dlrun.engine.objective import Distillation, Objective, Penalty


class TokenLoss(nn.Module):
    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)

    def weight(self, targets: Tensor) -> Tensor:
        return (targets != IGNORED).sum()


def test_the_loss_alone_costs_nothing_more():
    loss = nn.CrossEntropyLoss()
    outputs = torch.randn(4, 3)
    batch = Batch(torch.zeros(4, 2), torch.tensor([0, 1, 2, 0]))
    values: list[Tensor] = []
    objective = Objective(lambda o, t: values.append(loss(o, t)) or values[-1])
    assert objective(outputs, batch) is values[0]


def test_penalties_have_the_gradients_they_say():
    w, untouched = nn.Parameter(torch.tensor([1.0, -2.0, 0.0])), nn.Parameter(torch.ones(1))
    penalty = Penalty([w], l1=0.3, l2=0.1)
    outputs = torch.zeros(2, 1) * untouched
    value = penalty(outputs, Batch(torch.zeros(2, 1), torch.zeros(2, 1)))
    assert value.item() == pytest.approx(0.3 * 3 + 0.05 * 5)
    value.backward()
    torch.testing.assert_close(w.grad, torch.tensor([0.3 + 0.1, -0.3 - 0.2, 0.0]))
    assert untouched.grad is None


def test_distillation_by_hand():
    """Two classes, logits (0, T·ln 3) against (0, 0): the teacher says 1/4 and 3/4, the student 1/2 and 1/2."""
    temperature = 4.0
    teacher = nn.Linear(1, 2)
    with torch.no_grad():
        teacher.weight.zero_()
        teacher.bias.copy_(torch.tensor([0.0, temperature * math.log(3)]))
    outputs = torch.zeros(5, 2, requires_grad=True)
    batch = Batch(torch.zeros(5, 1), torch.zeros(5, dtype=torch.long))
    kl = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    objective = Objective(nn.CrossEntropyLoss(), [Distillation(teacher, temperature, factor=0.7)], factor=0.3)
    value = objective(outputs, batch)
    assert value.item() == pytest.approx(0.3 * math.log(2) + 0.7 * temperature**2 * kl, rel=1e-6)
    value.backward()
    by_hand = 0.3 * torch.tensor([-0.5, 0.5]) + 0.7 * temperature * torch.tensor([0.25, -0.25])
    torch.testing.assert_close(outputs.grad, by_hand.expand(5, 2) / 5)
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())


def test_a_student_equal_to_its_teacher_has_nothing_to_learn_from_it():
    torch.manual_seed(0)
    teacher = nn.Linear(3, 4)
    batch = Batch(torch.randn(6, 3), torch.zeros(6, dtype=torch.long))
    outputs = teacher(batch.inputs)
    assert Distillation(teacher, 2.0, 1.0)(outputs, batch).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_micro_batches_add_up_also_where_some_tokens_do_not_count(size):
    torch.manual_seed(0)
    embedding, teacher = nn.Embedding(9, 5).double(), nn.Embedding(9, 5).double()
    targets = torch.randint(5, (7, 4))
    targets[0, 1:] = targets[3, 2:] = IGNORED
    batch = Batch(torch.randint(9, (7, 4)), targets)
    terms = [Penalty([embedding.weight], l1=0.01, l2=0.1), Distillation(teacher, 3.0, 0.5)]
    objective = Objective(TokenLoss(), terms, factor=0.5)
    whole = objective(embedding(batch.inputs), batch)
    parts = batch.split(size)
    shares = objective.shares(parts)
    pieces = [objective(embedding(part.inputs), part, share) for part, share in zip(parts, shares, strict=True)]
    torch.testing.assert_close(sum(pieces), whole)
    counted = targets != IGNORED
    ours, theirs = (F.log_softmax(m(batch.inputs)[counted] / 3, -1) for m in (embedding, teacher))
    kl = (theirs.exp() * (theirs - ours)).sum(-1).mean()
    torch.testing.assert_close(terms[1](embedding(batch.inputs), batch), 0.5 * 9 * kl)
