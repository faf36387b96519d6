"""What the parts of dlrun agree on: value types, what data look like, what a batch is, and what each part must offer.

Data, models, losses and the rest import this module and never each other. It does not import torch, so that
configurations can be checked before torch is loaded.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from dlrun.errors import ContractError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# --- Types of the values users write. A factory annotates its arguments with them; the configuration is checked
# --- against those annotations without importing the factory's module (dlrun/config/signatures.py).


@dataclass(frozen=True)
class Interval:
    """The range a number must lie in: closed at both ends unless said otherwise."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"{'>' if self.open_low else '>='} {self.low:g}"
        return f"in {'(' if self.open_low else '['}{self.low:g}, {self.high:g}{')' if self.open_high else ']'}"


PositiveInt = Annotated[int, Interval(1)]
NonNegativeInt = Annotated[int, Interval(0)]
PositiveFloat = Annotated[float, Interval(0, open_low=True)]
NonNegativeFloat = Annotated[float, Interval(0)]
Probability = Annotated[float, Interval(0, 1, open_high=True)]  # a dropout rate: 1 would drop everything
Fraction = Annotated[float, Interval(0, 1)]


class DurationMark:
    """Marks a length of training: 500 (steps), 0.05 or '5%' (of the whole run), '2ep', '300 steps'."""


Duration = Annotated[int | float | str, DurationMark()]

Activation = Literal[
    "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "hardswish", "sigmoid", "tanh", "softplus", "identity"
]
Norm = Literal["none", "batch", "layer", "group", "instance", "rms", "weight"]


# --- Data


class Task(StrEnum):
    """What is learnt. It fixes the default loss, the metrics, and which metric is monitored in which direction."""

    CLASSIFICATION = "classification"
    MULTILABEL = "multilabel"
    REGRESSION = "regression"
    FORECASTING = "forecasting"
    LANGUAGE_MODELLING = "language_modelling"
    SEQUENCE_TO_SEQUENCE = "sequence_to_sequence"
    RECONSTRUCTION = "reconstruction"


class Kind(StrEnum):
    """What one input is."""

    VECTOR = "vector"  # shape (features,), float
    IMAGE = "image"  # shape (channels, height, width), uint8 0-255 or float in [0, 1]
    SEQUENCE = "sequence"  # shape (time, features), float
    TOKENS = "tokens"  # shape (time,), integer

    @property
    def plural(self) -> str:
        """Several of them, for messages."""
        return self.value if self is Kind.TOKENS else f"{self.value}s"


