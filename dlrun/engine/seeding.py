"""All randomness comes from one seed, and its state can be stored and brought back."""

import hashlib
import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch on every device. `seed` is in [0, 2**32)."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the generators of the host, and bring back their states afterwards."""
    before = random.getstate(), np.random.get_state(legacy=True), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


def derive(seed: int, *names: str | int) -> int:
    """A seed of its own for each purpose, such as derive(seed, "order", epoch); 63 bits.

    Streams of random numbers that do not touch one another keep runs comparable: another model draws other initial
    weights and still sees the examples in the same order.
    """
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def random_state(device: torch.device) -> dict[str, Any]:
    """The state of all global generators, as tensors and plain values."""
    _, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": {
            "keys": torch.from_numpy(np.asarray(keys).astype(np.int64)),
            "position": int(position),
            "has_gauss": int(has_gauss),
            "cached": float(cached),
        },
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def is_same_state(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether nothing was drawn between two calls of `random_state`."""
    for key, value in one.items():
        if isinstance(value, Mapping):
            equal = is_same_state(value, other[key])
        else:
            equal = torch.equal(value, other[key]) if isinstance(value, torch.Tensor) else value == other[key]
        if not equal:
            return False
    return True


def restore_random_state(state: dict[str, Any], device: torch.device) -> None:
    """The inverse of `random_state`."""
    torch.set_rng_state(state["torch"])
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    numpy = state["numpy"]
    keys = numpy["keys"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, numpy["position"], numpy["has_gauss"], numpy["cached"]))
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def make_repeatable() -> None:
    """Let convolutions on a GPU give the same bits each time, by choice of algorithm; it costs little or nothing.

    cuDNN's fastest gradients of the weights add up in whatever order threads come. Other operations that do so are few;
    `make_deterministic` has them replaced or refused.
    """
    torch.backends.cudnn.deterministic = True


def make_deterministic(wanted: bool = True) -> None:
    """Let torch refuse operations whose result may change from run to run; or take them again, after a run that did."""
    if wanted:
        # cuBLAS reads it when its first handle is made, so it must be set before the first matrix product.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
    if torch.are_deterministic_algorithms_enabled() != wanted:
        torch.use_deterministic_algorithms(wanted)
