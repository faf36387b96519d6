"""How parameters are divided into groups: the settings under `optimizer.param_groups`. Torch-free."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

from dlrun.contracts import Duration, Interval, PositiveFloat

LayerDecay = Annotated[float, Interval(0, 1, open_low=True)]

KINDS = ("bias", "norm", "embedding")


@dataclass(frozen=True)
class ParameterGroups:
    """Which parameters are decayed, and by what their learning rate is multiplied.

    A pattern is a glob over parameter names (`*.bias`, `blocks.0.*`) or the name of a module, which stands for all
    parameters in it (`head`).

    Attributes:
        no_decay: parameters without weight decay, by kind or by pattern. The kinds: "norm", what belongs to a
            normalisation layer; "embedding", tables of embeddings and positions; "bias", what is named so and every
            vector or scalar that no normalisation layer owns (layer scales, PReLU slopes, temperatures).
        lr_factors: pattern -> multiplier of the learning rate; the first that matches wins, none means 1.
        until: pattern -> length of training after which the parameters learn no more: up to there their learning rate
            falls in a straight line to 0, whatever the schedule; the first that matches wins, none means to the end.
        layer_decay: the learning rate falls by this factor per layer, counted from the output; see
            `dlrun.optim.parameter_groups.layer_distances` for what counts as a layer.
        split_hidden: keep hidden matrices in groups of their own, marked `hidden`: what Muon orthogonalises.
    """

    no_decay: Sequence[str] = ("bias", "norm")
    lr_factors: dict[str, PositiveFloat] = field(default_factory=dict)
    until: dict[str, Duration] = field(default_factory=dict)
    layer_decay: LayerDecay | None = None
    split_hidden: bool = False