@dataclass(frozen=True)
class Column:
    """How one column of a table becomes numbers. Every statistic comes from the training split.

    A numeric column becomes (value - mean) / std with missing values replaced by `fill`; a categorical one becomes
    one 0/1 feature per category, all zero for a missing or unseen value.
    """

    name: str
    categories: tuple[str, ...] = ()  # empty: numeric
    fill: float = 0.0
    mean: float = 0.0
    std: float = 1.0


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a text, a token's index being its number; made from the training split by dlrun/text.py.

    Attributes:
        tokens: special ones first, where there are any: PAD, UNK, BOS, EOS.
        level: what a token is: a character, or a word (or mark of punctuation).
        lower: whether capitals are taken as small letters.
    """

    tokens: tuple[str, ...]
    level: Literal["char", "word"] = "char"
    lower: bool = False

    def __len__(self) -> int:
        return len(self.tokens)


PAD, UNK, BOS, EOS = "<pad>", "<unk>", "<bos>", "<eos>"
PAD_ID, UNK_ID, BOS_ID, EOS_ID = range(4)  # their numbers in every vocabulary that has them
IGNORED = -100  # the target of a token that does not count, PyTorch's own convention


@dataclass(frozen=True)
class DataSpec:
    """All a model may know of the data. Holds plain values only, so it can be stored in a checkpoint.

    Attributes:
        name: what the user calls the data ("mnist"), for messages.
        task, kind: see `Task` and `Kind`.
        shape: of one input, without the batch dimension.
        num_outputs: classes of a classification, outputs of a regression, different tokens to predict; numbers in
            a forecast (horizon times series, time first) or in a reconstruction, flattened.
        class_names: one per class, or empty.
        mean, std: of the inputs, from the training split; one per channel (image) or feature; empty when the
            inputs are used as they are. Images are scaled to [0, 1] first.
        target_mean, target_std: of regression targets, one per output; losses are taken on standardised targets,
            errors are reported in the target's own units.
        columns: for tables and series, how each column is encoded; used to predict from new rows.
        vocabulary_size: different tokens in the inputs, else 0.
        padding: the token that fills short inputs up to `shape`, which models leave out; None if there is none.
        vocabulary: what the tokens of the inputs stand for, where they are text.
        target_vocabulary: of a sequence-to-sequence task's targets; a language model predicts its own inputs.
        target_length: largest number of target tokens in a sequence-to-sequence task, the end mark counted.
        horizon: time steps of a forecast.
        target_columns: which of `columns` are forecast.
        season: time steps after which the series resembles itself, for naive forecasts; 0: not known.
    """

    name: str
    task: Task
    kind: Kind
    shape: tuple[int, ...]
    num_outputs: int
    class_names: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    target_mean: tuple[float, ...] = ()
    target_std: tuple[float, ...] = ()
    columns: tuple[Column, ...] = ()
    vocabulary_size: int = 0
    padding: int | None = None
    vocabulary: Vocabulary | None = None
    target_vocabulary: Vocabulary | None = None
    target_length: int = 0
    horizon: int = 0
    target_columns: tuple[int, ...] = ()
    season: int = 0

    @property
    def num_features(self) -> int:
        """Numbers in one input."""
        return math.prod(self.shape)

    def require(self, model: str, *kinds: Kind) -> None:
        """Refuse, in the model's name, data of any other kind than `kinds`.

        Raises: ContractError naming model, data and both shapes.
        """
        if self.kind not in kinds:
            wanted = " or ".join(f"{kind.plural} {SHAPES[kind]}" for kind in kinds)
            raise ContractError(
                f"model={model} reads {wanted}, but data={self.name} gives {self.kind.plural} of shape {self.shape}"
            )

    def to_dict(self) -> dict[str, Any]:
        """A plain dictionary that `from_dict` turns back into an equal spec."""
        plain = dataclasses.asdict(self)
        return plain | {"task": self.task.value, "kind": self.kind.value}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> DataSpec:
        """The inverse of `to_dict`, also after a passage through JSON (lists for tuples)."""
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list | tuple) else value for key, value in plain.items()
        }
        columns = tuple(
            Column(**{**column, "categories": tuple(column["categories"])}) for column in plain.get("columns", ())
        )
        texts = {
            key: Vocabulary(**{**plain[key], "tokens": tuple(plain[key]["tokens"])})
            for key in ("vocabulary", "target_vocabulary")
            if plain.get(key) is not None
        }
        fixed = {"task": Task(plain["task"]), "kind": Kind(plain["kind"]), "columns": columns}
        return cls(**{**values, **fixed, **texts})


SHAPES = {
    Kind.VECTOR: "(features,)",
    Kind.IMAGE: "(channels, height, width)",
    Kind.SEQUENCE: "(time, features)",
    Kind.TOKENS: "(time,)",
}


@dataclass
class Batch:
    """What one call of the model sees.

    Attributes:
        inputs: (B, ...) as `DataSpec.kind` says; a tuple where a model takes several tensors (`model(*inputs)`).
        targets: (B,) class indices, (B, classes) class probabilities (mixup), (B, outputs) regression values,
            (B, T) the token that is right at each position, `IGNORED` where none counts.

    A sequence-to-sequence batch has inputs (source (B, S), shifted (B, T)), the latter what has been said before each
    target token, beginning with BOS.
    """

    inputs: Tensor | tuple[Tensor, ...]
    targets: Tensor

    @property
    def arguments(self) -> tuple[Tensor, ...]:
        """The positional arguments of the model."""
        return self.inputs if isinstance(self.inputs, tuple) else (self.inputs,)

    def __len__(self) -> int:
        return len(self.targets)

    def split(self, size: int | list[int]) -> list[Batch]:
        """Parts of `size` examples, of which the last may be smaller, or of as many as a list says."""
        targets = self.targets.split(size)
        if isinstance(self.inputs, tuple):
            pieces = zip(*(tensor.split(size) for tensor in self.inputs), strict=True)
            return [Batch(inputs, target) for inputs, target in zip(pieces, targets, strict=True)]
        return [Batch(inputs, target) for inputs, target in zip(self.inputs.split(size), targets, strict=True)]

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The batch with `change` applied to each tensor."""
        inputs = tuple(change(x) for x in self.inputs) if isinstance(self.inputs, tuple) else change(self.inputs)
        return Batch(inputs, change(self.targets))


