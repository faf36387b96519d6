"""Epoch time over samples, batch, width and workers, and memory over data, beside what the hardware allows.

    DLRUN_DATA=data python benchmarks/scaling.py           # benchmarks/results/scaling.json, docs/scaling_*.png
    python benchmarks/scaling.py --plot                    # the pictures again, from the JSON

An MLP 784-128-128-128-10 on MNIST unless said otherwise, trained by dlrun's own loop. Two limits, both from peaks
measured at the start: the arithmetic of all steps over the speed of one large matrix product, and the bytes that the
steps must move over the speed of copying a tensor larger than the caches. Bytes are counted from below: weights read
twice, gradients written and read, AdamW's two moments and weights read and written, the batch gathered and read,
activations and their gradients written and read. Small models stay in the caches and may beat the second limit.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from image_folder import subset
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from measuring import RESULTS, machine, write
from peer_data import cifar_folder
from torch.utils.flop_counter import FlopCounterMode

from dlrun import assembly
from dlrun.config.compose import compose
from dlrun.engine.loop import fit

DOCS = Path(__file__).parent.parent / "docs"
MLP = ["data=mnist", "model=mlp", "model.norm=none", "trainer.epochs=1", "trainer.precision=fp32"]
# Okabe & Ito's colours, told apart with any colour vision; markers and line styles tell in grey print.
MEASURED: dict[str, Any] = {"color": "#0072B2", "marker": "o", "linestyle": "-"}
OTHER: dict[str, Any] = {"color": "#CC79A7", "marker": "s", "linestyle": "-"}
ARITHMETIC: dict[str, Any] = {"color": "#D55E00", "linestyle": "--"}
BYTES: dict[str, Any] = {"color": "#009E73", "linestyle": ":"}
PEAK = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""  # kilobytes, as Linux counts


def best_of(action: Callable[[], Any], repeats: int = 7) -> float:
    """The shortest of some calls in seconds, the first not counted."""
    action()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    return min(times)


def peaks(quick: bool) -> dict[str, float]:
    """What this machine can do in fp32: `flops` per second of a matrix product, `bytes` per second of a copy."""
    side, numbers = (512, 1 << 22) if quick else (2048, 1 << 26)
    a, b = torch.randn(side, side), torch.randn(side, side)
    product = torch.empty(side, side)
    source, target = torch.zeros(numbers), torch.empty(numbers)
    return {
        "flops": 2 * side**3 / best_of(lambda: torch.mm(a, b, out=product)),
        "bytes": 2 * source.nbytes / best_of(lambda: target.copy_(source)),
    }


def epoch(words: Sequence[str], rounds: int, peak: Mapping[str, float]) -> dict[str, float]:
    """Seconds of one epoch by dlrun, the median, least and most, and both limits."""
    a = assembly.assemble(compose([*MLP, *words]).config)
    times = []
    for _ in range(rounds + 1):
        training = assembly.prepare_training(a, lambda record: None, ())
        fit(training)
        times.append(training.seconds - training.validation_seconds)
    batch = int(a.config["data"]["batch_size"])
    flops, moved = per_step(a.model, a.spec.num_features, batch)
    steps = len(a.splits.train) / batch  # the last one is smaller
    return {
        "seconds": statistics.median(times[1:]),
        "min": min(times[1:]),
        "max": max(times[1:]),
        "flops": steps * flops,
        "bytes": steps * moved,
        "arithmetic_limit": steps * flops / peak["flops"],
        "bytes_limit": steps * moved / peak["bytes"],
    }


def per_step(model: torch.nn.Module, features: int, batch: int) -> tuple[float, float]:
    """Floating-point operations and bytes of one step of an MLP with AdamW in fp32."""
    inputs = torch.randn(batch, 1, 28, 28)
    with FlopCounterMode(display=False) as counter:
        model(inputs).sum().backward()
    model.zero_grad()
    weights = sum(p.numel() for p in model.parameters())
    activations = sum(m.out_features for m in model.modules() if isinstance(m, torch.nn.Linear))
    return float(counter.get_total_flops()), 4.0 * (10 * weights + 3 * batch * features + 4 * batch * activations)


def sweep(
    name: str, values: Sequence[int], words: Callable[[int], list[str]], rounds: int, peak: Mapping[str, float]
) -> list[dict[str, float]]:
    """`epoch` for each of the values."""
    points = []
    for value in values:
        points.append({name: float(value)} | epoch(words(value), rounds, peak))
        shown = points[-1]
        print(
            f"{name} {value:>6}: {shown['seconds']:8.3f} s; arithmetic {shown['arithmetic_limit']:.3f} s, "
            f"bytes {shown['bytes_limit']:.3f} s",
            flush=True,
        )
    return points


def mlp(width: int = 128) -> list[str]:
    return [f"model.widths=[{width},{width},{width}]"]


def memory(per_class: int, loader: str, folder: Path) -> dict[str, float]:
    """The largest resident memory in MB of a process that trains on so many decoded JPEGs."""
    with tempfile.TemporaryDirectory() as scratch:
        images = Path(scratch, "images")
        images.mkdir()
        words = ["data=image_folder", f"data.path={subset(folder, per_class, str(images))}", "data.size=32"]
        words += [f"data.cache={scratch}/cache", f"data.loader={loader}", "model=linear", "trainer.max_steps=20"]
        command = [sys.executable, "-m", "dlrun", "train", *words, f"hydra.run.dir={scratch}/run"]
        # By way of a small process: the peak of one begins with the size of that which started it.
        done = subprocess.run([sys.executable, "-c", PEAK, *command], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    images_mb = per_class * 10 * 3 * 32 * 32 / 1e6
    peak_mb = int(done.stdout) / 1e3
    print(f"{images_mb:7.1f} MB of images, {loader}: {peak_mb:.0f} MB", flush=True)
    return {"data_mb": images_mb, "peak_mb": peak_mb}


def measure(quick: bool, keep: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """All curves, one after another; `keep` receives each as soon as it is known."""
    rounds = 1 if quick else 3
    peak = peaks(quick)
    print(f"peaks: {peak['flops'] / 1e9:.0f} GFLOP/s in a matrix product, {peak['bytes'] / 1e9:.1f} GB/s in a copy")
    samples = [500, 1000] if quick else [2000, 5000, 10000, 20000, 50000]
    batches = [64, 256] if quick else [16, 64, 256, 1024, 4096]
    widths = [32, 64] if quick else [32, 128, 512, 1024]
    workers = [0, 1] if quick else [0, 1, 2, 4]
    limit = ["data.limit=1000"] if quick else ["data.limit=20000"]
    streaming = [*mlp(), *limit, "data.loader=streaming"]
    curves: dict[str, Callable[[], Any]] = {
        "peaks": lambda: peak,
        "samples": lambda: sweep("samples", samples, lambda n: [*mlp(), f"data.limit={n}"], rounds, peak),
        "batch": lambda: sweep("batch", batches, lambda n: [*mlp(), *limit, f"data.batch_size={n}"], rounds, peak),
        "width": lambda: sweep("width", widths, lambda n: [*mlp(n), *limit], rounds, peak),
        "workers": lambda: sweep("workers", workers, lambda n: [*streaming, f"data.workers={n}"], rounds, peak),
        "resident": lambda: epoch([*mlp(), *limit], rounds, peak),
        "memory": lambda: memory_curves(quick),
    }
    result = {}
    for name, curve in curves.items():
        result[name] = curve()
        keep(result)
    return result


def memory_curves(quick: bool) -> dict[str, list[dict[str, float]]]:
    """Memory over the number of images, by loader."""
    folder = cifar_folder() / "train"
    counts = [20, 40] if quick else [500, 1000, 2000, 5000]
    return {loader: [memory(count, loader, folder) for count in counts] for loader in ("resident", "streaming")}


def chart(path: Path, across: str, up: str, draw: Callable[[Axes], None], log: bool = True) -> None:
    """One picture with labelled axes and a legend."""
    figure = Figure(figsize=(5.6, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    draw(axes)
    if log:
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())  # less than two decades would have labels on labels
    else:
        axes.set_ylim(bottom=0)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(alpha=0.3, which="both" if log else "major", linewidth=0.5)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=150)
    print(f"written: {path}")


def draw_epochs(points: Sequence[Mapping[str, float]], name: str) -> Callable[[Axes], None]:
    """Measured seconds and both limits over `name`."""

    def draw(axes: Axes) -> None:
        x = [point[name] for point in points]
        y = [point["seconds"] for point in points]
        spread = [[point["seconds"] - point["min"] for point in points], [p["max"] - p["seconds"] for p in points]]
        axes.errorbar(x, y, yerr=spread, capsize=2, label="dlrun, median and range", **MEASURED)
        axes.plot(
            x, [p["arithmetic_limit"] for p in points], label="FLOPs at the speed of a large product", **ARITHMETIC
        )
        axes.plot(x, [p["bytes_limit"] for p in points], label="bytes at the speed of a copy", **BYTES)

    return draw


def plot(result: Mapping[str, Any], folder: Path) -> None:
    """docs/scaling_*.png from the numbers."""
    epochs = {"samples": "training examples", "batch": "batch size (examples)", "width": "width of the hidden layers"}
    for name, across in epochs.items():
        chart(folder / f"scaling_{name}.png", across, "seconds per epoch", draw_epochs(result[name], name))

    def workers(axes: Axes) -> None:
        draw_epochs(result["workers"], "workers")(axes)
        axes.axhline(result["resident"]["seconds"], label="dlrun, data resident (the default)", color="#CC79A7")
        axes.set_xticks([point["workers"] for point in result["workers"]])

    chart(folder / "scaling_workers.png", "worker processes, streaming", "seconds per epoch", workers, log=False)

    def memory(axes: Axes) -> None:
        for (loader, points), style in zip(result["memory"].items(), (MEASURED, OTHER), strict=True):
            axes.plot([p["data_mb"] for p in points], [p["peak_mb"] for p in points], label=f"dlrun, {loader}", **style)
        points = result["memory"]["resident"]
        base = points[0]["peak_mb"] - points[0]["data_mb"]
        label = "smallest run and each image once"
        axes.plot([p["data_mb"] for p in points], [base + p["data_mb"] for p in points], label=label, **BYTES)

    chart(folder / "scaling_memory.png", "decoded images (MB)", "peak resident memory (MB)", memory, log=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few small points, nothing kept: does it run?")
    parser.add_argument("--plot", action="store_true", help="draw from the JSON, measure nothing")
    parser.add_argument("--json", type=Path, default=RESULTS / "scaling.json")
    options = parser.parse_args()
    if options.quick:
        with tempfile.TemporaryDirectory() as folder:
            plot(measure(True, lambda result: None), Path(folder))
        return
    if not options.plot:
        measure(False, lambda result: write(options.json, machine() | result, said=False))
    plot(json.loads(options.json.read_text()), DOCS)


if __name__ == "__main__":
    main()
