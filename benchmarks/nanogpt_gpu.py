"""Characters of Shakespeare to nanoGPT's published validation loss, 1.4697: nanoGPT beside dlrun on one GPU.

    DLRUN_DATA=data python benchmarks/nanogpt_gpu.py --race --nanogpt nanoGPT --limit 400 --json race.json \
        --words trainer.compile=true trainer.graph=auto
    DLRUN_DATA=data python benchmarks/nanogpt_gpu.py --tune --limit 120 --json tune.json

`--nanogpt` is a folder with train.py, model.py, configurator.py and config/train_shakespeare_char.py of
github.com/karpathy/nanoGPT, unchanged; its train.bin, val.bin and meta.pkl are made here when they are absent.

--race lets dlrun's recipes (to their ends) and nanoGPT (its recipe, compiled; stopped when its own estimate is at the
target) take turns. `experiment=shakespeare_nanogpt` is nanoGPT's own recipe, `experiment=shakespeare_gpu` another one.
Of each arm it notes the seconds until the target was first seen:

- process_seconds: from the start of the process, with imports, compilation or capture;
- loop_seconds: without them: from the tenth step on, and ten median steps for those before it;
- step_seconds: the median step times the number of steps, so without evaluations too.

All models are then evaluated alike (nanogpt_alike.py). Results are printed and written as they come; an arm that fails
is noted. --tune runs the candidates below, for `shakespeare_gpu`, as processes side by side and prints their validation
losses as they come.
"""

import argparse
import itertools
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from nanogpt_alike import MARK, prepare

TARGET = 1.4697
WARM = 10  # steps after which everything is compiled
RECIPES = ["shakespeare_nanogpt", "shakespeare_gpu"]
TUNED = "shakespeare_gpu"
Result = dict[str, Any]

CANDIDATES: dict[str, list[str]] = {
    "recipe": [],
    "lr 3e-3": ["optimizer.lr=3e-3"],
    "lr 1e-2": ["optimizer.lr=1e-2"],
    "800 steps": ["trainer.max_steps=800"],
    "600 steps, lr 8e-3": ["trainer.max_steps=600", "optimizer.lr=8e-3"],
    "dropout 0.3": ["model.dropout=0.3"],
    "relu2, rms": ["model.activation=relu2", "model.norm=rms"],
    "4 blocks": ["model.depth=4"],
}

SMALL = {  # both arms in miniature, to try this script on a CPU
    "nanogpt": "--device=cpu --n_layer=2 --n_head=2 --n_embd=32 --block_size=64 --batch_size=8 --eval_iters=5 "
    "--eval_interval=20 --max_iters=60 --lr_decay_iters=60 --warmup_iters=5",
    "dlrun": "trainer.device=cpu model.depth=2 model.heads=2 model.width=32 data.context=64 data.batch_size=8 "
    "trainer.max_steps=60 trainer.eval_every=20 trainer.log_every=5 scheduler.warmup=5",
}


class Lines:
    """The lines a process prints, each with the seconds since its start.

    Args:
        seen: called with each line; returns whether the process has done enough and is to be ended.
    """

    def __init__(
        self, words: list[str], cwd: Path | None, limit: float, seen: Callable[[str], bool] = lambda _: False
    ) -> None:
        self.lines: list[tuple[float, str]] = []
        self.error = ""
        began = time.perf_counter()
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            words, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        timer = threading.Timer(max(limit, 1), process.kill)
        timer.start()
        assert process.stdout is not None
        ended = False
        for line in process.stdout:
            self.lines.append((time.perf_counter() - began, line.rstrip()))
            if not ended and seen(line):
                ended = True
                process.terminate()
        process.wait()
        timer.cancel()
        self.seconds = time.perf_counter() - began
        if process.returncode and not ended:
            last = "\n".join(line for _, line in self.lines[-12:])
            self.error = f"exit code {process.returncode} after {self.seconds:.0f} s: {last}"


