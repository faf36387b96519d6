import io

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dlrun.optim.averaging import ExponentialMovingAverage, StochasticWeightAverage


class Net(nn.Sequential):
    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))


def train(model: nn.Module, steps: int, *after) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(8, 3)).square().mean().backward()
        optimizer.step()
        for call in after:
            call()


def test_parameters_and_statistics_equal_torch_and_other_buffers_are_copied():
    model = Net()
    ours = ExponentialMovingAverage(model, 0.9, warmup=False)
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    theirs.update_parameters(model)  # the first call copies
    train(model, 20, ours.update, lambda: theirs.update_parameters(model))
    expected = theirs.module.state_dict()
    for name, value in ours.module.state_dict().items():
        if name in ("mask", "1.num_batches_tracked"):
            assert torch.equal(value, model.state_dict()[name])
        else:
            assert torch.equal(value, expected[name]), name
    assert ours.module[1].num_batches_tracked == 20
    assert not torch.equal(ours.module[1].running_mean, model[1].running_mean)


def test_warmup_is_the_weighted_mean_it_says():
    model = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        model.weight.fill_(5.0)
        average = ExponentialMovingAverage(model, 0.3)
        expected = 5.0
        for t, value in enumerate([1.0, 2.0, 4.0, 8.0, 16.0, 32.0]):
            model.weight.fill_(value)
            average.update()
            decay = min(0.3, (1 + t) / (10 + t))  # 0.1, 0.18, 0.25, then 0.3
            expected = decay * expected + (1 - decay) * value
            assert average.module.weight.item() == pytest.approx(expected, rel=1e-12)


def test_the_average_is_in_evaluation_mode_and_apart_from_the_model():
    model = Net().train()
    average = ExponentialMovingAverage(model, 0.5)
    assert not average.module.training
    assert model.training
    assert not any(p.requires_grad for p in average.module.parameters())
    before = {name: value.clone() for name, value in average.module.state_dict().items()}
    train(model, 1)
    assert all(torch.equal(before[name], value) for name, value in average.module.state_dict().items())


def test_shared_and_mixed_precision_parameters():
    model = nn.ModuleList([nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False), nn.Linear(2, 2).to(torch.float64)])
    model[1].weight = model[0].weight
    average = ExponentialMovingAverage(model, 0.5, warmup=False)
    start = [p.clone() for p in model.parameters()]
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1.0)
    average.update()
    assert average.module[1].weight is average.module[0].weight
    for ours, old in zip(average.module.parameters(), start, strict=True):
        torch.testing.assert_close(ours, old + 0.5)


def test_a_restored_average_continues_identically():
    def restored(state: dict, model: nn.Module) -> ExponentialMovingAverage:
        made = ExponentialMovingAverage(model, 0.9)
        made.load_state_dict(state)
        return made

    model = Net()
    average = ExponentialMovingAverage(model, 0.9)
    train(model, 3, average.update)
    buffer = io.BytesIO()
    torch.save(average.state_dict(), buffer)
    buffer.seek(0)
    second = restored(torch.load(buffer, weights_only=True), model)
    train(model, 3, average.update, second.update)
    assert second.updates == average.updates == 6
    for name, value in average.module.state_dict().items():
        assert torch.equal(second.module.state_dict()[name], value)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_decay_out_of_range_is_refused(decay):
    with pytest.raises(ValueError, match=r"decay must be in \[0, 1\)"):
        ExponentialMovingAverage(nn.Linear(1, 1), decay)


def test_the_stochastic_average_is_torchs_over_the_steps_it_takes():
    model = Net()
    ours = StochasticWeightAverage(model, start=4, every=3)
    theirs = AveragedModel(model)
    taken = []

    def update() -> None:
        ours.update()
        assert ours.evaluated is (ours.module if ours.steps >= 4 else model)
        if ours.steps in (4, 7, 10):
            theirs.update_parameters(model)
            taken.append(model[0].weight.detach().clone())

    train(model, 12, update)
    assert ours.updates == 3
    for a, b in zip(ours.module.parameters(), theirs.module.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(ours.module[0].weight, torch.stack(taken).mean(0))


def test_a_stochastic_average_that_has_not_begun_saves_the_live_weights():
    model = Net()
    average = StochasticWeightAverage(model, start=5, every=1)
    train(model, 3, average.update)
    saved = average.state_dict()
    assert torch.equal(saved["module"]["0.weight"], model[0].weight)
    again = StochasticWeightAverage(model, start=5, every=1)
    again.load_state_dict(saved)
    train(model, 4, average.update, again.update)
    assert again.updates == average.updates == 3
    assert torch.equal(again.module[0].weight, average.module[0].weight)


def test_a_copy_of_recurrent_layers_lies_in_one_piece_of_memory_again(monkeypatch):
    flattened = []
    monkeypatch.setattr(nn.RNNBase, "flatten_parameters", lambda part: flattened.append(part))
    average = ExponentialMovingAverage(nn.LSTM(3, 4, 2), 0.9)
    assert average.module in flattened