class Examples(Protocol):
    """A set of examples that can be gathered by index: `Arrays`, those of dlrun/examples.py, or one's own.

    Examples of a classification also have `targets`, (N,) or (N, classes), for stratified splits. Padded ones have
    `lengths`, (N,) or (N, parts) on the CPU, and `trim(batch, longest)`, which cuts a batch to its longest example.
    `difficulty`, (N,), is what a curriculum goes by where there are no lengths.
    """

    @property
    def nbytes(self) -> int:
        """Memory of all examples; decides whether they are kept on the device."""

    @property
    def device(self) -> torch.device:
        """Where the examples are."""

    def tensors(self) -> Sequence[Tensor]:
        """All that the examples consist of, for the fingerprint of the data."""

    def __len__(self) -> int: ...

    def take(self, index: Tensor) -> Batch:
        """The examples at `index`, a (B,) int64 tensor on the device of the examples."""

    def subset(self, index: Tensor) -> Examples:
        """A set of its own with the examples at `index` only."""

    def to(self, device: torch.device) -> Examples:
        """The same examples on `device`."""


@dataclass
class Arrays:
    """Examples held in two tensors: inputs (N, ...), targets (N, ...)."""

    inputs: Tensor
    targets: Tensor

    @property
    def nbytes(self) -> int:
        return self.inputs.nbytes + self.targets.nbytes

    @property
    def device(self) -> torch.device:
        return self.inputs.device

    def tensors(self) -> Sequence[Tensor]:
        return self.inputs, self.targets

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, index: Tensor) -> Batch:
        return Batch(self.inputs.index_select(0, index), self.targets.index_select(0, index))

    def subset(self, index: Tensor) -> Arrays:
        return Arrays(self.inputs.index_select(0, index), self.targets.index_select(0, index))

    def to(self, device: torch.device) -> Arrays:
        return Arrays(self.inputs.to(device), self.targets.to(device))


@dataclass
class Splits:
    """What a data factory returns, and, completed by dlrun/splitting.py, what training uses.

    A factory gives `train` and what else its source defines. Missing splits are carved from `train`: first test
    (only when the source has none), then validation; stratified and seeded. Test is touched once, at the end.

    `fit` is for data that must learn their encoding (imputation, categories, scales): called once with the training
    split alone, it returns the final spec and the function that encodes each split. Without it, inputs of kind
    vector and sequence are standardised per feature, images per channel, from the training split.
    """

    train: Examples
    spec: DataSpec
    val: Examples | None = None
    test: Examples | None = None
    fit: Callable[[Any], tuple[DataSpec, Callable[[Any], Examples]]] | None = field(default=None, repr=False)


# --- The parts


class Continues(Protocol):
    """A model that produces tokens one after the other; language models and decoders offer it beside `forward`.

    The state is the model's own (a hidden state, cached keys and values) and belongs to one batch of sequences.
    Feeding a sequence at once or token by token gives the same logits as `forward`, to rounding.
    """

    def begin(self, source: Tensor) -> Any:
        """The state before the first target token, of sources (B, S); only for sequence-to-sequence models."""

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Logits (B, t, num_outputs) after each of the tokens (B, t), and the new state; None begins a text."""


class Optimizer(Protocol):
    """The part of torch.optim.Optimizer that training uses; foreign optimizers need no more."""

    param_groups: list[dict[str, Any]]

    def step(self, closure: Callable[[], Any] | None = None) -> Any: ...

    def zero_grad(self, set_to_none: bool = True) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...


class Loss(Protocol):
    """A loss is a module or function from (outputs, targets) to the mean over the batch, a scalar.

    A loss whose mean is not over examples (class weights, ignored tokens) also has `weight(targets)`, the number it
    divides by, so that micro-batches add up to exactly the big batch.
    """

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor: ...


class Metric(Protocol):
    """A metric that can be summed over batches: `update` per batch on the device, `compute` once.

    Attributes:
        names: what `compute` returns, without the split: ("accuracy",).
        higher_is_better: per name; the direction in which a monitored metric improves.
    """

    names: Sequence[str]
    higher_is_better: dict[str, bool]

    def reset(self, device: torch.device) -> None: ...

    def update(self, outputs: Tensor, targets: Tensor) -> None: ...

    def compute(self) -> dict[str, float]: ...


class Augment(Protocol):
    """Changes a training batch, each example by its own random amounts; the generator is the only randomness."""

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch: ...


class Logger(Protocol):
    """Receives every record that goes into metrics.jsonl: "step", "epoch", "time" and named values."""

    def log(self, record: dict[str, Any]) -> None: ...

    def close(self) -> None: ...
