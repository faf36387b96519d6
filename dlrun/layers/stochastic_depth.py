"""Stochastic depth: residual branches left out at random while training, the later ones more often."""

from __future__ import annotations

from torch import Tensor, nn

from dlrun.errors import ConfigError


class StochasticDepth(nn.Module):
    """Zeroes whole examples of a residual branch while training; write x + StochasticDepth(p)(f(x)).

    An example survives with probability 1 - p and is then divided by 1 - p, so that the mean over the draws is the
    output of evaluation, which changes nothing. The paper multiplies by 1 - p in evaluation instead, which is the same
    up to the scale of the branch, and draws once for a batch; here each example draws for itself.

    Inputs and outputs (B, ...). The masks come from the global generator of the input's device.
    Source: Huang et al. 2016 (arXiv:1603.09382).

    Args:
        drop_probability: p, in [0, 1).

    Raises: ConfigError if p is outside that range: at 1 the branch would never be trained.
    """

    def __init__(self, drop_probability: float) -> None:
        super().__init__()
        if not 0 <= drop_probability < 1:
            raise ConfigError(f"the probability of leaving a block out must be in [0, 1), got {drop_probability}")
        self.drop_probability = drop_probability

    def forward(self, branch: Tensor) -> Tensor:
        if not self.training or self.drop_probability == 0:
            return branch
        survival = 1 - self.drop_probability
        kept = branch.new_empty(len(branch), *[1] * (branch.ndim - 1)).bernoulli_(survival)
        return branch * kept.div_(survival)

    def extra_repr(self) -> str:
        return f"{self.drop_probability:g}"


def linear_drops(last: float, blocks: int) -> list[float]:
    """The drop probability of each of `blocks` blocks: l / L · `last` for block l = 1 ... L.

    The linear rule of Huang et al. 2016, eq. 4, in terms of dropping: survival 1 - l/L · (1 - p_L).
    """
    return [last * block / blocks for block in range(1, blocks + 1)]
