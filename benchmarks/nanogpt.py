"""Seconds to the same loss on Shakespeare: `dlrun train experiment=tinyshakespeare` beside nanoGPT's train.py.

    git clone https://github.com/karpathy/nanoGPT nanoGPT
    DLRUN_DATA=data python benchmarks/nanogpt.py --nanogpt nanoGPT --rounds 2

Both are whole processes, started by their users' commands, that take turns: nanoGPT as its README has it for a CPU (4
layers, 128 wide, context 64, batch 12, 2000 steps, an evaluation every 250), unchanged, and dlrun's recipe of the same
size with as many steps and evaluations. Both train on the first 90 % of the text and are judged on the same windows of
64 characters, every other one of the rest, the recipe's validation data: dlrun by its own validation loss, nanoGPT by
the loss of the checkpoint that it writes after each evaluation, computed here afterwards. nanoGPT's own estimate, from
20 random batches and so cheaper than dlrun's, is noted too.

Seconds count from the start of the process. The target is the loss nanoGPT ends with; dlrun's time is that of its first
evaluation at or below it. "without evaluation" leaves out what either had spent evaluating by then.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import pickle
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import RESULTS, machine, write
from peer_data import source
from torch.nn import functional as F

from dlrun import build
from dlrun.config.compose import compose

README_LOSS = 1.886  # what nanoGPT reaches in these 2000 steps, by its own estimate
STEP = re.compile(r"step (\d+): train loss [\d.]+, val loss ([\d.]+)")
ITERATION = re.compile(r"iter (\d+): loss")
RECIPE = ["experiment=tinyshakespeare"]

Points = list[dict[str, float]]  # of each evaluation: step, seconds, without_evaluation, loss


def prepare(nanogpt: Path) -> None:
    """What data/shakespeare_char/prepare.py writes, without its download."""
    folder = nanogpt / "data" / "shakespeare_char"
    if (folder / "meta.pkl").exists():
        return
    text = source("tinyshakespeare.txt").read_text()
    characters = sorted(set(text))
    numbers = {character: i for i, character in enumerate(characters)}
    cut = int(len(text) * 0.9)
    for name, part in (("train", text[:cut]), ("val", text[cut:])):
        np.array([numbers[character] for character in part], np.uint16).tofile(folder / f"{name}.bin")
    names = {"vocab_size": len(characters), "itos": dict(enumerate(characters)), "stoi": numbers}
    (folder / "meta.pkl").write_bytes(pickle.dumps(names))


def run_nanogpt(nanogpt: Path, steps: int, every: int, device: str, folder: Path) -> tuple[float, Points]:
    """One run of its train.py. Returns: seconds, evaluations; checkpoints go to `folder`."""
    settings = {
        "device": device,
        "compile": False,
        "eval_interval": every,
        "eval_iters": 20,
        "log_interval": 1,
        "always_save_checkpoint": True,
        "block_size": 64,
        "batch_size": 12,
        "n_layer": 4,
        "n_head": 4,
        "n_embd": 128,
        "max_iters": steps,
        "lr_decay_iters": steps,
        "dropout": 0.0,
        "out_dir": str(folder / "out"),
    }
    command = [sys.executable, "-u", "train.py", "config/train_shakespeare_char.py"]
    command += [f"--{name}={value}" for name, value in settings.items()]
    began = before = time.perf_counter()
    process = subprocess.Popen(command, cwd=nanogpt, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    points: Points = []
    evaluating = 0.0
    waiting: int | None = None  # the step whose checkpoint is to be kept
    assert process.stdout is not None
    for line in process.stdout:
        now = time.perf_counter()
        if found := STEP.match(line):
            evaluating += now - before
            step, estimate = int(found[1]), float(found[2])
            points.append({"step": step, "seconds": now - began, "own_estimate": estimate})
            points[-1]["without_evaluation"] = points[-1]["seconds"] - evaluating
            waiting = step if step else None
        elif waiting is not None and (found := ITERATION.match(line)) and int(found[1]) >= waiting:
            shutil.copy(folder / "out" / "ckpt.pt", folder / f"{waiting}.pt")
            waiting = None
        before = now
    if process.wait():
        raise SystemExit(f"{' '.join(command)} failed; run it in {nanogpt} to see why")
    return time.perf_counter() - began, [point for point in points if point["step"]]


def judge(nanogpt: Path, checkpoint: Path) -> float:
    """The loss of a checkpoint of nanoGPT on dlrun's validation windows, in nats per character."""
    splits = build.build_data(compose(RECIPE).config)
    assert splits.val is not None
    assert splits.spec.vocabulary is not None
    spec = importlib.util.spec_from_file_location("nanogpt_model", nanogpt / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    known = pickle.loads((nanogpt / "data" / "shakespeare_char" / "meta.pkl").read_bytes())["stoi"]
    renumbered = torch.tensor([known[character] for character in splits.spec.vocabulary.tokens])
    saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
    model = module.GPT(module.GPTConfig(**saved["model_args"])).eval()
    model.load_state_dict(saved["model"])
    total = count = 0.0
    for index in torch.arange(len(splits.val)).split(256):
        batch = splits.val.take(index)
        tokens, targets = renumbered[batch.inputs], renumbered[batch.targets]
        with torch.inference_mode():
            logits, _ = model(tokens, targets)  # with targets it gives logits at all positions
        total += F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum").item()
        count += targets.numel()
    return total / count


def run_dlrun(steps: int, every: int, device: str, folder: Path) -> tuple[float, Points]:
    """One run of the recipe. Returns: seconds of the process, and its evaluations."""
    run = folder / "run"
    words = [*RECIPE, f"trainer.max_steps={steps}", f"trainer.eval_every={every}"]
    words += [f"trainer.device={device}", f"hydra.run.dir={run}"]
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "dlrun", "train", *words], stdout=subprocess.DEVNULL)
    points: Points = []
    read = 0
    while process.poll() is None:
        time.sleep(0.05)
        if not (run / "metrics.jsonl").exists():
            continue
        lines = (run / "metrics.jsonl").read_text().splitlines()
        now = time.perf_counter()
        for line in lines[read:]:
            record = json.loads(line)
            if "val/loss" in record:
                points.append({"step": record["step"], "seconds": now - began, "loss": record["val/loss"]})
        read = len(lines)
    total = time.perf_counter() - began
    if process.returncode:
        raise SystemExit(f"dlrun train {' '.join(words)} failed")
    summary = json.loads((run / "summary.json").read_text())
    training = summary["steps"] * 12 / summary["samples_per_second"]
    evaluation = (summary["seconds"] - training) / len(points)
    for i, point in enumerate(points, start=1):
        point["without_evaluation"] = point["seconds"] - i * evaluation
    return total, points


