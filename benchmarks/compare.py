"""How long `dlrun compare` takes over 2,000 runs, as a whole process: python benchmarks/compare.py

One real run is trained and its directory multiplied, with other widths, dropout, learning rates, seeds and scores.
"first" has no index beside the runs, "again" has one, "after one more" has one older than the summary of one run.
"""

import argparse
import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measuring import RESULTS, machine, write

from dlrun.runs.index import NAME

ROOT = Path(__file__).parents[1]
TRAIN = ["train", "data=digits", "model=mlp", "trainer.epochs=3", "trainer.device=cpu"]
FILES = ("config.yaml", "provenance.json", "summary.json", "metrics.jsonl", "train.log")
WIDTHS, DROPOUTS, RATES, SEEDS = (32, 64, 128, 256, 512), (0.0, 0.1, 0.2, 0.5), 10, 10  # 2,000 in all


def dlrun(*words: str, cwd: Path) -> tuple[float, float]:
    """Seconds that a command took, on the wall and of CPU time; the latter hardly depends on what else runs."""
    began, before = time.perf_counter(), _cpu()
    done = subprocess.run(
        [sys.executable, "-m", "dlrun", *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    passed = time.perf_counter() - began
    if done.returncode != 0:
        raise SystemExit(f"dlrun {' '.join(words)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return passed, _cpu() - before


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def multiply(template: Path, runs: Path) -> int:
    """Write the directories. Returns: how many there are."""
    config, summary = (template / "config.yaml").read_text(), json.loads((template / "summary.json").read_text())
    draw, count = random.Random(0), 0
    for width in WIDTHS:
        for dropout in DROPOUTS:
            for rate in range(RATES):
                for seed in range(SEEDS):
                    run = runs / f"{count:04}_digits-mlp-adamw"
                    shutil.copytree(template / ".hydra", run / ".hydra")
                    for name in FILES:
                        shutil.copy(template / name, run / name)
                    own = re.sub(r"^seed: \d+", f"seed: {seed}", config, flags=re.MULTILINE)
                    own = re.sub(r"^  lr: .*", f"  lr: {1e-4 * 2**rate}", own, flags=re.MULTILINE)
                    own = re.sub(r"^  dropout: .*", f"  dropout: {dropout}", own, flags=re.MULTILINE)
                    own = re.sub(r"^  - 256$", f"  - {width}", own, flags=re.MULTILINE)
                    (run / "config.yaml").write_text(own)
                    summary["best"]["metrics"]["val/accuracy"] = draw.gauss(0.9 + 0.01 * rate - dropout / 10, 0.01)
                    summary["metrics"]["test/accuracy"] = draw.gauss(0.9 + 0.01 * rate - dropout / 10, 0.01)
                    (run / "summary.json").write_text(json.dumps(summary, indent=2))
                    count += 1
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, default=RESULTS / "compare.json")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        dlrun(*TRAIN, "hydra.run.dir=template", cwd=here)
        runs = here / "outputs" / "runs"
        count = multiply(here / "template", runs)
        commands = {
            "compare --where optimizer.lr<0.01 --by test/accuracy": [
                "compare",
                "--where",
                "lr<0.01",
                "--by",
                "test/accuracy",
            ],
            "compare --versus 1": ["compare", "--versus", "1"],
            "compare --format csv": ["compare", "--format", "csv"],
        }
        times: dict[str, list[tuple[float, float]]] = {"first": [], "again": [], "after one more": []}
        dlrun("--version", cwd=here)
        for _ in range(words.rounds):
            (runs / NAME).unlink(missing_ok=True)
            times["first"].append(dlrun("compare", cwd=here))
            times["again"].append(dlrun("compare", cwd=here))
            os.utime(next(runs.iterdir()) / "summary.json")
            times["after one more"].append(dlrun("compare", cwd=here))
            for name, line in commands.items():
                times.setdefault(name, []).append(dlrun(*line, cwd=here))
        size, load = (runs / NAME).stat().st_size, os.getloadavg()[0]
    for name, values in times.items():
        wall, cpu = (sorted(one) for one in zip(*values, strict=True))
        print(f"{name:<54} {wall[len(wall) // 2]:.2f} s, CPU {cpu[len(cpu) // 2]:.2f} s")
    wall_and_cpu = {
        name: {"wall": [round(wall, 3) for wall, _ in values], "cpu": [round(cpu, 3) for _, cpu in values]}
        for name, values in times.items()
    }
    write(
        words.json,
        {**machine(), "load_average": round(load, 1), "runs": count, "index_bytes": size, "seconds": wall_and_cpu},
    )


if __name__ == "__main__":
    main()
