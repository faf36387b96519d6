"""Losses: factories from the data and the user's options to a module (outputs, targets) → mean over the batch.

Each refuses data of a task it does not fit. Half-precision outputs are taken to float32 first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlrun.contracts import IGNORED, DataSpec, Fraction, Interval, NonNegativeFloat, NonNegativeInt, PositiveFloat, Task
from dlrun.errors import ContractError

CLASSES = (Task.CLASSIFICATION, Task.LANGUAGE_MODELLING, Task.SEQUENCE_TO_SEQUENCE)  # one class index per output
VALUES = (Task.REGRESSION, Task.FORECASTING, Task.RECONSTRUCTION)  # numbers

Quantile = Annotated[float, Interval(0, 1, open_low=True, open_high=True)]


def default_loss(task: Task) -> Callable[[DataSpec], nn.Module]:
    """The factory of the loss a task has when the user names none."""
    if task in CLASSES:
        return cross_entropy
    return bce if task is Task.MULTILABEL else mse


def auto(spec: DataSpec) -> nn.Module:
    """Cross-entropy for classes and tokens, binary cross-entropy for several labels, squared error for numbers."""
    return default_loss(spec.task)(spec)


def cross_entropy(
    spec: DataSpec,
    *,
    label_smoothing: Fraction = 0.0,
    class_weights: Sequence[PositiveFloat] | Literal["balanced"] | None = None,
    focal_gamma: NonNegativeFloat = 0.0,
    class_counts: Sequence[NonNegativeInt] | None = None,
) -> nn.Module:
    """Cross-entropy of logits (B, K) or (B, T, K) and class indices (B,), (B, T) or probabilities (B, K).

    Args:
        label_smoothing: ε; the target becomes (1 - ε) · target + ε / K (PyTorch's definition: the right class
            keeps 1 - ε + ε/K). Source: arXiv:1512.00567.
        class_weights: w, one per class, or balanced: N / (K · examples of the class).
        focal_gamma: the term of class c is multiplied by (1 - p_c)^focal_gamma. Source: arXiv:1708.02002.
        class_counts: training examples of each class, needed by class_weights=balanced.

    Raises: ContractError if the task has no classes, or the weights or counts are not one per class.
    """
    _require_task("cross_entropy", spec, CLASSES)
    if class_weights is None and focal_gamma == 0 and spec.task is not Task.SEQUENCE_TO_SEQUENCE:
        return (TokenCrossEntropy if spec.task is Task.LANGUAGE_MODELLING else CrossEntropy)(label_smoothing)
    weights = _balanced(spec, class_counts) if class_weights == "balanced" else class_weights
    if weights is not None and len(weights) != spec.num_outputs:
        raise ContractError(
            f"loss.class_weights must be balanced or one number for each of the {spec.num_outputs} classes of "
            f"data={spec.name}, got {len(weights)}"
        )
    weight = None if weights is None else torch.tensor([float(w) for w in weights])
    return WeightedCrossEntropy(label_smoothing, weight, focal_gamma)


def bce(spec: DataSpec, *, positive_weight: PositiveFloat = 1.0) -> nn.Module:
    """Binary cross-entropy of logits (B, K), each output on its own, averaged over outputs and batch.

    Targets are (B, K) in [0, 1], or class indices (B,), which are learnt one class against the rest: two classes
    have two outputs, and the larger one decides.

    Args:
        positive_weight: multiplies the terms of targets that are 1.

    Raises: ContractError if the task is neither classification nor multilabel.
    """
    _require_task("bce", spec, (Task.MULTILABEL, Task.CLASSIFICATION))
    return BinaryCrossEntropy(positive_weight)


def mse(spec: DataSpec) -> nn.Module:
    """Mean of (output - target)² over outputs and batch. Raises: ContractError if targets are not numbers."""
    _require_task("mse", spec, VALUES)
    return Elementwise(F.mse_loss)


def mae(spec: DataSpec) -> nn.Module:
    """Mean of |output - target| over outputs and batch. Raises: ContractError if targets are not numbers."""
    _require_task("mae", spec, VALUES)
    return Elementwise(F.l1_loss)


def huber(spec: DataSpec, *, delta: PositiveFloat = 1.0) -> nn.Module:
    """½e² for errors |e| up to `delta`, delta · (|e| - ½ delta) beyond. Source: doi:10.1214/aoms/1177703732.

    Args:
        delta: in standard deviations of the target, as losses are taken on standardised targets.

    Raises: ContractError if targets are not numbers.
    """
    _require_task("huber", spec, VALUES)
    return Elementwise(lambda outputs, targets: F.huber_loss(outputs, targets, delta=delta))


def quantile(spec: DataSpec, *, q: Quantile = 0.5) -> nn.Module:
    """Pinball loss max(q·e, (q - 1)·e) of e = target - output; least at the q-quantile of the target.

    Half the absolute error at q = 0.5. Source: Koenker & Bassett 1978, doi:10.2307/1913643.

    Raises: ContractError if targets are not numbers.
    """
    _require_task("quantile", spec, VALUES)

    def pinball(outputs: Tensor, targets: Tensor) -> Tensor:
        error = targets - outputs
        return torch.maximum(q * error, (q - 1) * error).mean()

    return Elementwise(pinball)


def perceptron(spec: DataSpec) -> nn.Module:
    """Rosenblatt's criterion: by how much the largest output of another class exceeds the right class's, at least 0.

    Of outputs (B, K) and class indices (B,). For two classes with outputs ∓a/2 it is max(0, -t·a) with t = ±1. A tie
    is a mistake: the loss is 0 there but its gradient is not, or weights that start at zero would stay so. One example
    at a time with SGD, that is the perceptron's learning rule. Source: Rosenblatt 1958, doi:10.1037/h0042519.

    Raises: ContractError if the task is not classification.
    """
    _require_task("perceptron", spec, (Task.CLASSIFICATION,))
    return PerceptronCriterion()


class PerceptronCriterion(nn.Module):
    """See `perceptron`."""

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if targets.is_floating_point():
            raise ContractError(
                "loss=perceptron needs one class for each example, and these targets are blends of classes: "
                "leave mixup and cutmix out of augment, or choose loss=cross_entropy"
            )
        outputs = _full_precision(outputs)
        right = outputs.gather(1, targets.unsqueeze(1)).squeeze(1)
        others = outputs.scatter(1, targets.unsqueeze(1), -torch.inf).amax(1)
        # Not relu, whose gradient at 0 is 0.
        return torch.where(others >= right, others - right, 0.0).mean()


class CrossEntropy(nn.Module):
    """See `cross_entropy`; without class weights."""

    takes_log_probabilities = True  # as it takes logits: its first step is log_softmax

    def __init__(self, label_smoothing: float) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        outputs, targets = _rows(outputs, targets)
        return F.cross_entropy(outputs, targets, label_smoothing=self.label_smoothing)

    def each(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of several models at once, (M,): outputs (M, B, …), targets (M, B, …)."""
        rows, wanted = _rows(outputs.flatten(0, 1), targets.flatten(0, 1))
        own = F.cross_entropy(rows, wanted, label_smoothing=self.label_smoothing, reduction="none")
        return own.view(len(outputs), -1).mean(1)


