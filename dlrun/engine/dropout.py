"""Dropout that acts while everything else is evaluated."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def dropout_active(model: nn.Module) -> Iterator[int]:
    """Within the context the modules of a model that drop something do so, as in training; the others do not change.

    A module drops something if its class is named so (Dropout2d, DropConnectLinear) or it has a rate named so that is
    above 0 (`dropout` of nn.LSTM, of an attention). Only its own mode is switched, not that of the modules in it.
    torch's fused nn.TransformerEncoderLayer, which asks for the mode of the layer alone, is off meanwhile.

    Yields: how many modules there are that drop something.
    Source: Gal & Ghahramani 2016 (arXiv:1506.02142).
    """
    dropping = [module for module in model.modules() if _drops(module) and not module.training]
    is_fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    for module in dropping:
        module.training = True
    try:
        yield len(dropping)
    finally:
        torch.backends.mha.set_fastpath_enabled(is_fused)
        for module in dropping:
            module.training = False


def _drops(module: nn.Module) -> bool:
    if "drop" in type(module).__name__.lower():
        return float(getattr(module, "p", 0.0)) > 0
    return any(name.endswith("dropout") and isinstance(rate, float) and rate > 0 for name, rate in vars(module).items())
