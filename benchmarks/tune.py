"""What pruning and a model of the results are worth: three searches of the same space, at equal numbers and equal time.

    python benchmarks/tune.py [--trials 50] [--arms pruned full random] [--out benchmarks/results/tune.json]

`tune=mlp_mnist` with TPE and median pruning; the same without pruning; and random search without pruning for as long as
the first took. Each arm is a study of its own below the working folder: killed, the same command goes on. The numbers
that go by are validation accuracies; the winner of each arm is tested from `--seeds` seeds.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from pathlib import Path

ARMS = {
    "pruned": ["tune.sampler=tpe"],
    "full": ["tune.sampler=tpe", "tune.pruner=none"],
    "random": ["tune.sampler=random", "tune.pruner=none"],
}


def run_arm(name: str, words: list[str], folder: Path, tune: str) -> dict:
    """Search, or go on with it. Returns: what tune.json says, and how the best value rose."""
    command = [sys.executable, "-m", "dlrun", "tune", f"tune={tune}", *words, f"tune.folder={folder / name}"]
    print("$ dlrun", " ".join(command[3:]), flush=True)
    subprocess.run(command, check=True)
    return json.loads((folder / name / "tune.json").read_text())


def rise(folder: Path) -> list[tuple[float, float]]:
    """Seconds since the first trial began and the best value then, whenever it rose."""
    import optuna

    (name,) = optuna.get_all_study_names(f"sqlite:///{folder / 'study.db'}")
    study = optuna.load_study(study_name=name, storage=f"sqlite:///{folder / 'study.db'}")
    trials = [t for t in study.get_trials() if t.state.name == "COMPLETE"]
    began = min(t.datetime_start for t in study.get_trials() if t.datetime_start)
    points: list[tuple[float, float]] = []
    for trial in sorted(trials, key=lambda t: t.datetime_complete):
        if not points or trial.value > points[-1][1]:
            points.append((round((trial.datetime_complete - began).total_seconds(), 1), trial.value))
    return points


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--tune", default="mlp_mnist")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--folder", type=Path, default=Path("outputs/benchmark_tune"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/tune.json"))
    parser.add_argument("words", nargs="*", help="overrides for every arm, such as data.limit=0.2")
    given = parser.parse_args()
    known = json.loads(given.out.read_text()) if given.out.exists() else {}
    result = {"machine": platform.machine(), "when": time.strftime("%Y-%m-%d"), "arms": known.get("arms", {})}
    for name in given.arms:
        words = [*ARMS[name], *given.words, f"tune.seeds={given.seeds}", f"tune.budget.trials={given.trials}"]
        if name == "random":  # as many trials as fit into the time that the pruned search took
            seconds = result["arms"]["pruned"]["seconds"]
            words[-1] = "tune.budget.trials=null"
            words.append(f"tune.budget.time={seconds:.0f}s")
        content = run_arm(name, words, given.folder, given.tune)
        best = content["best"][0]
        result["arms"][name] = {
            "command": content["command"],
            "seconds": content["seconds"],
            "trials": content["trials"],
            "best": best["values"],
            "best_trial": best["number"],
            "params": best["params"],
            "test": content.get("test", {}).get("metrics"),
            "rise": rise(given.folder / name),
        }
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(result, indent=2) + "\n")
    print(f"{'arm':<8} {'trials':>6} {'pruned':>6} {'seconds':>8} {'best val':>9} {'test':>16}")
    for name, arm in result["arms"].items():
        test = (arm["test"] or {}).get("test/accuracy")
        shown = f"{test['mean']:.4f} ± {test['std'] or 0:.4f}" if test else "-"
        value = next(iter(arm["best"].values()))
        counts = f"{arm['trials']['ended']:>6} {arm['trials'].get('pruned', 0):>6}"
        print(f"{name:<8} {counts} {arm['seconds']:>8.0f} {value:>9.4f} {shown:>16}")


if __name__ == "__main__":
    main()
