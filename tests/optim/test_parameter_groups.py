import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from dlrun.errors import ConfigError, ContractError
from dlrun.optim.parameter_groups import last_layer, layer_distances, named_parameters, parameter_groups
from dlrun.optim.rules import ParameterGroups


class Net(nn.Module):
    """embedding 5x4, two blocks of linear + normalisation, head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.blocks = nn.ModuleList(
            nn.ModuleDict({"linear": nn.Linear(4, 4), "norm": norm}) for norm in (nn.BatchNorm1d(4), nn.LayerNorm(4))
        )
        self.scale = nn.Parameter(torch.ones(()))
        self.head = nn.Linear(4, 2)


def described(groups: list[dict], model: nn.Module) -> dict[str, tuple[float, float, list[str]]]:
    names = {id(p): name for name, p in model.named_parameters()}
    return {g["name"]: (g["lr"], g["weight_decay"], [names[id(p)] for p in g["params"]]) for g in groups}


def groups(model: nn.Module, weight_decay: float = 0.1, **rules) -> dict[str, tuple[float, float, list[str]]]:
    return described(parameter_groups(model, lr=1.0, weight_decay=weight_decay, rules=ParameterGroups(**rules)), model)


def test_biases_norms_and_scalars_are_not_decayed():
    assert groups(Net()) == {
        "no_decay": (1.0, 0.0, [
            "scale",
            "blocks.0.linear.bias", "blocks.0.norm.weight", "blocks.0.norm.bias",
            "blocks.1.linear.bias", "blocks.1.norm.weight", "blocks.1.norm.bias",
            "head.bias",
        ]),
        "decay": (1.0, 0.1, ["embed.weight", "blocks.0.linear.weight", "blocks.1.linear.weight", "head.weight"]),
    }  # fmt: skip


def test_each_kind_and_pattern_excludes_what_it_names():
    def excluded(*no_decay: str) -> set[str]:
        return set(groups(Net(), no_decay=no_decay)["no_decay"][2])

    norms = {f"blocks.{i}.norm.{leaf}" for i in (0, 1) for leaf in ("weight", "bias")}
    assert excluded("norm") == norms
    biases = {"blocks.0.linear.bias", "blocks.1.linear.bias", "head.bias", "scale"}
    assert excluded("bias") == biases | {name for name in norms if name.endswith("bias")}
    assert excluded("embedding") == {"embed.weight"}
    assert excluded("head") == {"head.weight", "head.bias"}
    assert excluded("*.linear.weight") == {"blocks.0.linear.weight", "blocks.1.linear.weight"}


def test_recurrent_and_attention_biases_are_biases():
    model = nn.ModuleDict({"lstm": nn.LSTM(3, 4), "attention": nn.MultiheadAttention(4, 2, add_bias_kv=True)})
    assert {name.split("_")[0] for name in groups(model)["decay"][2]} == {
        "lstm.weight", "attention.in", "attention.out",
    }  # fmt: skip
    assert all("bias" in name for name in groups(model)["no_decay"][2])


def test_without_decay_or_factors_there_is_one_group():
    assert list(groups(Net(), weight_decay=0.0)) == ["all"]
    assert list(groups(Net(), no_decay=())) == ["decay"]
    assert groups(Net(), weight_decay=0.0)["all"][2] == [name for name, _ in Net().named_parameters()]


def test_factors_multiply_the_rate_and_the_first_match_wins():
    found = groups(Net(), weight_decay=0.0, lr_factors={"head.bias": 2, "head": 10, "blocks.*.weight": 0.5})
    assert found == {
        "all": (
            1.0,
            0.0,
            ["scale", "embed.weight"] + [f"blocks.{i}.{m}.bias" for i in (0, 1) for m in ("linear", "norm")],
        ),
        "x0.5": (0.5, 0.0, [f"blocks.{i}.{m}.weight" for i in (0, 1) for m in ("linear", "norm")]),
        "x10": (10.0, 0.0, ["head.weight"]),
        "x2": (2.0, 0.0, ["head.bias"]),
    }


def test_layer_decay_counts_layers_from_the_output():
    found = groups(Net(), weight_decay=0.0, layer_decay=0.5)
    rates = {name: rate for rate, _, names in found.values() for name in names}
    assert rates["head.weight"] == rates["head.bias"] == 1.0
    assert {rates[name] for name in rates if name.startswith("blocks.1")} == {0.5}
    assert {rates[name] for name in rates if name.startswith("blocks.0")} == {0.25}
    assert rates["embed.weight"] == 0.125


def test_normalisation_belongs_to_the_layer_before_it():
    model = nn.Sequential(
        nn.BatchNorm1d(3), nn.Linear(3, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 3), nn.LayerNorm(3)
    )
    distances = layer_distances(named_parameters(model))
    assert {name.split(".")[0]: distance for name, distance in distances.items()} == {
        "0": 1, "1": 1, "2": 1, "4": 0, "5": 0,
    }  # fmt: skip


def test_gains_of_weight_norm_are_scales_and_belong_to_their_layer():
    model = nn.Sequential(weight_norm(nn.Linear(3, 3)), weight_norm(nn.Linear(3, 3)), spectral_norm(nn.Linear(3, 3)))
    v = [f"{i}.parametrizations.weight.original1" for i in (0, 1)]
    assert groups(model)["decay"][2] == [*v, "2.parametrizations.weight.original"]
    hidden = parameter_groups(model, lr=1.0, weight_decay=0.0, rules=ParameterGroups(split_hidden=True))
    assert described([g for g in hidden if g["hidden"]], model)["hidden"][2] == [v[1]]
    distances = layer_distances(named_parameters(model))
    assert {name: distance for name, distance in distances.items() if name.startswith("0")} == {
        "0.bias": 2, "0.parametrizations.weight.original0": 2, v[0]: 2,
    }  # fmt: skip


def test_layer_decay_and_factors_multiply():
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    rules = ParameterGroups(lr_factors={"0": 3.0}, layer_decay=0.5)
    first, second = parameter_groups(model, lr=0.1, weight_decay=0.0, rules=rules)
    assert (first["lr"], first["lr_factor"]) == (pytest.approx(0.15), 1.5)
    assert (second["lr"], second["lr_factor"]) == (0.1, 1.0)


def test_frozen_parameters_are_left_out_and_shared_ones_come_once():
    model = Net()
    model.head.weight = nn.Parameter(torch.zeros(5, 4))
    model.embed.weight = model.head.weight
    model.blocks[0].requires_grad_(False)
    found = groups(model, weight_decay=0.0)["all"][2]
    assert len(found) == len(set(found))
    assert "embed.weight" in found
    assert not any(name.startswith("blocks.0") for name in found)
    model.requires_grad_(False)
    with pytest.raises(ContractError, match="Net has no trainable parameters"):
        groups(model)


def test_a_pattern_may_name_frozen_parameters_only():
    model = Net()
    model.embed.requires_grad_(False)
    assert list(groups(model, weight_decay=0.0, lr_factors={"embed": 0.1})) == ["all"]


def test_patterns_that_match_nothing_are_refused_with_the_nearest_names():
    with pytest.raises(ConfigError, match=r"lr_factors: 'haed\.\*' matches no parameter.*head\.weight"):
        groups(Net(), lr_factors={"haed.*": 2.0})
    with pytest.raises(ConfigError, match=r"no_decay: 'biass' matches no parameter.*nearest are bias"):
        groups(Net(), no_decay=["biass"])


def test_hidden_matrices_are_neither_first_nor_last_nor_embeddings():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 4), nn.Linear(4, 2))
    rules = ParameterGroups(split_hidden=True)
    found = parameter_groups(model, lr=1.0, weight_decay=0.1, rules=rules)
    assert [[p.ndim for p in g["params"]] for g in found if g["hidden"]] == [[4, 2]]
    assert {g["name"]: g["hidden"] for g in found} == {"decay": False, "no_decay": False, "hidden_decay": True}
    assert groups(Net(), weight_decay=0.0, split_hidden=True)["hidden"][2] == [
        "blocks.0.linear.weight", "blocks.1.linear.weight",
    ]  # fmt: skip


def test_groups_hold_plain_values():
    for group in parameter_groups(Net(), lr=1, weight_decay=0.1, rules=ParameterGroups(lr_factors={"head": 2})):
        assert {type(value) for key, value in group.items() if key != "params"} <= {int, float, str, bool}


def test_the_last_layer_of_tied_weights_is_the_output():
    model = Net()
    model.head = nn.Linear(4, 5)
    model.head.weight = model.embed.weight
    assert groups(model, weight_decay=0.0, split_hidden=True)["hidden"][2] == [
        "blocks.0.linear.weight", "blocks.1.linear.weight",
    ]  # fmt: skip
    assert [id(p) for p in last_layer(model)] == [id(model.embed.weight), id(model.head.bias)]
    rates = {name: rate for rate, _, names in groups(model, layer_decay=0.5).values() for name in names}
    assert (rates["blocks.1.linear.weight"], rates["head.bias"], rates["embed.weight"]) == (0.5, 1.0, 0.125)


def test_vectors_with_axes_to_broadcast_are_no_matrices():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Linear(4, 1), nn.Conv2d(4, 1, 1), nn.Linear(1, 2))
    model.class_token, model[1].layer_scale = nn.Parameter(torch.zeros(1, 1, 4)), nn.Parameter(torch.ones(4, 1, 1))
    assert {"class_token", "1.layer_scale"} <= set(groups(model)["no_decay"][2])
    found = groups(model, weight_decay=0.0, split_hidden=True)["hidden"][2]
    assert found == ["1.weight", "2.weight"]  # one row, and matrices all the same


def test_what_ends_early_has_a_group_of_its_own():
    rules = ParameterGroups(until={"blocks.0.linear.bias": "3ep", "blocks.0": 20})
    made = parameter_groups(net := Net(), lr=1.0, weight_decay=0.0, rules=rules)
    names = {id(p): name for name, p in net.named_parameters()}
    found = {group["name"]: (group.get("until"), {names[id(p)] for p in group["params"]}) for group in made}
    assert found["until_3ep"] == ("3ep", {"blocks.0.linear.bias"})
    assert found["until_20"] == (20, {"blocks.0.linear.weight", "blocks.0.norm.weight", "blocks.0.norm.bias"})
    assert found["all"][0] is None
    with pytest.raises(ConfigError, match=r"param_groups.until: 'haed' matches no parameter of the model; nearest are"):
        groups(Net(), until={"haed": 3})
