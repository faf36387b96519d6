"""How a transformer learns where a token stands: learned or sinusoidal vectors added to it, or rotated attention."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from dlrun.errors import ConfigError, ContractError

Positions = Literal["learned", "sinusoidal", "rotary", "none"]
BASE = 10_000.0  # the slowest wave repeats after about 2π times as many positions


def angles(positions: Tensor, width: int) -> Tensor:
    """p / BASE^(2i / width) for i = 0 … ⌈width / 2⌉ - 1 in float64: (T,) → (T, ⌈width / 2⌉)."""
    exponents = torch.arange(0, width, 2, dtype=torch.float64, device=positions.device) / width
    return positions.double()[:, None] * BASE**-exponents


def sinusoids(positions: Tensor, width: int) -> Tensor:
    """PE(p, 2i) = sin(p / BASE^(2i / width)), and PE(p, 2i + 1) the cosine of the same: (T,) → (T, width) float32.

    Source: Vaswani et al. 2017 (arXiv:1706.03762), sec. 3.5.
    """
    turned = angles(positions, width)
    return torch.stack((turned.sin(), turned.cos()), dim=2).flatten(1)[:, :width].float()


def make_positions(name: Positions, length: int, width: int, std: float) -> nn.Module | None:
    """What adds the positions called `name` to tokens (B, T, width), called as `f(x, start)`; None if nothing does.

    Args:
        length: how many positions there are; only learned ones are limited to them.
        std: of learned ones at the start: as large as what they are added to, lest the model begin by not seeing one
            of the two.
    """
    match name:
        case "learned":
            return LearnedPositions(length, width, std)
        case "sinusoidal":
            return SinusoidalPositions(length, width)
    return None


class LearnedPositions(nn.Module):
    """Adds a vector of its own, at the start from N(0, std²), to each position: (B, T, width) → (B, T, width)."""

    def __init__(self, length: int, width: int, std: float) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(length, width) * std)

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """`x` with its positions, of which the first is `start`. Raises: ContractError beyond the last."""
        end = start + x.shape[1]
        if end > len(self.embedding):
            raise ContractError(
                f"this model has learned {len(self.embedding)} positions and was given {end} tokens: cut them, or "
                "train it with model.positions=rotary or sinusoidal, which have no last position"
            )
        return x + self.embedding[start:end]


class SinusoidalPositions(nn.Module):
    """Adds `sinusoids`: (B, T, width) → (B, T, width). Those of the first `length` positions are kept ready."""

    table: Tensor

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.register_buffer("table", sinusoids(torch.arange(length), width), persistent=False)

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """`x` with its positions, of which the first is `start`."""
        end = start + x.shape[1]
        if end > len(self.table):
            return x + sinusoids(torch.arange(start, end, device=x.device), x.shape[2]).to(self.table.dtype)
        return x + self.table[start:end]


class GridPositions(nn.Module):
    """Adds to patches (B, rows · columns, width), row by row, sinusoids of the row in half and of the column in half of
    the features; nothing to a token before them, where there is an `extra` one.

    Source: Beyer et al. 2022 (arXiv:2205.01580).
    """

    table: Tensor

    def __init__(self, rows: int, columns: int, width: int, *, extra: bool) -> None:
        super().__init__()
        down, right = (sinusoids(torch.arange(n), width // 2) for n in (rows, columns))
        grid = torch.cat((down.repeat_interleave(columns, 0), right.repeat(rows, 1)), dim=1)
        self.register_buffer("table", nn.functional.pad(grid, (0, 0, int(extra), 0)), persistent=False)

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        return x + self.table


class Rotary(nn.Module):
    """Turns the plane of features i and i + d/2 of a query or key at position p by p / BASE^(2i / d) radians.

    The product of a query and a key then depends on their contents and on how far apart they stand, not on where.
    The paper turns features 2i and 2i + 1, which is the same for other rows of the matrices that make them.
    Source: Su et al. 2021, RoFormer (arXiv:2104.09864), sec. 3.2.

    Args:
        length: positions for which the angles are kept ready.
        width: d, of one head.

    Raises: ConfigError if `width` is odd.
    """

    cosines: Tensor
    sines: Tensor

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        if width % 2:
            raise ConfigError(
                f"model.positions=rotary turns pairs of features, and model.width / model.heads is {width}: make it "
                "even, or choose model.positions=learned or sinusoidal"
            )
        self.width = width
        cosines, sines = self._turns(torch.arange(length))
        self.register_buffer("cosines", cosines, persistent=False)
        self.register_buffer("sines", sines, persistent=False)

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """Queries or keys (B, heads, T, d), turned; the first position is `start`."""
        end = start + x.shape[2]
        cosines, sines = self.cosines[start:end], self.sines[start:end]
        if end > len(self.cosines):
            turns = self._turns(torch.arange(start, end, device=x.device))
            cosines, sines = (turn.to(self.cosines.dtype) for turn in turns)
        first, second = x.chunk(2, dim=-1)
        turned = x * cosines + torch.cat((second, first), dim=-1) * sines
        return turned.to(x.dtype)

    def _turns(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """What a feature and its partner are multiplied by, (T, d) each: cos, cos and -sin, sin of the angles."""
        turned = angles(positions, self.width)
        cosines, sines = turned.cos().float(), turned.sin().float()
        return torch.cat((cosines, cosines), dim=1), torch.cat((-sines, sines), dim=1)
