"""What this machine does, in figures: its arithmetic and memory, and dlrun's own training steps on invented data."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from dlrun import assembly
from dlrun.config.compose import compose
from dlrun.contracts import Arrays, DataSpec, Examples, Kind, Splits, Task, Vocabulary
from dlrun.engine.device import choose_device, describe_device
from dlrun.examples import TextWindows
from dlrun.inputs import decode_image
from dlrun.machine import rates
from dlrun.machine.clock import seconds_each
from dlrun.machine.cores import usable_cores
from dlrun.profiling import prepare
from dlrun.profiling.steps import timed_steps
from dlrun.version import __version__

CPU = torch.device("cpu")
ROUNDS = 2  # of every training step with every number of threads, taking turns
CHARACTERS = tuple(map(chr, range(32, 97)))


@dataclass
class Figures:
    """What was measured. Rates are per second.

    Attributes:
        machine: its names and numbers.
        copy: bytes read and written by a copy in memory, by number of threads (one entry, 0, on a GPU).
        products: operations in products of matrices, by number format (on the CPU with its threads), then by size.
        call_seconds, wait_seconds: what the smallest operation costs, and reading one number from the device.
        transfer: bytes between host and GPU, by direction and kind of memory; empty on a CPU.
        convolution: operations, by memory layout.
        attention: operations.
        gather: small images picked at random from a set in the device's memory.
        jpeg: images decoded by one core, by their size.
        training: samples, by training step, then by number of threads (0 on a GPU).
    """

    machine: dict[str, Any]
    copy: dict[int, float] = field(default_factory=dict)
    products: dict[str, dict[int, float]] = field(default_factory=dict)
    call_seconds: float = 0.0
    wait_seconds: float = 0.0
    transfer: dict[str, float] = field(default_factory=dict)
    convolution: dict[str, float] = field(default_factory=dict)
    attention: float = 0.0
    gather: float = 0.0
    jpeg: dict[int, float] = field(default_factory=dict)
    training: dict[str, dict[int, float]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def images() -> tuple[Examples, DataSpec]:
    """Grey images of MNIST's size."""
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (16_384, 1, 28, 28), dtype=torch.uint8, generator=draw)
    spec = DataSpec("noise", Task.CLASSIFICATION, Kind.IMAGE, (1, 28, 28), 10, mean=(0.5,), std=(0.3,))
    return Arrays(pixels, torch.arange(len(pixels)) % 10), spec


def letters() -> tuple[Examples, DataSpec]:
    """A text of 65 different characters, in windows of 64."""
    draw = torch.Generator().manual_seed(0)
    text = torch.randint(0, len(CHARACTERS), (100_000,), dtype=torch.int32, generator=draw)
    known = Vocabulary(CHARACTERS)
    size = len(CHARACTERS)
    spec = DataSpec("noise", Task.LANGUAGE_MODELLING, Kind.TOKENS, (64,), size, vocabulary_size=size, vocabulary=known)
    return TextWindows(text, torch.arange(0, len(text) - 65), 64), spec


STEPS: dict[str, tuple[Callable[[], tuple[Examples, DataSpec]], list[str]]] = {
    "mlp, batch 128": (images, ["model=mlp", "model.widths=[128,128,128]", "data.batch_size=128"]),
    "mlp, batch 4096": (images, ["model=mlp", "model.widths=[128,128,128]", "data.batch_size=4096"]),
    "cnn, batch 128": (images, ["model=cnn", "data.batch_size=128"]),
    "lstm by rows, batch 128": (images, ["model=lstm", "model.hidden=128", "data.batch_size=128"]),
    "gpt, 12 x 64 characters": (letters, ["model=gpt", "data.batch_size=12"]),
}


def bench(
    device_word: str = "auto", *, quick: bool = False, said: Callable[[str], None] = lambda line: None
) -> Figures:
    """Measure the machine.

    Args:
        device_word: as in `trainer.device`.
        quick: in a fifth of the time.
        said: is told what is measured next.
    """
    device = choose_device(device_word)
    before = torch.get_num_threads()
    budget = 0.04 if quick else 0.2
    figures = Figures({**describe_device(device), "cores": usable_cores(), "torch": torch.__version__})
    figures.machine |= {"system": platform.platform(), "dlrun": __version__, "processor": processor()}
    counts = thread_counts() if device.type == "cpu" else [0]
    said("memory and arithmetic")
    for count in counts:
        with rates.threads(count or before):
            figures.copy[count] = rates.copy_rate(device, budget=budget)
    sizes = rates.SIZES[device.type][: 3 if quick else None]
    for name in rates.precisions(device):
        for count in counts if device.type == "cpu" else [0]:
            label = f"{name}, {count} thread{'s' * (count > 1)}" if count else name
            with rates.threads(count or before):
                figures.products[label] = {size: rates.product_rate(device, name, size, budget) for size in sizes}
    small_things(figures, device, budget)
    for name, (make, words) in STEPS.items():
        said(f"training: {name}")
        figures.training[name] = training_rates(make, words, device, counts, 0.1 if quick else 0.6)
    torch.set_num_threads(before)
    return figures


