"""Parameters divided into as few groups as the rules allow: every group costs the optimizer its own kernel calls."""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import nn
from torch.nn.utils.parametrize import ParametrizationList

from dlrun.errors import ConfigError, ContractError
from dlrun.optim.rules import KINDS, ParameterGroups

NORM_CLASS = re.compile(r"norm(\d*d)?$", re.IGNORECASE)  # BatchNorm2d, RMSNorm, a user's own T5LayerNorm
EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)


@dataclass(frozen=True)
class Named:
    """A parameter with what the rules look at."""

    name: str
    parameter: nn.Parameter
    kinds: frozenset[str]

    @property
    def is_matrix(self) -> bool:
        """Whether it mixes features (linear and convolution weights, embeddings) and does not only shift or scale."""
        return self.parameter.ndim >= 2 and not self.kinds & {"bias", "norm"}


def parameter_groups(
    model: nn.Module, *, lr: float, weight_decay: float, rules: ParameterGroups
) -> list[dict[str, Any]]:
    """Divide the trainable parameters of `model` into groups of equal treatment.

    Args:
        lr: learning rate of a parameter whose factor is 1.
        weight_decay: of the parameters that are decayed. With 0 nothing is told apart by decay, so that without
            factors a single group results, which is all that L-BFGS accepts.

    Returns: groups in order of first appearance in the model, parameters in the model's order, shared ones once,
        frozen ones left out. Each has "params", "lr", "weight_decay", "lr_factor" and "name", "hidden" if
        `rules.split_hidden`, and "until" where a rule gives one; all values but the parameters are plain.
    Raises: ConfigError if a pattern matches no parameter; ContractError if there is nothing to train.
    """
    places = _places(model)
    every = _once(places)
    trainable = [item for item in every if item.parameter.requires_grad]
    if not trainable:
        raise ContractError(f"{type(model).__name__} has no trainable parameters: unfreeze some or only evaluate it")
    _refuse_unmatched("no_decay", [entry for entry in rules.no_decay if entry not in KINDS], every)
    _refuse_unmatched("lr_factors", rules.lr_factors, every)
    _refuse_unmatched("until", rules.until, every)
    distances = layer_distances(places)
    hidden = _hidden(places)
    groups: dict[tuple[bool, float, float, Any], dict[str, Any]] = {}
    for item in trainable:
        factor = float(_first(rules.lr_factors, item.name) or 1.0)
        until = _first(rules.until, item.name)
        if rules.layer_decay is not None:
            factor *= rules.layer_decay ** distances[item.name]
        decay = 0.0 if _is_excluded(item, rules) else float(weight_decay)
        is_hidden = rules.split_hidden and id(item.parameter) in hidden
        key = (is_hidden, decay, factor, until)
        if key not in groups:
            name = _group_name(is_hidden, decay, factor, until, tells_decay=weight_decay > 0)
            group = {"params": [], "lr": lr * factor, "weight_decay": decay, "lr_factor": factor, "name": name}
            group |= {"hidden": is_hidden} if rules.split_hidden else {}
            groups[key] = group | ({"until": until} if until is not None else {})
        groups[key]["params"].append(item.parameter)
    return list(groups.values())


def named_parameters(model: nn.Module) -> list[Named]:
    """All parameters of `model` with their kinds, in the order of `model.named_parameters()`, shared ones once."""
    return _once(_places(model))


def _places(model: nn.Module) -> list[Named]:
    """The parameters at every place where the model has them: tied weights have two, which counts for what is last."""
    return [
        Named(f"{path}.{leaf}" if path else leaf, parameter, _kinds(module, leaf, parameter))
        for path, module in model.named_modules(remove_duplicate=False)
        for leaf, parameter in module.named_parameters(recurse=False)
    ]


def _once(places: Iterable[Named]) -> list[Named]:
    """Each parameter at its first place."""
    found: dict[int, Named] = {}
    for item in places:
        found.setdefault(id(item.parameter), item)
    return list(found.values())


def matches(name: str, pattern: str) -> bool:
    """Whether `pattern` names the parameter or a module that contains it."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def nearest(pattern: str, names: list[str]) -> list[str]:
    """The three of `names` most like a pattern that matches none of them."""
    return difflib.get_close_matches(pattern.strip("*."), names, n=3, cutoff=0.4) or names[:3]


def decayed_parameters(model: nn.Module, rules: ParameterGroups) -> list[nn.Parameter]:
    """The trainable parameters that `rules.no_decay` does not exclude, in the model's order."""
    every = named_parameters(model)
    _refuse_unmatched("no_decay", [entry for entry in rules.no_decay if entry not in KINDS], every)
    return [item.parameter for item in every if item.parameter.requires_grad and not _is_excluded(item, rules)]


