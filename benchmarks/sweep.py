"""A sweep with trouble in it, its time beside two other ways, its death and return, and what a job costs.

    python benchmarks/sweep.py trouble       # 40 jobs: one raises, one kills itself, one takes all memory, one diverges
    python benchmarks/sweep.py time          # 36 jobs: dlrun -m; a new process for each; Hydra's basic launcher
    python benchmarks/sweep.py kill          # the sweep killed with SIGKILL ten times, and run again
    python benchmarks/sweep.py trivial       # 100 jobs of five steps each

The runs go to a temporary folder, the numbers to benchmarks/results/sweep.json. The data are scikit-learn's digits and
two moons, so nothing is needed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measuring import RESULTS, machine, write

PARTS = """
import os, signal
import torch
from torch import nn


class Troubled(nn.Module):
    def __init__(self, spec, trouble):
        super().__init__()
        self.net = nn.Sequential(
            nn.Flatten(), nn.Linear(spec.num_features, 128), nn.ReLU(), nn.Linear(128, spec.num_outputs)
        )
        self.trouble, self.steps = trouble, 0

    def forward(self, x):
        self.steps += self.training
        if self.steps == 20:
            if self.trouble == "raise":
                raise ValueError("as it was told")
            if self.trouble == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.trouble == "allocate":
                self.kept = [torch.ones(1 << 25) for _ in range(10000)]
        return self.net(x) * (float("nan") if self.trouble == "diverge" and self.steps > 20 else 1)


def troubled(spec, *, trouble: str = "none") -> nn.Module:
    return Troubled(spec, trouble)
"""
JOB = ["data=digits", "trainer.epochs=10", "trainer.early_stopping=null"]
TROUBLE = ["raise", "kill", "allocate", "diverge"]


def dlrun(folder: Path, *words: str, check: bool = False) -> float:
    """Run a command there. Returns: its seconds."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "dlrun", "train", *words]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if check and done.returncode:
        raise SystemExit(done.stdout)
    return time.perf_counter() - began


def table(folder: Path) -> dict[str, Any]:
    """What a sweep came to: status, steps, best and test metrics by job's folder."""
    found = {path.parent.name: json.loads(path.read_text()) for path in folder.glob("*/summary.json")}
    return {
        name: {key: summary.get(key) for key in ("status", "steps", "best", "metrics")}
        for name, summary in sorted(found.items())
    }


def mine(folder: Path) -> Path:
    """A folder with a model that gets into trouble."""
    (folder / "mine" / "model").mkdir(parents=True)
    (folder / "mine" / "parts.py").write_text(PARTS)
    (folder / "mine" / "model" / "troubled.yaml").write_text("_target_: parts.troubled\ntrouble: none\n")
    return folder


def trouble(folder: Path) -> dict[str, Any]:
    kinds = ["none"] * 36
    for place, kind in zip((5, 14, 23, 32), TROUBLE, strict=True):
        kinds.insert(place, kind)
    words = ["-m", "--config-dir", "mine", *JOB, "model=troubled", "seed=range(40)", "hydra.launcher.memory=3GB"]
    zipped = [f"model.trouble={','.join(kinds)}", "hydra.sweeper.zip=[seed,model.trouble]", "hydra.sweep.dir=sweep"]
    seconds = dlrun(mine(folder), *words, *zipped)
    jobs = json.loads((folder / "sweep" / "sweep.json").read_text())["jobs"]
    ends = {kind: [job for job in jobs if f"trouble={kind}" in job["label"]] for kind in ["none", *TROUBLE]}
    result: dict[str, Any] = {"seconds": round(seconds, 1), "completed": len(ends["none"])}
    assert all(job["status"] == "completed" for job in ends["none"]), ends["none"]
    for kind in TROUBLE:
        error = str(ends[kind][0].get("error", "")).partition(" (traceback")[0]
        result[kind] = {"status": ends[kind][0]["status"], "error": error or None}
        print(kind, result[kind])
    print(f"{result['completed']} completed in {seconds:.1f} s")
    return result


