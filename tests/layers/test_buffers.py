import copy

import torch
from torch import nn

from dlrun.layers.buffers import buffers_kept


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("absent", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Dropout(0.5), nn.InstanceNorm2d(3, track_running_stats=True),
        nn.Flatten(), nn.BatchNorm1d(108, momentum=None), Counter(),
    )  # fmt: skip


def test_buffers_are_kept_while_batches_are_normalised_as_ever():
    model = net()
    inputs = torch.randn(4, 2, 8, 8)
    model(inputs)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    twin = copy.deepcopy(model)
    torch.manual_seed(1)
    expected = twin(inputs)
    torch.manual_seed(1)
    with buffers_kept(model):
        assert torch.equal(model(inputs), expected)
    assert all(torch.equal(before[name], buffer) for name, buffer in model.named_buffers())
    torch.manual_seed(1)
    model(inputs)
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), twin.buffers(), strict=True))
    assert model[-1].calls == 2


def test_they_are_kept_by_a_compiled_model_too():
    model, inputs = net()[:2], torch.randn(4, 2, 8, 8)
    compiled = torch.compile(model, backend="eager")
    for expected in (1, 2):
        compiled(inputs)
        with buffers_kept(model):
            compiled(inputs)
        assert model[1].num_batches_tracked == expected