def nanogpt(folder: Path, out: Path, options: argparse.Namespace, limit: float, seed: int, compiled: bool) -> Result:
    """nanoGPT's own script with its own configuration for this text."""
    words = [sys.executable, "train.py", "config/train_shakespeare_char.py", f"--out_dir={out}"]
    words += [f"--compile={compiled}"] + (SMALL["nanogpt"].split() if options.small else [])
    words += options.nanogpt_words.split()
    reached = False

    def seen(line: str) -> bool:
        nonlocal reached
        done = reached and line.startswith("iter ")  # the checkpoint is written between the two lines
        reached = reached or (loss_in(line) or 9.0) <= options.target
        return done

    def loss_in(line: str) -> float | None:
        match = re.match(r"step (\d+): .*val loss ([\d.]+)", line)
        return float(match[2]) if match and int(match[1]) else None

    source = (folder / "train.py").read_text()
    seeded = folder / f".train_{seed}.py"  # the script has no option for its seed
    seeded.write_text(source.replace("manual_seed(1337 +", f"manual_seed({1337 + seed} +"))
    words[1] = seeded.name
    try:
        ran = Lines(words, folder, limit, seen)
    finally:
        seeded.unlink()
    marks = [(at, int(m[1])) for at, line in ran.lines if (m := re.match(r"iter (\d+):", line))]
    curve = [
        (at, int(m[1]), float(m[2]))
        for at, line in ran.lines
        if (m := re.match(r"step (\d+):.*val loss ([\d.]+)", line))
    ]
    # Its own times of single iterations are of those that wait for the GPU, and so for the nine before.
    evaluated = [step for _, step, _ in curve]  # before the iteration of that number
    typical = per_step([(a, b) for a, b in itertools.pairwise(marks) if not any(a[1] < e <= b[1] for e in evaluated)])
    return {
        "arm": "nanogpt",
        "compiled": compiled,
        "seed": seed,
        **timed(curve, marks, typical, options.target),
        **({"error": ran.error} if ran.error else {}),
    }


def dlrun(recipe: str, words: list[str], run: Path, options: argparse.Namespace, limit: float) -> Result:
    """dlrun's command with a recipe."""
    command = [sys.executable, "-m", "dlrun", "train", f"experiment={recipe}"]
    command += SMALL["dlrun"].split() if options.small else []
    command += [f"trainer.log_every={5 if options.small else WARM}", *words, f"hydra.run.dir={run}"]
    ran = Lines(command, None, limit)
    records = records_of(run)
    validations = [r for r in records if "val/loss" in r]
    # A validation's line; lines about how it goes show no training loss.
    said = [at for at, line in ran.lines if re.match(r"epoch .*step.*train/loss.*val/loss", line)]
    curve = [(at, r["step"], r["val/loss"]) for at, r in zip(said, validations, strict=False)]
    logged = [(r["time"], r["step"]) for r in records if "train/step_loss" in r]
    evaluated = [r["step"] for r in validations]  # after the record of that step
    typical = per_step([(a, b) for a, b in itertools.pairwise(logged) if not any(a[1] <= e < b[1] for e in evaluated)])
    start = max((at - r["time"] for at, r in zip(said, validations, strict=False)), default=0.0)
    return {
        "arm": recipe,
        "words": words,
        **timed(curve, [(start + at, step) for at, step in logged], typical, options.target),
        "whole_process_seconds": round(ran.seconds, 2),
        **({"error": ran.error} if ran.error else {}),
    }


def per_step(spans: list[tuple[tuple[float, int], tuple[float, int]]]) -> list[float]:
    """Seconds of a step in each of the spans between two marks (seconds, step), once all is compiled."""
    return [(b[0] - a[0]) / (b[1] - a[1]) for a, b in spans if a[1] >= WARM]


def timed(
    curve: list[tuple[float, int, float]], steps: list[tuple[float, int]], typical: list[float], target: float
) -> Result:
    """When the target was reached, by each of the three clocks.

    Args:
        curve: of each validation: seconds since the start of the process, step, loss.
        steps: seconds since the start of the process, and which step was then done.
        typical: seconds of single steps.
    """
    result: Result = {"curve": [(step, round(loss, 4)) for _, step, loss in curve]}
    result["best"] = min((loss for _, step, loss in curve if step), default=None)
    if typical:
        result["step_ms"] = round(1000 * statistics.median(typical), 3)
    hit = next(((at, step, loss) for at, step, loss in curve if step and loss <= target), None)
    warm = next(((at, step) for at, step in steps if step >= WARM), None)
    if hit is None:
        return result | {"reached": False}
    result |= {"reached": True, "steps": hit[1], "loss": hit[2], "process_seconds": round(hit[0], 2)}
    if warm and typical:
        each = statistics.median(typical)
        result["loop_seconds"] = round(hit[0] - warm[0] + warm[1] * each, 2)
        result["step_seconds"] = round(hit[1] * each, 2)
    return result


def records_of(run: Path) -> list[Result]:
    path = run / "metrics.jsonl"
    if not path.exists():
        return []
    whole = path.read_text().rpartition("\n")[0]  # a line may be half written
    return [json.loads(line) for line in whole.splitlines()]


