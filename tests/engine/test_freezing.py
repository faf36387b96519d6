import pytest
import torch
from torch import nn

from dlrun.engine.freezing import Freezing
from dlrun.errors import ConfigError


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, affine=False), nn.Dropout(0.5), nn.Linear(4, 4))
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.dropout(self.body(x)))


def learning(net: nn.Module) -> set[str]:
    return {name for name, p in net.named_parameters() if p.requires_grad}


def test_the_last_pattern_that_matches_counts_and_the_step_decides():
    net = Net()
    freezing = Freezing(net, {"*": None, "body": 6, "*.bias": 3, "body.0": None, "head": 0})
    assert learning(net) == {"head.weight", "head.bias", "body.3.weight", "body.3.bias"}  # what ever learns
    seen = []
    for step in range(8):
        freezing.at(step)
        seen.append(learning(net))
    head = {"head.weight", "head.bias"}
    assert seen[:3] == [head] * 3
    assert seen[3:6] == [head | {"body.3.bias"}] * 3
    assert seen[6:] == [head | {"body.3.bias", "body.3.weight"}] * 2
    resumed = Freezing(other := Net(), {"*": None, "body": 6, "body.0": None, "head": 0})
    resumed.at(7)
    assert learning(other) == seen[7]


def test_some_learn_until_a_step_and_their_gradients_are_not_computed_then():
    net = Net()
    freezing = Freezing(net, {"body.3": 1}, {"body.0.bias": 2, "body": 4})
    assert learning(net) == {name for name, _ in net.named_parameters()}  # what ever learns
    head, first, last = ({f"{module}.{leaf}" for leaf in ("weight", "bias")} for module in ("head", "body.0", "body.3"))
    seen = []
    for step in range(6):
        freezing.at(step)
        seen.append(learning(net))
    assert seen[0] == head | first
    assert seen[1] == head | first | last
    assert seen[2:4] == [head | last | {"body.0.weight"}] * 2
    assert seen[4:] == [head] * 2
    net(torch.randn(8, 4)).sum().backward()
    assert {name for name, p in net.named_parameters() if p.grad is not None} == head
    with pytest.raises(ConfigError, match="until lets no parameter learn to the end of training"):
        Freezing(Net(), {}, {"*": 3})


def test_a_frozen_module_extracts_features_even_after_a_validation():
    net = Net().train()
    freezing = Freezing(net, {"*": None, "head": 0, "body": 2})
    inputs = torch.randn(8, 4)
    freezing.at(0)
    statistics = net.body[1].running_mean.clone()
    net.eval()
    net.train()  # what an evaluation does at its end
    freezing.at(1)
    assert not any(m.training for m in net.body.modules())
    assert net.dropout.training
    assert net.head.training
    net(inputs).sum().backward()
    assert torch.equal(net.body[1].running_mean, statistics)
    assert net.body[0].weight.grad is None
    freezing.at(2)
    assert all(m.training for m in net.modules())


def test_parameters_that_no_pattern_names_are_left_as_they_are():
    net = Net()
    net.head.bias.requires_grad_(False)
    Freezing(net, {"body": None}).at(0)
    assert learning(net) == {"head.weight"}


@pytest.mark.parametrize(
    ("thaws", "message"),
    [
        ({"haed": 0}, r"trainer.freeze: 'haed' matches no parameter of the model; nearest are head"),
        ({"*": None, "head": 5}, r"trainer.freeze leaves nothing to train before step 5"),
    ],
)
def test_mistakes_are_named(thaws, message):
    with pytest.raises(ConfigError, match=message):
        Freezing(Net(), thaws)


def test_everything_may_be_frozen():
    Freezing(net := Net(), {"*": None}).at(0)
    assert not learning(net)


def test_tied_weights_go_by_either_name():
    net = nn.ModuleDict({"embed": nn.Embedding(5, 4), "body": nn.Linear(4, 4), "head": nn.Linear(4, 5)})
    net["head"].weight = net["embed"].weight
    Freezing(net, {"*": None, "head": 0}).at(0)
    assert learning(net) == {"embed.weight", "head.bias"}
