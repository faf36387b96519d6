"""A momentum that is there before the first step."""

from typing import Any

import torch


def start_momentum(optimizer: Any) -> None:
    """Give torch's fused SGD momentum buffers of zeros, from which its first step makes what it would make of none.

    Left to itself it takes them as memory lies, and fills them in its first step. Where a loss scaler leaves that step
    out, because the gradients overflow in fp16, as the first ones mostly do, the next step takes what lay there for
    momentum: NaN as likely as not. With dampening d the first momentum is (1 - d) times the gradient, not all of it.
    """
    if type(optimizer) is not torch.optim.SGD:
        return
    for group in optimizer.param_groups:
        if group["fused"] and group["momentum"]:
            for p in group["params"]:
                optimizer.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
