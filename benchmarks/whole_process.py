"""Whole processes, from the command to the prompt: dlrun beside lightning-hydra-template's default job.

    DLRUN_DATA=data python benchmarks/whole_process.py --rounds 5 --json benchmarks/results/whole_process.json \\
        --lht ../lightning-hydra-template --lht-python ../lht-venv/bin/python

The job: MNIST, 784-64-128-64-10 with batch norm, Adam, batch 128; training with a validation after each epoch, then the
test. dlrun also draws the curves. The commands take turns, round by round; medians are given, and what the peer takes
divided by what dlrun takes. Without --lht only dlrun is timed.

The peer: a clone of ashleve/lightning-hydra-template, whose data/MNIST/raw holds MNIST's four files, and a Python with
lightning, hydra-colorlog, rootutils and hydra-optuna-sweeper==1.2.0 beside the torch that dlrun has. It is from before
torch 2.6, which refuses to load its checkpoint for the test unless TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1, which is set.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from measuring import machine, write

ROOT = Path(__file__).parents[1]
JOB = [
    "data=mnist",
    "model=mlp",
    "model.widths=[64,128,64]",
    "model.norm=batch",
    "optimizer=adam",
    "data.batch_size=128",
]


@dataclass
class Command:
    """A command that is timed.

    Attributes:
        code: the exit code it must have, or its time is worth nothing.
        peer: the name of the command that does the same with the peer.
    """

    words: Sequence[str]
    folder: Path
    code: int = 0
    peer: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    def seconds(self) -> float:
        began = time.perf_counter()
        done = subprocess.run(
            self.words, cwd=self.folder, env={**os.environ, **self.environment}, capture_output=True, text=True
        )
        passed = time.perf_counter() - began
        if done.returncode != self.code:
            raise SystemExit(f"{' '.join(self.words)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return passed


def commands(folder: Path, lht: Path | None, lht_python: str, epochs: Sequence[int]) -> dict[str, Command]:
    """Everything that is timed, by name."""

    def dlrun(*words: str, code: int = 0, peer: str | None = None) -> Command:
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        own = peer if lht else None
        return Command([sys.executable, "-m", "dlrun", *words], folder, code, own, {"PYTHONPATH": path})

    def template(*words: str) -> Command:
        assert lht is not None
        return Command([lht_python, "src/train.py", *words], lht, environment={"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"})

    found = {}
    for count in epochs:
        name = f"the job, {count} epoch{'s' if count > 1 else ''}"
        found[f"dlrun: {name}"] = dlrun("train", *JOB, f"trainer.epochs={count}", peer=f"template: {name}")
        if lht:
            found[f"template: {name}"] = template(f"trainer.max_epochs={count}")
    helped = "template: --help"
    found["dlrun: --help"] = dlrun("--help", peer=helped)
    found["dlrun: train --help"] = dlrun("train", "--help")
    found["dlrun: a config error"] = dlrun("train", "optimizer.lr=0", code=2)
    if lht:
        found[helped] = template("--help")
    found["dlrun: train"] = dlrun("train")
    found["import torch"] = Command([sys.executable, "-c", "import torch"], folder)
    return found


def ratios_of(times: Mapping[str, list[float]], peers: Mapping[str, str | None]) -> dict[str, float]:
    """The peer's median over dlrun's, by command."""
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {name: medians[peer] / medians[name] for name, peer in peers.items() if peer}


def report(times: Mapping[str, list[float]], ratios: Mapping[str, float]) -> None:
    """Print the table."""
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(f"\n{'':<32}median s     min     max   template / dlrun")
    for name, values in times.items():
        ratio = f"{ratios[name]:10.1f}" if name in ratios else ""
        print(f"{name:<32}{medians[name]:8.2f} {min(values):7.2f} {max(values):7.2f} {ratio}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lht", type=Path, help="a clone of lightning-hydra-template; without it, dlrun alone")
    parser.add_argument("--lht-python", default=sys.executable, help="the Python that has what it needs")
    parser.add_argument("--epochs", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    words = parser.parse_args()
    if words.lht and not (words.lht / "src" / "train.py").is_file():
        parser.error(f"--lht {words.lht}: there is no src/train.py in it")
    lht_python = words.lht_python if os.sep not in words.lht_python else os.path.abspath(words.lht_python)
    with tempfile.TemporaryDirectory() as folder:
        timed = commands(Path(folder), words.lht and words.lht.absolute(), lht_python, words.epochs)
        peers = {name: command.peer for name, command in timed.items()}
        times: dict[str, list[float]] = {name: [] for name in timed}
        for round_ in range(words.rounds + 1):  # the first warms the caches of the disk and is not counted
            for name, command in timed.items():
                if round_ == 0 and name.endswith("0 epochs"):
                    continue
                seconds = command.seconds()
                print(f"{round_ or 'warm-up'}  {name:<32}{seconds:8.2f}", file=sys.stderr, flush=True)
                if round_:
                    times[name].append(seconds)
            if round_ and words.json:  # after each, so that a run that is ended leaves its numbers
                ratios = {name.removeprefix("dlrun: "): ratio for name, ratio in ratios_of(times, peers).items()}
                write(words.json, machine() | {"seconds": times, "template over dlrun": ratios}, said=False)
    report(times, ratios_of(times, peers))


if __name__ == "__main__":
    main()
