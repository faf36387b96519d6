"""Whether a stack is faster than its runs one after the other: a rule from measurements (benchmarks/stacked.py).

What a stack saves is everything that a step takes beside its arithmetic: calls of operations, of the optimizer, of the
loop. What it cannot save is the arithmetic; on a CPU one small model's numbers fit into the cache, and those of many do
not. So it pays for models whose arithmetic is short, the more the more members there are.
"""

from __future__ import annotations

from dlrun.assembly import Assembly
from dlrun.stacked.fit import CannotStackError

CPU_PRODUCTS = 4_000_000  # multiplications of a forward pass: parameters times examples
FEWEST = 4


def pays(products: int, members: int, device: str) -> bool:
    """Whether a stack is known to be faster.

    Args:
        products: multiplications in the forward pass of one batch of one run, about parameters times examples.
        device: cpu, cuda or mps. On others than the CPU it has not been measured.
    """
    return device == "cpu" and members >= FEWEST and products <= CPU_PRODUCTS


def refuse_slow(members: int, a: Assembly) -> None:
    """Raises: CannotStackError if it is not known to pay for so many runs like this one."""
    size = a.config["data"]["batch_size"]
    if not pays(a.parameters * size, members, a.device.type):
        raise CannotStackError(
            f"a stack of {members} runs with {a.parameters:,} parameters and batches of {size} on {a.device.type} is "
            "not known to be faster than one run after the other."
        )
