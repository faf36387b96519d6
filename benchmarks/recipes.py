"""Run recipes of conf/experiment/ with several seeds and note what came out; the heads of the recipes quote it.

    python benchmarks/recipes.py mnist_vit rt_polarity_lstm --seeds 0 1 2 --json benchmarks/results/recipes.json

`--words` adds overrides and gives the entry a name of its own:

    python benchmarks/recipes.py number_words --words model.attention=none --name number_words_without_attention
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

KEPT = ("status", "epochs", "steps", "seconds", "samples_per_second", "parameters", "metrics")


def run(words: list[str], seed: int) -> dict[str, Any]:
    """One run in a process of its own. Returns: what its summary says, and the seconds of the whole process."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "dlrun", "train", *words, f"seed={seed}", f"hydra.run.dir={folder}/run"]
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        wall = time.perf_counter() - began
        summary = json.loads(Path(folder, "run", "summary.json").read_text())
    return {"seed": seed, "process_seconds": round(wall, 1), **{key: summary[key] for key in KEPT}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="+")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--words", nargs="*", default=[])
    parser.add_argument("--name")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    for recipe in options.recipes:
        words = [f"experiment={recipe}", *options.words]
        runs = []
        for seed in options.seeds:
            runs.append(run(words, seed))
            print(recipe, *options.words, f"seed={seed}", runs[-1]["metrics"], f"{runs[-1]['process_seconds']} s")
        if options.json:
            known = json.loads(options.json.read_text()) if options.json.exists() else {}
            known[options.name or recipe] = {
                "command": "dlrun train " + " ".join(words),
                "date": date.today().isoformat(),
                "device": f"{platform.machine()} CPU, {os.cpu_count()} cores",
                "threads": os.environ.get("OMP_NUM_THREADS", "all"),
                "runs": runs,
            }
            options.json.write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main()