def last_layer(model: nn.Module) -> list[nn.Parameter]:
    """The parameters of the layer nearest to the output, tied ones too; see `layer_distances`."""
    places = _places(model)
    distances = layer_distances(places)
    return [item.parameter for item in _once(item for item in places if distances[item.name] == 0)]


def layer_distances(parameters: Iterable[Named]) -> dict[str, int]:
    """How many layers lie between each parameter and the output; the last layer has distance 0.

    Layers are counted in order of first appearance; tied weights are in two, by two names. A numbered entry of a
    container is one layer with all that it holds (`blocks.3`, `layer1.0`); elsewhere it is the module that owns the
    parameter. Layers without a matrix (normalisation, layer scales) belong to the layer before them.

    Source: BEiT's layer-wise learning rate decay (Bao et al. 2022, arXiv:2106.08254, appendix), whose layers are the
    embedding, the blocks and the head.
    """
    layers: dict[str, list[Named]] = {}
    for item in parameters:
        layers.setdefault(_layer(item.name), []).append(item)
    depth, seen_matrix, depths = 0, False, dict[str, int]()
    for members in layers.values():
        has_matrix = any(item.is_matrix for item in members)
        depth += has_matrix and seen_matrix
        seen_matrix = seen_matrix or has_matrix
        depths |= {item.name: depth for item in members}
    return {name: depth - own for name, own in depths.items()}


def _layer(name: str) -> str:
    # With weight norm conv1.weight is conv1.parametrizations.weight.original0 and 1: of the same layer as conv1.bias.
    module = re.sub(r"\.parametrizations\..*", ".weight", name).split(".")[:-1]
    number = next((i for i, part in enumerate(module) if part.isdigit()), len(module))
    return ".".join(module[: number + 1])


def _kinds(module: nn.Module, leaf: str, parameter: nn.Parameter) -> frozenset[str]:
    kinds = set()
    if NORM_CLASS.search(type(module).__name__) or _is_gain(module, leaf):
        kinds.add("norm")
    if isinstance(module, EMBEDDINGS) or "embed" in leaf:
        kinds.add("embedding")
    if "bias" in leaf.split("_") or (_is_vector(module, leaf, parameter) and not kinds):
        kinds.add("bias")  # also bias_hh_l0, in_proj_bias
    return frozenset(kinds)


def _is_vector(module: nn.Module, leaf: str, parameter: nn.Parameter) -> bool:
    """Whether it has one axis, others being there to broadcast: a layer scale (C, 1, 1), a class token (1, 1, C)."""
    if "weight" in leaf or isinstance(module, ParametrizationList):  # a kernel (C, 1, 1) is one all the same
        return parameter.ndim <= 1
    return parameter.ndim <= 1 or (parameter.ndim > 2 and sum(size > 1 for size in parameter.shape) <= 1)


def _is_gain(module: nn.Module, leaf: str) -> bool:
    """Whether this is g of weight norm's w = g · v / ‖v‖: a scale for each feature, shaped like a matrix (out, 1)."""
    if not isinstance(module, ParametrizationList) or leaf != "original0":
        return False
    return NORM_CLASS.search(type(next(module.children())).__name__) is not None


def _hidden(places: Iterable[Named]) -> set[int]:
    """Ids of the matrices that are neither the first of the model, nor the last, nor embeddings, at any place."""
    matrices = [item for item in places if item.is_matrix]
    outer = [*matrices[:1], *matrices[-1:], *(item for item in matrices if "embedding" in item.kinds)]
    return {id(item.parameter) for item in matrices} - {id(item.parameter) for item in outer}


def _is_excluded(item: Named, rules: ParameterGroups) -> bool:
    return any(entry in item.kinds if entry in KINDS else matches(item.name, entry) for entry in rules.no_decay)


def _refuse_unmatched(key: str, patterns: Iterable[str], parameters: list[Named]) -> None:
    names = [item.name for item in parameters]
    for pattern in patterns:
        if not any(matches(name, pattern) for name in names):
            near = nearest(pattern, [*names, *(KINDS if key == "no_decay" else ())])
            raise ConfigError(
                f"optimizer.param_groups.{key}: '{pattern}' matches no parameter of the model; nearest are "
                f"{', '.join(near)}"
            )


def _first(rules: Mapping[str, Any], name: str) -> Any:
    """The value of the first pattern that names the parameter, or None."""
    return next((value for pattern, value in rules.items() if matches(name, pattern)), None)


def _group_name(hidden: bool, decay: float, factor: float, until: Any, *, tells_decay: bool) -> str:
    """What to call a group in displays: `decay`, `no_decay_x0.1`, `until_3ep`, `all`."""
    parts = ["hidden"] if hidden else []
    parts += ["decay" if decay else "no_decay"] if tells_decay else []
    parts += [f"x{factor:.3g}"] if factor != 1 else []
    parts += [f"until_{until}".replace(" ", "")] if until is not None else []
    return "_".join(parts) or "all"
