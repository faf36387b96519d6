"""From what a data factory gives to the three splits that training uses: carve, thin, disturb, normalise.

Who is in which split depends on `split_seed` alone, so that runs with different `seed`s can be compared. Every
statistic is taken from the training split.
"""

import dataclasses
import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from dlrun.contracts import Arrays, DataSpec, Examples, Kind, Splits, Task
from dlrun.errors import ConfigError, DataError, did_you_mean
from dlrun.examples import MappedImages

CLASSES = (Task.CLASSIFICATION,)
Way = Literal["stratified", "random", "coin_flips"]
BYTES_AT_ONCE = 1 << 17  # of images; eight times as many as float64
IMAGES_AT_ONCE = 1024  # of a file
SMALLEST_STD = 1e-6  # of a channel's numbers from 0 to 1; what is below comes from rounding


def complete(
    splits: Splits,
    *,
    val_fraction: float = 0.1,
    test_fraction: float = 0.2,
    val_from: Literal["train", "test"] = "train",
    split: Way = "stratified",
    split_seed: int = 0,
    folds: int | None = None,
    fold: int = 0,
    limit: float | None = None,
    label_noise: float = 0.0,
    imbalance: float | Mapping[Any, float] | None = None,
    bootstrap: int | None = None,
    normalize: bool = True,
    reconstruct: bool = False,
) -> Splits:
    """Give `splits` its missing parts; see conf/data/_common.yaml for what each argument means.

    Raises: DataError if there are too few examples; ConfigError if an argument does not suit the data.
    """
    generator = torch.Generator().manual_seed(split_seed)
    spec, train, val, test = splits.spec, splits.train, splits.val, splits.test
    if len(train) < 3:
        raise DataError(f"data={spec.name} has {len(train)} training examples; at least 3 are needed for its splits.")
    if test is None:
        train, test = carve(train, spec, test_fraction, generator, split)
    if val_from == "test":
        if folds is not None or val is not None:
            why = "brings its own validation split" if val is not None else f"is cut into data.folds={folds}"
            raise ConfigError(f"data.val_from=test: data={spec.name} {why}; set data.val_from=train.")
        test, val = carve(test, spec, val_fraction, generator, split)
    if folds is not None:
        if val is not None:
            raise ConfigError(
                f"data.folds={folds}: data={spec.name} brings its own validation split; set data.folds=null."
            )
        train, val = cross_validation(train, spec, folds, fold, generator, split)
    elif val is None:
        train, val = carve(train, spec, val_fraction, generator, split)
    if imbalance is not None:
        train = train.subset(unbalanced(train, spec, imbalance, generator))
    if limit is not None:
        train = train.subset(limited(train, spec, limit, generator))
    if label_noise:
        train = with_label_noise(train, spec, label_noise, generator)
    if bootstrap is not None:
        train = train.subset(resampled(len(train), bootstrap))
    done = normalised(dataclasses.replace(splits, train=train, val=val, test=test), normalize)
    return dataclasses.replace(done, spec=reconstruction(done.spec)) if reconstruct else done


def resampled(count: int, seed: int) -> Tensor:
    """`count` indices drawn with replacement; about 63 % of the examples are among them. Source: Breiman 1996."""
    return torch.randint(count, (count,), generator=torch.Generator().manual_seed(seed)).sort().values


def reconstruction(spec: DataSpec) -> DataSpec:
    """The spec of the same inputs with themselves as targets, flattened; the loader makes the targets.

    Raises: ConfigError for tokens, which are no numbers to come close to.
    """
    if spec.kind is Kind.TOKENS:
        raise ConfigError(f"data.reconstruct=true needs inputs of numbers, but data={spec.name} has tokens.")
    return dataclasses.replace(
        spec, task=Task.RECONSTRUCTION, num_outputs=spec.num_features, class_names=(), target_mean=(), target_std=()
    )


def carve(
    examples: Examples, spec: DataSpec, fraction: float, generator: torch.Generator, split: Way = "stratified"
) -> tuple[Examples, Examples]:
    """Split off a share of the examples. Returns: the rest, the share.

    Raises: DataError if coin flips leave one of the two without examples.
    """
    if split == "coin_flips":
        chosen = (torch.rand(len(examples), generator=generator) < fraction).nonzero().flatten()
        if not 0 < len(chosen) < len(examples):
            raise DataError(
                f"data.split=coin_flips with a share of {fraction:g} of the {len(examples)} examples of "
                f"data={spec.name} leaves a split without any; set data.split=random."
            )
        return _without(examples, chosen), examples.subset(chosen)
    count = min(max(1, round(len(examples) * fraction)), len(examples) - 1)
    order = _by_class(examples, spec, generator) if split == "stratified" else _shuffled(examples, generator)
    chosen = _spread(order, count)
    return _without(examples, chosen), examples.subset(chosen.sort().values)


