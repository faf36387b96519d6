"""The optimizer step alone: eager, captured in a CUDA graph, compiled, both; milliseconds and ratios.

    DLRUN_DATA=data python benchmarks/step.py --json benchmarks/results/step.json
    DLRUN_DATA=data python benchmarks/step.py --jobs MLP LSTM CNN ViT "GPT 4" --json benchmarks/results/step_cpu.json

Every arm is dlrun's own step with its data path, optimizer, schedule, metrics and loss meter, without validation. The
arms of a job take turns, round by round; medians are given. Compiling is timed apart.
"""

import argparse
import itertools
import json
import os
import platform
import statistics
import time
import traceback
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch

from dlrun import assembly
from dlrun.config.compose import compose

MLP = ["data=mnist", "model=mlp", "model.widths=[128,128,128]", "model.norm=none", "trainer.clip.norm=1"]
JOBS = {
    "MLP, batch 128": [*MLP, "data.batch_size=128"],
    "MLP, batch 4096": [*MLP, "data.batch_size=4096"],
    "LSTM by rows, batch 128": ["data=mnist", "model=lstm", "data.batch_size=128"],
    "ViT, batch 256": ["data=mnist", "model=vit", "data.batch_size=256"],
    "ResNet-18, batch 512": ["data=cifar10_jpeg", "model=resnet18", "data.batch_size=512", "augment=crop_flip"],
    "CNN, batch 128": ["data=mnist", "model=cnn", "data.batch_size=128"],
    "GPT 4 x 128, 12 x 64 tokens": ["data=tinyshakespeare", "model=gpt", "data.batch_size=12"],
    "GPT 6 x 384, 64 x 256 tokens": [
        *("data=tinyshakespeare", "data.context=256", "data.batch_size=64", "model=gpt", "model.depth=6"),
        *("model.width=384", "model.heads=6", "model.dropout=0.2", "trainer.clip.norm=1"),
    ],
}
ARMS = {"eager": (False, False), "graph": (False, True), "compiled": (True, False), "compiled, graph": (True, True)}


def arm(words: list[str], compiled: bool, graph: bool, warnings: list[str]) -> Callable[[int], float]:
    """Returns: a function that does so many steps and gives the seconds they took."""
    mode = [f"trainer.compile={str(compiled).lower()}", f"trainer.graph={str(graph).lower()}"]
    a = assembly.assemble(compose([*words, *mode, "trainer.epochs=1000"]).config)
    t = assembly.prepare_training(a, lambda record: None, (), warn=warnings.append)
    draws = itertools.chain.from_iterable(t.loader.draws(epoch) for epoch in itertools.count())

    def run(count: int) -> float:
        began = time.perf_counter()
        with t.advance.context():
            for draw in itertools.islice(draws, count):
                t.meter.add(t.advance(draw), draw.size, t.lr)
        if a.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    return run


def measure(words: list[str], arms: list[str], count: int, rounds: int) -> dict[str, object]:
    made, first, warnings = {}, {}, []
    for name in arms:
        try:
            made[name] = arm(words, *ARMS[name], warnings)
            first[name] = made[name](8)
        except Exception:
            traceback.print_exc()
            made.pop(name, None)
    times: dict[str, list[float]] = {name: [] for name in made}
    for _ in range(rounds):
        for name, run in made.items():
            times[name].append(run(count) / count * 1000)
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, median in medians.items():
        ratio = medians["eager"] / median
        print(f"    {name:<16} {median:9.3f} ms   {ratio:5.2f} x   first 8 steps {first[name]:.1f} s", flush=True)
    return {"ms": times, "first_8_steps_s": first, "median_ms": medians, "warnings": warnings, "words": words}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", nargs="+", default=list(JOBS), help="beginnings of their names")
    parser.add_argument("--arms", nargs="+", default=list(ARMS) if torch.cuda.is_available() else ["eager", "compiled"])
    parser.add_argument("--words", nargs="*", default=[])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    on_gpu = torch.cuda.is_available()
    result: dict[str, object] = {
        "date": str(date.today()),
        "device": torch.cuda.get_device_name() if on_gpu else f"{platform.machine()} CPU, {os.cpu_count()} cores",
        "torch": torch.__version__,
    }
    for name, words in JOBS.items():
        if not any(name.startswith(job) for job in options.jobs):
            continue
        print(name, flush=True)
        try:
            result[name] = measure([*words, *options.words], options.arms, options.steps, options.rounds)
        except Exception:
            traceback.print_exc()
        if options.json:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