def small_things(figures: Figures, device: torch.device, budget: float) -> None:
    """What is one number each."""
    figures.call_seconds = rates.call_seconds(device)
    figures.wait_seconds = rates.wait_seconds(device)
    precision = "bf16" if device.type == "cuda" and "bf16" in rates.precisions(device) else "fp32"
    for layout, last in (("contiguous", False), ("channels_last", True)):
        figures.convolution[layout] = rates.convolution_rate(device, precision, channels_last=last, budget=budget)
    figures.attention = rates.attention_rate(device, precision, budget)
    figures.gather = rates.gather_rate(device, budget)
    figures.jpeg = {size: jpeg_rate(size, budget) for size in (32, 256)}
    if device.type == "cuda":
        for direction, there in (("host to GPU", True), ("GPU to host", False)):
            for kind, pinned in (("pageable", False), ("pinned", True)):
                rate = rates.transfer_rate(device, to_device=there, pinned=pinned)
                figures.transfer[f"{direction}, {kind}"] = rate


def jpeg_rate(size: int, budget: float) -> float:
    """Images per second that one core decodes, size x size in colours."""
    noise = np.random.default_rng(0).integers(0, 256, (size // 8, size // 8, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.jpg"
        Image.fromarray(noise).resize((size, size)).save(path, quality=90)
        return 1 / seconds_each(lambda: decode_image(path, 3, size, size), CPU, budget)


def thread_counts() -> list[int]:
    """1, 2, 4, … and the number of cores."""
    cores = usable_cores()
    return sorted({*(1 << power for power in range(cores.bit_length()) if 1 << power <= cores), cores})


def training_rates(
    make: Callable[[], tuple[Examples, DataSpec]],
    words: list[str],
    device: torch.device,
    counts: list[int],
    seconds: float,
) -> dict[int, float]:
    """Samples per second of a training step, by number of threads; the best of some tries."""
    examples, spec = make()
    config = compose([*words, "trainer.early_stopping=null", "data.val_fraction=0.01"]).config
    a = assembly.assemble(config, str(device), splits=Splits(examples, spec, examples, examples))
    training = prepare(a, 200)
    own = torch.get_num_threads()
    found = dict.fromkeys(counts, 0.0)
    for _ in range(ROUNDS):
        for count in counts:
            with rates.threads(count or own):
                timed_steps(training, 2, 0.0)
                found[count] = max(found[count], timed_steps(training, 200, seconds).samples_per_second)
    return found


def processor() -> str:
    """The name of the processor, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def consequences(figures: Figures) -> list[tuple[str, str]]:
    """What the figures say about settings: why, and the words."""
    found = []
    cores = figures.machine["cores"]
    by_best: dict[int, list[str]] = {}
    for name, by_threads in figures.training.items():
        best = max(by_threads, key=lambda count: by_threads[count])
        if by_threads[best] > 1.1 * min(by_threads.values()):  # else it makes no difference
            by_best.setdefault(best, []).append(f"{name} ({by_threads[best] / min(by_threads.values()):.1f} times)")
    for best, names in sorted(by_best.items()):
        of = "1 thread is" if best == 1 else f"{best} threads are"
        found.append(
            (f"{of} faster than another number of 1 to {cores} for {', '.join(names)}", f"trainer.threads={best}")
        )
    layouts = figures.convolution
    gain = layouts["channels_last"] / layouts["contiguous"]
    if gain < 0.9:
        found.append((f"convolutions reach {gain:.2f} times the rate in the channels-last layout that dlrun takes", ""))
    best_rates: dict[str, float] = {}
    for label, by_size in figures.products.items():
        name = label.partition(",")[0]
        best_rates[name] = max(best_rates.get(name, 0.0), *by_size.values())
    for name in ("bf16", "fp16", "tf32"):
        if best_rates.get(name, 0.0) > 1.3 * best_rates["fp32"]:
            times = best_rates[name] / best_rates["fp32"]
            found.append(
                (f"matrix products run {times:.1f} times as fast in {name} as in fp32", f"trainer.precision={name}")
            )
            break
    if os.environ.get("OMP_NUM_THREADS") == "1" and cores > 1 and any(best > 1 for best in by_best):
        found.append(("OMP_NUM_THREADS=1 is set, and some models are faster with more", "unset OMP_NUM_THREADS"))
    return found