def first_below(points: Points, loss: float) -> dict[str, float] | None:
    return next((point for point in points if point["loss"] <= loss), None)


def one_round(nanogpt: Path, steps: int, every: int, device: str, dlrun_first: bool) -> dict[str, Any]:
    """Both arms once, and how much longer nanoGPT took."""
    with tempfile.TemporaryDirectory() as kept:
        folder = Path(kept)
        if dlrun_first:
            ours = run_dlrun(steps, every, device, folder)
            theirs = run_nanogpt(nanogpt, steps, every, device, folder)
        else:
            theirs = run_nanogpt(nanogpt, steps, every, device, folder)
            ours = run_dlrun(steps, every, device, folder)
        for point in theirs[1]:
            point["loss"] = judge(nanogpt, folder / f"{int(point['step'])}.pt")
    result: dict[str, Any] = {
        "nanogpt": {"total_seconds": theirs[0], "evaluations": theirs[1]},
        "dlrun": {"total_seconds": ours[0], "evaluations": ours[1]},
        "total ratio": theirs[0] / ours[0],
    }
    for name, target in (("nanoGPT's last loss", theirs[1][-1]["loss"]), (str(README_LOSS), README_LOSS)):
        there, here = first_below(theirs[1], target), first_below(ours[1], target)
        result[f"to {name}"] = {"loss": target, "nanogpt": there, "dlrun": here}
        if there and here:
            for key in ("seconds", "without_evaluation"):
                result[f"to {name}"][f"{key} ratio"] = there[key] / here[key]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", type=Path, required=True, help="a checkout of karpathy/nanoGPT")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--quick", action="store_true", help="one round of 120 steps: does it run?")
    parser.add_argument("--json", type=Path, default=RESULTS / "nanogpt_cpu.json")
    options = parser.parse_args()
    nanogpt = options.nanogpt.absolute()
    prepare(nanogpt)
    os.environ["PYTHONWARNINGS"] = "ignore"
    steps, every, rounds = (120, 40, 1) if options.quick else (2000, 250, options.rounds)
    entries = machine() | {"steps": steps, "rounds": []}
    for turn in range(rounds):
        found = one_round(nanogpt, steps, every, options.device, dlrun_first=turn % 2 == 1)
        entries["rounds"].append(found)
        for name in ("nanogpt", "dlrun"):
            last = found[name]["evaluations"][-1]
            print(f"{name:<8} {found[name]['total_seconds']:7.1f} s in all, loss {last['loss']:.4f}", flush=True)
        reached = found["to nanoGPT's last loss"]
        if reached["dlrun"]:
            print(
                f"to {reached['loss']:.4f}: nanoGPT {reached['nanogpt']['seconds']:.1f} s, dlrun "
                f"{reached['dlrun']['seconds']:.1f} s, ratio {reached['seconds ratio']:.2f}; without evaluation "
                f"{reached['without_evaluation ratio']:.2f}",
                flush=True,
            )
    reached = [found["to nanoGPT's last loss"] for found in entries["rounds"]]
    for key in ("seconds ratio", "without_evaluation ratio"):
        ratios = [one[key] for one in reached if key in one]
        entries[key] = statistics.median(ratios) if ratios else None
    if not options.quick:
        write(options.json, entries)


if __name__ == "__main__":
    main()
