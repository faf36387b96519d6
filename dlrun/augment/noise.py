"""Gaussian noise on the inputs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch

from dlrun.augment.common import inputs_of, require, to_float
from dlrun.contracts import Batch, DataSpec, Kind, PositiveFloat


@dataclass(frozen=True)
class Noise:
    """Add independent normal noise to every number of the inputs.

    uint8 images become floats in [0, 1] first, and are not cut back to that range, so that the noise keeps mean 0.

    Args:
        std: for images, of pixels in [0, 1]; for vectors and sequences, in standard deviations of a feature.

    Raises: ContractError if the data are tokens.
    """

    spec: DataSpec
    std: PositiveFloat = 0.1

    def __post_init__(self) -> None:
        require("noise", self.spec, Kind.VECTOR, Kind.IMAGE, Kind.SEQUENCE)

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        inputs = to_float(inputs_of(batch))
        drawn = torch.randn(inputs.shape, generator=generator, device=inputs.device, dtype=inputs.dtype)
        return dataclasses.replace(batch, inputs=inputs.add(drawn, alpha=self.std))
