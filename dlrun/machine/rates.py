"""Rates of one device: matrix products, memory, transfers, and what a call costs that does nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlrun.machine.clock import seconds_each, synchronise

TYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SIZES = {"cpu": (256, 512, 1024, 2048), "cuda": (1024, 2048, 4096, 8192), "mps": (512, 1024, 2048, 4096)}
LONGEST = 1.0  # seconds that one product may take
FROM_CAPABILITY = {"tf32": (8, 0), "bf16": (8, 0), "fp16": (7, 0)}  # GPUs that have tensor cores for it


def precisions(device: torch.device) -> list[str]:
    """The number formats that the device computes in, not those it imitates."""
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        return ["fp32", *(name for name, least in FROM_CAPABILITY.items() if capability >= least)]
    if device.type == "mps":
        return ["fp32", "fp16"]
    return ["fp32", *(name for name in ("bf16", "fp16") if _mkldnn_has(name))]


def _mkldnn_has(name: str) -> bool:
    supported = f"_is_mkldnn_{name}_supported"
    return hasattr(torch.ops.mkldnn, supported) and bool(getattr(torch.ops.mkldnn, supported)())


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute with so many CPU threads meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def product_precision(precision: str, device: torch.device) -> Iterator[None]:
    """Products of float32 matrices in true float32, or in TF32, meanwhile."""
    if device.type != "cuda":
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def product_rate(device: torch.device, precision: str, size: int, budget: float = 0.1) -> float:
    """Floating-point operations per second in a product of two matrices (size, size): 2 · size³ in a call."""
    a = torch.randn(size, size, device=device).to(TYPES[precision])
    b = torch.randn(size, size, device=device).to(TYPES[precision])
    out = torch.empty_like(a)
    with product_precision(precision, device):
        return 2 * size**3 / seconds_each(lambda: torch.mm(a, b, out=out), device, budget)


def peak_rate(device: torch.device, precision: str, budget: float = 0.3) -> float:
    """The highest rate of matrix products of several sizes: what nothing on this device computes faster than.

    Sizes that would take longer than `LONGEST`, as they do in a format that the device imitates, are left out.
    """
    best = 0.0
    for size in SIZES[device.type]:
        rate = product_rate(device, precision, size, budget / len(SIZES[device.type]))
        best = max(best, rate)
        if 2 * (2 * size) ** 3 / rate > LONGEST:
            break
    return best


def copy_rate(device: torch.device, megabytes: int = 128, budget: float = 0.1) -> float:
    """Bytes per second, read and written together, of a copy within the device's memory."""
    source = torch.ones(megabytes << 18, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / seconds_each(lambda: target.copy_(source), device, budget)


def call_seconds(device: torch.device, budget: float = 0.05) -> float:
    """What the smallest operation costs the host: on a GPU, giving it one kernel more to do."""
    one = torch.ones(1, device=device)
    return seconds_each(lambda: one.add_(1), device, budget)


def wait_seconds(device: torch.device, budget: float = 0.05) -> float:
    """What it costs to read one number from the device."""
    one = torch.ones(1, device=device)

    def read() -> None:
        one.add_(1).item()

    return seconds_each(read, device, budget)


def transfer_rate(device: torch.device, *, to_device: bool, pinned: bool, megabytes: int = 64) -> float:
    """Bytes per second between the host's memory, pageable or pinned, and the device's."""
    host = torch.ones(megabytes << 18, pin_memory=pinned)
    there = torch.ones(megabytes << 18, device=device)
    source, target = (host, there) if to_device else (there, host)

    def copy() -> None:
        target.copy_(source, non_blocking=pinned)
        synchronise(device)

    return host.nbytes / seconds_each(copy, device)


def convolution_rate(device: torch.device, precision: str, *, channels_last: bool, budget: float = 0.2) -> float:
    """Operations per second of a 3 x 3 convolution and its backward pass, 32 to 32 channels on 32 x 32."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    layer = nn.Conv2d(32, 32, 3, padding=1, bias=False, device=device, dtype=TYPES[precision])
    layer.weight.data = layer.weight.data.contiguous(memory_format=layout)
    images = torch.randn(32, 32, 32, 32, device=device).to(TYPES[precision], memory_format=layout).requires_grad_()

    def step() -> None:
        layer(images).sum().backward()
        layer.weight.grad = images.grad = None

    return 3 * 2 * 32 * 32 * 32 * 9 * 32 * 32 / seconds_each(step, device, budget)


def attention_rate(device: torch.device, precision: str, budget: float = 0.2) -> float:
    """Operations per second of causal attention and its backward pass, 16 sequences of 256 tokens, 4 heads of 64.

    Counted as all pairs of tokens, as is usual: the half that the mask leaves out too.
    """
    q, k, v = (torch.randn(16, 4, 256, 64, device=device).to(TYPES[precision]).requires_grad_() for _ in range(3))

    def step() -> None:
        F.scaled_dot_product_attention(q, k, v, is_causal=True).sum().backward()
        q.grad = k.grad = v.grad = None

    return 3.5 * 4 * 16 * 4 * 256 * 256 * 64 / seconds_each(step, device, budget)


def gather_rate(device: torch.device, budget: float = 0.1) -> float:
    """Examples per second that are picked at random from 50,000 images of 32 x 32 in bytes, 512 at a time."""
    images = torch.zeros(50_000, 3, 32, 32, dtype=torch.uint8, device=device)
    index: Tensor = torch.randint(0, len(images), (512,), device=device)
    return len(index) / seconds_each(lambda: images.index_select(0, index), device, budget)