def race(options: argparse.Namespace, report: Result, end: float) -> None:
    prepare(options.nanogpt)
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.rounds):
            out = Path(folder, f"nanogpt{seed}")
            runs = {recipe: Path(folder, str(seed), recipe) for recipe in options.recipes}
            for recipe, run in runs.items():
                result = dlrun(recipe, [*options.words, f"seed={seed}"], run, options, end - time.monotonic())
                note(report, options, result)
            for compiled in (False,) if options.no_compile or options.small else (True, False):
                left = end - time.monotonic()
                result = nanogpt(options.nanogpt, out, options, left, seed, compiled)
                note(report, options, result)
                if result["curve"]:
                    break  # else it could not be compiled here
            words = [sys.executable, str(Path(__file__).with_name("nanogpt_alike.py"))]
            words += ["--nanogpt", str(options.nanogpt), "--checkpoint", str(out / "ckpt.pt")]
            said = Lines([*words, "--run", *map(str, runs.values())], None, max(end - time.monotonic(), 60))
            found = [line.removeprefix(MARK) for _, line in said.lines if line.startswith(MARK)]
            evaluated = json.loads(found[0]) if found else {"error": said.error}
            note(report, options, {"arm": "evaluated alike", "seed": seed, **evaluated})
    for recipe in options.recipes:
        ours, theirs = (
            [r for r in report["results"] if r["arm"] == arm and r.get("reached")] for arm in (recipe, "nanogpt")
        )
        if ours and theirs:
            ratios = {
                clock: round(median_of(theirs, clock) / median_of(ours, clock), 2)
                for clock in ("process_seconds", "loop_seconds", "step_seconds")
            }
            note(report, options, {"arm": f"nanogpt over {recipe}", **ratios})


def median_of(results: list[Result], key: str) -> float:
    values = [r[key] for r in results if key in r]
    return statistics.median(values) if values else float("nan")


def tune(options: argparse.Namespace, report: Result, end: float) -> None:
    """All candidates side by side; their losses are noted when they end, shown as they come."""
    names = options.candidates or list(CANDIDATES)
    small = SMALL["dlrun"].split() if options.small else []
    with tempfile.TemporaryDirectory() as folder:
        runs = {name: Path(folder, str(i)) for i, name in enumerate(names)}
        logs = {name: Path(folder, f"{i}.txt") for i, name in enumerate(names)}
        processes = {}
        for name in names:
            words = [*CANDIDATES.get(name, name.split()), *small, *options.words, f"hydra.run.dir={runs[name]}"]
            command = [sys.executable, "-m", "dlrun", "train", f"experiment={TUNED}", *words]
            with logs[name].open("w") as log:
                processes[name] = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        shown = dict.fromkeys(names, 0)
        running = set(names)
        while running:
            time.sleep(0.5)
            late = time.monotonic() > end
            for name in sorted(running):
                curve = [(r["step"], round(r["val/loss"], 4)) for r in records_of(runs[name]) if "val/loss" in r]
                for step, loss in curve[shown[name] :]:
                    print(f"{name:<24} step {step:>5}  val/loss {loss:.4f}", flush=True)
                shown[name] = len(curve)
                if late and processes[name].poll() is None:
                    processes[name].kill()
                    processes[name].wait()
                if (code := processes[name].poll()) is not None:
                    running.discard(name)
                    result: Result = {"arm": name, "words": CANDIDATES.get(name, name.split()), "curve": curve}
                    if code:
                        result["error"] = "ended before its limit of steps" if late else logs[name].read_text()[-800:]
                    note(report, options, result)
    print("\nby their last loss")
    for result in sorted(report["results"], key=lambda r: r["curve"][-1][1] if r["curve"] else 9.0):
        print(f"  {result['arm']:<24} {result['curve'][-1] if result['curve'] else result.get('error')}")


def note(report: Result, options: argparse.Namespace, result: Result) -> None:
    """Print a result and write all there are."""
    report["results"].append(result)
    print(json.dumps(result), flush=True)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=1) + "\n")


def machine() -> Result:
    import torch

    return {
        "date": date.today().isoformat(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.machine()} CPU",
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--tune", action="store_true")
    what.add_argument("--race", action="store_true")
    parser.add_argument("--nanogpt", type=Path, default=Path("nanoGPT"))
    parser.add_argument("--nanogpt-words", default="", help="in one string, such as '--eval_interval=125'")
    parser.add_argument("--no-compile", action="store_true", help="nanoGPT without torch.compile")
    parser.add_argument("--candidates", nargs="+", help="names of candidates, or overrides in one string each")
    parser.add_argument("--recipes", nargs="+", default=RECIPES, help="experiments of dlrun that race")
    parser.add_argument("--words", nargs="*", default=[], help="overrides for dlrun, in all runs")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--target", type=float, default=TARGET)
    parser.add_argument("--limit", type=float, default=300, help="seconds for everything")
    parser.add_argument("--small", action="store_true", help="both in miniature on a CPU, to try this script")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.nanogpt = options.nanogpt.absolute()
    end = time.monotonic() + options.limit
    report: Result = {**machine(), "command": " ".join(sys.argv), "target": options.target, "results": []}
    (race if options.race else tune)(options, report, end)


if __name__ == "__main__":
    main()