class TokenCrossEntropy(CrossEntropy):
    """Its mean is over the tokens that count."""

    def each(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return super().each(outputs, targets) * (targets[0].numel() / (targets != IGNORED).flatten(1).sum(1))

    def weight(self, targets: Tensor) -> Tensor:
        return (targets != IGNORED).sum()


class WeightedCrossEntropy(nn.Module):
    """Σ_i Σ_c w_c q_ic (1 - p_ic)^g (-log p_ic) / Σ_i Σ_c w_c t_ic, q being the smoothed targets t and g `focal_gamma`.

    Class indices count as one-hot t and give PyTorch's weighted cross-entropy for g = 0; ignored tokens as zeros.
    """

    takes_log_probabilities = True

    class_weight: Tensor | None

    def __init__(self, label_smoothing: float, class_weight: Tensor | None, focal_gamma: float) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        self.focal_gamma = focal_gamma
        # Of the configuration, not learnt: left out of the checkpoint, but moved with the module.
        self.register_buffer("class_weight", class_weight, persistent=False)

    def weight(self, targets: Tensor) -> Tensor:
        """What the sum over these targets is divided by: the sum of the weights of the true classes."""
        if targets.is_floating_point():
            return targets.sum() if self.class_weight is None else (targets * self.class_weight).sum()
        counted = targets != IGNORED
        if self.class_weight is None:
            return counted.sum()
        return (self.class_weight[targets.clamp(min=0)] * counted).sum()

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        outputs, targets = _rows(outputs, targets)
        log_p = F.log_softmax(outputs, dim=1)
        cost = -log_p if self.class_weight is None else -log_p * self.class_weight
        if self.focal_gamma > 0:
            # The gradient of x^g at x = 0 is infinite for g < 1, and float32 rounds 1 - p to 0 for sure predictions.
            cost = cost * (-torch.expm1(log_p)).clamp(min=torch.finfo(log_p.dtype).tiny) ** self.focal_gamma
        return self._expected(cost, targets) / self.weight(targets)

    def _expected(self, cost: Tensor, targets: Tensor) -> Tensor:
        """Σ_i Σ_c q_ic cost_ic."""
        smoothing = self.label_smoothing
        if targets.is_floating_point():
            return (cost * torch.lerp(targets, torch.full_like(targets, 1 / targets.shape[1]), smoothing)).sum()
        counted = targets != IGNORED
        true = cost.gather(1, targets.clamp(min=0).unsqueeze(1)).squeeze(1)
        rows = true if smoothing == 0 else torch.lerp(true, cost.mean(dim=1), smoothing)
        return (rows * counted).sum()


class BinaryCrossEntropy(nn.Module):
    """See `bce`."""

    def __init__(self, positive_weight: float) -> None:
        super().__init__()
        self.register_buffer("positive_weight", torch.tensor(positive_weight), persistent=False)

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        outputs = _full_precision(outputs)
        if targets.ndim < outputs.ndim:
            targets = targets.unsqueeze(-1) == torch.arange(outputs.shape[-1], device=targets.device)
        _require_shape(outputs, targets)
        return F.binary_cross_entropy_with_logits(
            outputs, targets.to(outputs.dtype), pos_weight=self.get_buffer("positive_weight")
        )


class Elementwise(nn.Module):
    """The mean of a function of each output and its target."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        _require_shape(outputs, targets)
        return self.function(_full_precision(outputs), targets)


def _require_task(loss: str, spec: DataSpec, tasks: Sequence[Task]) -> None:
    if spec.task not in tasks:
        wanted = " or ".join(task.value.replace("_", " ") for task in tasks)
        task = spec.task.value.replace("_", " ")
        raise ContractError(
            f"loss={loss} is for {wanted}, but data={spec.name} is a {task} task: leave loss=auto, which chooses "
            f"{default_loss(spec.task).__name__}"
        )


def _require_shape(outputs: Tensor, targets: Tensor) -> None:
    # Unequal shapes would broadcast, (B, 1) against (B,) to (B, B), and train on nonsense.
    if outputs.shape != targets.shape:
        raise ContractError(
            f"the model's outputs have shape {tuple(outputs.shape)} and the targets {tuple(targets.shape)}: "
            "they must be equal for this loss"
        )


def _balanced(spec: DataSpec, counts: Sequence[int] | None) -> list[float]:
    """N / (K · n_c); a class without examples counts as having one. Source: King & Zeng 2001, as in scikit-learn."""
    if counts is None or len(counts) != spec.num_outputs:
        raise ContractError(
            f"loss.class_weights=balanced needs the number of training examples of each of the {spec.num_outputs} "
            f"classes of data={spec.name}: class_counts is {None if counts is None else list(counts)}"
        )
    return [sum(counts) / (len(counts) * max(count, 1)) for count in counts]


def _rows(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Logits as (rows, K), and targets to match: the time steps of a batch of sequences are rows of their own."""
    outputs = _full_precision(outputs)
    if outputs.ndim > 2:
        return outputs.flatten(0, -2), targets.flatten() if targets.ndim < outputs.ndim else targets.flatten(0, -2)
    return outputs, targets


def _full_precision(outputs: Tensor) -> Tensor:
    return outputs if outputs.dtype in (torch.float32, torch.float64) else outputs.float()
