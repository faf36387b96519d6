"""Kill a run with SIGKILL at random moments, resume it, and compare every bit with the run that was never stopped.

    python benchmarks/kill_and_resume.py --kills 20 --precision fp32 bf16 --json benchmarks/results/kill_and_resume.json

The run has what is easily forgotten in a checkpoint: dropout, augmentation, mixup, averaged weights, clipping,
accumulation with a ragged last micro-batch, a schedule with warm-up, early stopping, best weights.
"""

import argparse
import json
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import torch

RUN = [
    "data=digits",
    "model=cnn",
    "model.dropout=0.2",
    "augment=[translate,mixup]",
    "optimizer=adamw",
    "scheduler=cosine",
    "trainer.ema=0.98",
    "trainer.clip.norm=1",
    "trainer.accumulate=2",
    "data.batch_size=50",
    "trainer.epochs=24",
    "trainer.log_every=7",
    "trainer.eval_every=9",
    "trainer.checkpoint_every=4",
    "trainer.early_stopping.patience=30",
    "seed=5",
]


def dlrun(*words: str) -> subprocess.Popen[bytes]:
    """The command, started."""
    return subprocess.Popen([sys.executable, "-m", "dlrun", *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> None:
    """Wait for a command that must succeed."""
    _, error = process.communicate()
    if process.returncode:
        raise SystemExit(f"dlrun failed with {process.returncode}:\n{error.decode()}")


def weights(folder: Path, name: str) -> dict[str, torch.Tensor]:
    """All weights in a checkpoint, live and averaged."""
    content = torch.load(folder / "checkpoints" / name, weights_only=True)
    if name == "best.pt":
        return dict(content["model"])
    train = content["state"]["train"]
    return {**train["model"], **{f"average.{key}": value for key, value in train["average"]["module"].items()}}


def differences(ours: Path, theirs: Path) -> list[str]:
    """What differs between two finished runs, the clock apart."""
    found = []
    for name in ("last.pt", "best.pt"):
        a, b = weights(ours, name), weights(theirs, name)
        found += [f"{name}:{key}" for key in a if not torch.equal(a[key], b[key])]
    records = []
    for folder in (ours, theirs):
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        records.append([{key: value for key, value in line.items() if key != "time"} for line in lines])
    if records[0] != records[1]:
        found.append("metrics.jsonl")
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in (ours, theirs)]
    found += [
        f"summary:{key}" for key in ("metrics", "best", "steps", "status") if summaries[0][key] != summaries[1][key]
    ]
    return found


def one_kill(folder: Path, overrides: list[str], reference: Path, after: float) -> dict[str, object]:
    """Start the run, kill it `after` seconds of training, resume it, compare."""
    process = dlrun("train", *overrides, f"hydra.run.dir={folder}")
    while not (folder / "metrics.jsonl").exists():
        time.sleep(0.002)
        if process.poll() is not None:
            raise SystemExit("the run ended before it began")
    time.sleep(after)
    process.send_signal(signal.SIGKILL)
    process.wait()
    checkpoints = sorted(path.name for path in (folder / "checkpoints").iterdir())
    records = len((folder / "metrics.jsonl").read_bytes().splitlines())
    if (folder / "summary.json").exists():
        return {"after": after, "killed": False, "differences": differences(folder, reference)}
    finish(dlrun("resume", str(folder)))
    found = differences(folder, reference)
    return {"after": after, "killed": True, "records": records, "checkpoints": checkpoints, "differences": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--json", type=Path)
    words = parser.parse_args()
    draw = random.Random(0)
    result: dict[str, object] = {"date": str(date.today()), "machine": platform.machine(), "torch": torch.__version__}
    base = Path(tempfile.mkdtemp())
    failures = 0
    for precision in words.precision:
        overrides = [*RUN, f"trainer.precision={precision}"]
        reference = base / f"{precision}-reference"
        finish(dlrun("train", *overrides, f"hydra.run.dir={reference}"))
        seconds = json.loads((reference / "summary.json").read_text())["seconds"]
        trials = []
        for number in range(words.kills):
            trial = one_kill(base / f"{precision}-{number}", overrides, reference, draw.uniform(0, seconds))
            trials.append(trial)
            failures += bool(trial["differences"])
            print(precision, number, json.dumps(trial), flush=True)
        exact = sum(not trial["differences"] for trial in trials)
        killed = sum(bool(trial["killed"]) for trial in trials)
        print(
            f"{precision}: {exact} of {len(trials)} identical to the bit, {killed} of them killed in time", flush=True
        )
        result[precision] = {"seconds": seconds, "killed": killed, "identical": exact, "trials": trials}
    shutil.rmtree(base)
    if words.json:
        words.json.parent.mkdir(parents=True, exist_ok=True)
        words.json.write_text(json.dumps(result, indent=1) + "\n")
    raise SystemExit(failures > 0)


if __name__ == "__main__":
    main()