def cross_validation(
    examples: Examples, spec: DataSpec, folds: int, fold: int, generator: torch.Generator, split: Way = "stratified"
) -> tuple[Examples, Examples]:
    """k-fold: sizes of folds, and if stratified of each class in them, differ by one at the most."""
    if split == "coin_flips":
        raise ConfigError("data.split=coin_flips makes no folds of one size; set data.split=random or stratified.")
    if folds > len(examples):
        raise ConfigError(f"data.folds must be at most the {len(examples)} training examples, got {folds}.")
    order = _by_class(examples, spec, generator) if split == "stratified" else _shuffled(examples, generator)
    chosen = order[fold::folds]
    return _without(examples, chosen), examples.subset(chosen.sort().values)


def limited(examples: Examples, spec: DataSpec, limit: float, generator: torch.Generator) -> Tensor:
    """Indices of so many (an int) or such a share (a float up to 1) of the examples, stratified."""
    if isinstance(limit, float) and limit > 1:
        raise ConfigError(f"data.limit must be a whole number of examples or a share in (0, 1], got {limit}.")
    count = limit if isinstance(limit, int) else max(1, round(limit * len(examples)))
    if count > len(examples):
        raise ConfigError(f"data.limit must be at most the {len(examples)} training examples, got {count}.")
    return _spread(_by_class(examples, spec, generator), int(count)).sort().values


def unbalanced(
    examples: Examples, spec: DataSpec, imbalance: float | Mapping[Any, float], generator: torch.Generator
) -> Tensor:
    """Indices that keep a given share of single classes, or an exponential long tail over all of them.

    Source of the long tail: Cui et al. 2019, sec. 5.1 (arXiv:1901.05555): class i of C keeps ratio^(-i/(C-1)).
    """
    _require_classes(spec, "imbalance", imbalance)
    targets, classes = targets_of(examples), spec.num_outputs
    if isinstance(imbalance, Mapping):
        shares = {_class_index(name, spec): share for name, share in imbalance.items()}
    else:
        shares = {i: imbalance ** (-i / (classes - 1)) for i in range(classes)}
    kept = []
    for i in range(classes):
        members = (targets == i).nonzero().flatten()
        order = torch.randperm(len(members), generator=generator)
        kept.append(members[order[: max(1, round(len(members) * shares.get(i, 1.0)))]])
    return torch.cat(kept).sort().values


def with_label_noise(examples: Examples, spec: DataSpec, share: float, generator: torch.Generator) -> Examples:
    """The examples with a share of their labels replaced, each by one of the other classes at random."""
    _require_classes(spec, "label_noise", share)
    if "targets" not in getattr(examples, "__dataclass_fields__", ()):
        raise ConfigError(f"data.label_noise={share} needs labels held in memory, unlike data={spec.name}.")
    targets = targets_of(examples).clone()
    wrong = torch.randperm(len(targets), generator=generator)[: round(share * len(targets))]
    shift = torch.randint(1, spec.num_outputs, (len(wrong),), generator=generator)
    targets[wrong] = (targets[wrong] + shift) % spec.num_outputs
    return dataclasses.replace(examples, targets=targets)  # type: ignore[type-var]


def normalised(splits: Splits, normalize: bool) -> Splits:
    """Encode the splits by what the training split teaches: columns, scales of inputs and regression targets."""
    spec, train, val, test = splits.spec, splits.train, splits.val, splits.test
    assert val is not None
    assert test is not None
    if splits.fit is not None:
        spec, encode = splits.fit(train)
        train, val, test = encode(train), encode(val), encode(test)
    elif normalize and isinstance(train, Arrays | MappedImages):
        if spec.kind is Kind.IMAGE:
            mean, std = channel_statistics(train.inputs if isinstance(train, Arrays) else train)
            spec = dataclasses.replace(spec, mean=mean, std=std)
        elif spec.kind in (Kind.VECTOR, Kind.SEQUENCE):
            spec, train, val, test = _standardised(spec, train, val, test)
    if spec.task is Task.REGRESSION and isinstance(train, Arrays):
        train, val, test, spec = _scaled_targets(spec, train, val, test)
    return Splits(train, spec, val, test)