def timed(folder: Path) -> dict[str, Any]:
    seeds = range(36)
    ways = {
        "dlrun -m": lambda i: dlrun(folder, "-m", *JOB, "seed=range(36)", f"hydra.sweep.dir=own{i}", check=True),
        "a new process for each": lambda i: sum(
            dlrun(folder, *JOB, f"seed={seed}", f"hydra.run.dir=solo{i}/{seed}", check=True) for seed in seeds
        ),
        "hydra/launcher=basic": lambda i: dlrun(
            folder, "-m", *JOB, "seed=range(36)", "hydra/launcher=basic", f"hydra.sweep.dir=basic{i}", check=True
        ),
    }
    seconds = {name: [round(way(0), 2)] for name, way in ways.items()}
    ratios = {name: round(values[0] / seconds["dlrun -m"][0], 2) for name, values in seconds.items()}
    for name, values in seconds.items():
        print(f"{name:<24} {values[0]:7.1f} s {ratios[name]:6.2f} x")
    return {"jobs": len(seeds), "seconds": seconds, "ratio": ratios}


def killed(folder: Path, times: int = 10) -> dict[str, Any]:
    words = ["-m", *JOB, "trainer.epochs=60", "optimizer=sgd,adamw", "seed=range(10)", "hydra.launcher.stack=false"]
    dlrun(folder, *words, "hydra.sweep.dir=undisturbed", check=True)
    chance, repeated, hits = random.Random(0), 0, []
    for _ in range(times):
        known = finished(folder / "killed")
        command = [sys.executable, "-m", "dlrun", "train", *words, "hydra.sweep.dir=killed"]
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, start_new_session=True)
        began = time.time()
        while process.poll() is None and not _goes_on(folder / "killed", since=began):
            time.sleep(0.05)
        try:
            process.wait(timeout=chance.uniform(0.0, 4.0))
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            hits.append(len(finished(folder / "killed")))
        time.sleep(0.3)
        now = finished(folder / "killed")
        repeated += sum(now[name] != mark for name, mark in known.items())
    known = finished(folder / "killed")
    dlrun(folder, *words, "hydra.sweep.dir=killed", check=True)
    now = finished(folder / "killed")
    repeated += sum(now[name] != mark for name, mark in known.items())
    equal = table(folder / "killed") == table(folder / "undisturbed")
    print(f"killed {len(hits)} times, with {hits} of 20 jobs done; repeated {repeated}; tables equal: {equal}")
    return {"killed": len(hits), "done at each": hits, "jobs": 20, "repeated": repeated, "tables_equal": equal}


def _goes_on(folder: Path, since: float) -> bool:
    """Whether a job has recorded something since."""
    return any(path.stat().st_mtime > since for path in folder.glob("*/metrics.jsonl"))


def finished(folder: Path) -> dict[str, float]:
    """When each finished job's summary was written, by its folder: it changes if the job is done again."""
    done = {}
    for path in folder.glob("*/summary.json"):
        if json.loads(path.read_text())["status"] in ("completed", "early_stopped", "diverged"):
            done[path.parent.name] = path.stat().st_mtime
    return done


def trivial(folder: Path) -> dict[str, Any]:
    job = ["data=moons", "trainer.max_steps=5"]
    one = [dlrun(folder, *job, f"hydra.run.dir=one{i}", check=True) for i in range(3)]
    few = [dlrun(folder, "-m", *job, "seed=0,1", f"hydra.sweep.dir=few{i}", check=True) for i in range(3)]
    many = [dlrun(folder, "-m", *job, "seed=range(100)", f"hydra.sweep.dir=many{i}", check=True) for i in range(3)]
    per_job = (sorted(many)[1] - sorted(few)[1]) / 98 * 1000
    print(f"one process {sorted(one)[1]:.2f} s; 2 jobs {sorted(few)[1]:.2f} s; 100 jobs {sorted(many)[1]:.2f} s")
    print(f"one more trivial job: {per_job:.0f} ms; of a new process it takes {sorted(one)[1] * 1000:.0f}")
    return {"one": one, "two jobs": few, "hundred jobs": many, "ms per job": round(per_job, 1)}


PARTS_OF = {"trouble": trouble, "time": timed, "kill": killed, "trivial": trivial}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS_OF, []], help="default: all")
    parser.add_argument("--json", type=Path, default=RESULTS / "sweep.json")
    options = parser.parse_args()
    for name in options.parts or PARTS_OF:
        with tempfile.TemporaryDirectory() as folder:
            write(options.json, {**machine(), name: PARTS_OF[name](Path(folder))})


if __name__ == "__main__":
    main()
