"""Whether a stack is faster than its runs one after the other: a rule from measurements (benchmarks/stacked.py).

What a stack saves is everything that a step takes beside its arithmetic: calls of operations, of the optimizer, of the
loop. What it cannot save is the arithmetic; on a CPU one small model's numbers fit into the cache, and those of many do
not. So it pays for models whose arithmetic is short, the more the more members there are. Seconds of training steps
one after another over those in a stack, one thread on a CPU, 4, 16 and 64 members with learning rates of their own:

    products   forward   runs                              4     16     64
        0.1 M  by hand   digits, MLP 64-32-10, batch 32    1.8   4.5    9.3
        0.3 M  by hand   digits, MLP 64-32-10, batch 128   1.7   3.8    5.9
        1.6 M  by hand   MNIST, MLP 784-16-10, batch 128   1.4   2.4
        1.7 M  by hand   digits, default MLP, batch 32     1.2   2.1    2.1
        3.3 M  by hand   digits, default MLP, batch 64     1.2   1.8    2.1
       17   M  by hand   MNIST, MLP 784-128-128-128-10   1.0   1.2
               vmap      digits, CNN 8-16, batch 32        1.3   2.7
               vmap      sequence_mean, LSTM 16, batch 32  0.9   1.8
"""

from __future__ import annotations

import copy

import torch

from dlrun.assembly import Assembly
from dlrun.assembly.parts import convolves
from dlrun.engine.loaders import Preparation, gather
from dlrun.engine.seeding import is_same_state, random_state, restore_random_state
from dlrun.stacked.fit import EXAMPLES, CannotStackError
from dlrun.stacked.layers import by_hand

PRODUCTS = 4_000_000
FEWEST = {True: 4, False: 8}  # members, by whether the forward pass is written out by hand


def pays(parameters: int, batch_size: int, members: int, *, is_by_hand: bool, device: str) -> bool:
    """Whether a stack is known to be faster.

    Args:
        parameters: of one run; times the batch size they are about the multiplications of a forward pass. Convolutions
            and recurrences use theirs more than once, and what is known of those are small ones.
        device: on others than the CPU it has not been measured.
    """
    return device == "cpu" and members >= FEWEST[is_by_hand] and parameters * batch_size <= PRODUCTS


def refuse_slow(members: int, a: Assembly) -> None:
    """Raises: CannotStackError if it is not known to pay for so many runs like this one, or would change them."""
    if draws(a):
        raise CannotStackError("with dropout, or other chance in it, a model in a stack is not what it is alone.")
    size, is_by_hand = a.config["data"]["batch_size"], by_hand(a.model) is not None
    if not pays(a.parameters, size, members, is_by_hand=is_by_hand, device=a.device.type):
        raise CannotStackError(
            f"a stack of {members} runs with {a.parameters:,} parameters and batches of {size} on {a.device.type} is "
            "not known to be faster than one run after the other."
        )


def draws(a: Assembly) -> bool:
    """Whether the model draws random numbers as it trains: tried, on a copy, with examples of the training split."""
    prepare = Preparation(a.spec, (), a.config["seed"], a.device, convolves(a.model))
    index = torch.arange(min(EXAMPLES, len(a.splits.train)))
    batch = prepare(gather(a.splits.train, index).map(lambda tensor: tensor.to(a.device)), 0)
    before = random_state(a.device)
    try:
        with torch.no_grad():
            copy.deepcopy(a.model).train()(*batch.arguments)
        return not is_same_state(before, random_state(a.device))
    finally:
        restore_random_state(before, a.device)