def channel_statistics(images: Tensor | MappedImages) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of (N, C, H, W) images, on the scale [0, 1], in float64."""
    sums = torch.zeros(2, images.shape[1], dtype=torch.float64)
    # Sums of bytes are exact in any order, so they are taken in parts that stay in the processor's cache.
    at_once = max(1, BYTES_AT_ONCE // math.prod(images.shape[1:])) if images.dtype == torch.uint8 else 4096
    for part in images.split(at_once):
        values = part.to(torch.float64)
        sums += torch.stack([values.sum((0, 2, 3)), values.square().sum((0, 2, 3))])
    mean, square = sums * images.shape[1] / math.prod(images.shape)
    scale = 255.0 if images.dtype == torch.uint8 else 1.0
    std = (square - mean.square()).clamp_min(0).sqrt() / scale
    return tuple((mean / scale).tolist()), tuple(std.where(std > SMALLEST_STD, 1.0).tolist())


def fingerprint(splits: Splits) -> str:
    """A hash of all examples and their assignment to the splits; equal data give equal fingerprints."""
    return fingerprint_of(splits.train, splits.val, splits.test)


def fingerprint_of(*parts: Examples | None) -> str:
    """A hash of some sets of examples."""
    digest = hashlib.sha256()
    for examples in parts:
        assert examples is not None
        digest.update(str(len(examples)).encode())
        for dtype, shape, parts_of_it in _contents(examples):
            digest.update(f"{dtype}{shape}".encode())
            for part in parts_of_it:
                digest.update(_bytes(part))
    return digest.hexdigest()[:16]


def _contents(examples: Examples) -> Iterator[tuple[torch.dtype, tuple[int, ...], Iterable[Tensor]]]:
    """Type, shape and content of all that examples consist of, the content in parts where it is in a file."""
    if isinstance(examples, MappedImages):
        yield examples.dtype, examples.shape, examples.split(IMAGES_AT_ONCE)
        yield examples.targets.dtype, tuple(examples.targets.shape), [examples.targets]
        return
    for tensor in examples.tensors():
        yield tensor.dtype, tuple(tensor.shape), [tensor]


def _bytes(tensor: Tensor) -> Any:
    """The content of a tensor for hashing, without a copy."""
    array: Any = tensor.contiguous().numpy()
    return memoryview(array.reshape(-1).view("uint8"))


def targets_of(examples: Examples) -> Tensor:
    """The targets of all examples of a classification."""
    return examples.targets  # type: ignore[attr-defined, no-any-return]


def _by_class(examples: Examples, spec: DataSpec, generator: torch.Generator) -> Tensor:
    """All indices, shuffled, then brought together class by class."""
    order = _shuffled(examples, generator)
    if spec.task in CLASSES and (targets := targets_of(examples)).ndim == 1:
        order = order[targets[order].sort(stable=True).indices]
    return order


def _shuffled(examples: Examples, generator: torch.Generator) -> Tensor:
    return torch.randperm(len(examples), generator=generator)


def _spread(order: Tensor, count: int) -> Tensor:
    """`count` evenly spaced entries of `order`: each class is met in proportion to its size, within one."""
    return order[((torch.arange(count, dtype=torch.float64) + 0.5) * len(order) / count).long()]


def _without(examples: Examples, chosen: Tensor) -> Examples:
    keep = torch.ones(len(examples), dtype=torch.bool)
    keep[chosen] = False
    return examples.subset(keep.nonzero().flatten())


def _standardised(spec: DataSpec, *parts: Any) -> tuple[DataSpec, Arrays, Arrays, Arrays]:
    """Vectors (N, F) or sequences (N, T, F) with zero mean and unit deviation per feature of the training split."""
    train = parts[0].inputs.to(torch.float64)
    over = tuple(range(train.ndim - 1))
    mean, std = _scale(train, over)
    train, val, test = (Arrays(((p.inputs - mean) / std).to(torch.float32), p.targets) for p in parts)
    columns = (
        tuple(
            dataclasses.replace(column, fill=m, mean=m, std=s)
            for column, m, s in zip(spec.columns, mean.tolist(), std.tolist(), strict=bool(spec.columns))
        )
        if spec.columns
        else ()
    )
    # Stored standardised, so the loader has nothing left to do: mean and std stay empty.
    return dataclasses.replace(spec, columns=columns), train, val, test


def _scaled_targets(spec: DataSpec, *parts: Any) -> tuple[Arrays, Arrays, Arrays, DataSpec]:
    """Regression targets (N, outputs) standardised by the training split; metrics undo it."""
    targets = parts[0].targets.to(torch.float64)
    mean, std = _scale(targets, (0,))
    train, val, test = (Arrays(p.inputs, ((p.targets - mean) / std).to(torch.float32)) for p in parts)
    spec = dataclasses.replace(spec, target_mean=tuple(mean.tolist()), target_std=tuple(std.tolist()))
    return train, val, test, spec


def _scale(values: Tensor, over: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Mean and deviation along the axes `over`.

    Of equal values the deviation is 0, but for rounding, and is taken as 1: what is constant in training is centred,
    and another value of it in the other splits is as far off as it is, not by millions.
    """
    varies = values.amin(over) < values.amax(over)
    return values.mean(over), values.std(over, correction=0).where(varies, 1.0)


def _require_classes(spec: DataSpec, key: str, value: object) -> None:
    if spec.task not in CLASSES:
        raise ConfigError(f"data.{key}={value} needs class labels, but data={spec.name} is a {spec.task.value} task.")


def _class_index(name: Any, spec: DataSpec) -> int:
    """A class by index or by name."""
    if str(name) in spec.class_names:
        return spec.class_names.index(str(name))
    if str(name).isdigit() and int(name) < spec.num_outputs:
        return int(name)
    known = spec.class_names or [str(i) for i in range(spec.num_outputs)]
    raise ConfigError(
        f"data.imbalance: data={spec.name} has no class '{name}', only {', '.join(known)}."
        f"{did_you_mean(str(name), known)}"
    )
