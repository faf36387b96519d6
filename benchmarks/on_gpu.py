"""What only a GPU can show, one thing after another within a limit of time: the tests marked gpu, then the races.

    DLRUN_DATA=data python benchmarks/on_gpu.py --out measured --limit 780 \\
        --airbench airbench94_muon.py --nanogpt nanoGPT

Each part has the seconds it may take; one that is cut off, or fails, leaves what it has written, and the next begins.
Its lines are in OUT/<part>.txt, its results in OUT/<part>.json. Parts whose peer is not given are left out. What is to
stay goes from there to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
LEAST = 20.0  # seconds in which a part is worth beginning


@dataclass(frozen=True)
class Part:
    """A command and the seconds it may take."""

    seconds: float
    words: list[str]


def parts(out: Path, airbench: Path | None, nanogpt: Path | None) -> dict[str, Part]:
    """All parts by name, those first whose results are the most wanted."""

    def script(name: str, *words: str, json: str = "--json") -> list[str]:
        return [str(ROOT / "benchmarks" / f"{name}.py"), *words, json, str(out / f"{name}.json")]

    dlrun = ["-m", "dlrun"]
    tests = [str(path) for path in sorted((ROOT / "tests").glob("test_gpu*.py"))]
    found = {"tests": Part(150, ["-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *tests])}
    if nanogpt:
        compiled = ["--words", "trainer.compile=true", "trainer.graph=auto"]
        race = script("nanogpt_gpu", "--race", "--nanogpt", str(nanogpt), "--limit", "210", *compiled)
        found["nanogpt_gpu"] = Part(220, race)
    if airbench:
        race = script("cifar10_94", "--airbench", str(airbench), "--n", "20", "--seconds", "150")
        found["cifar10_94"] = Part(170, [*race, "--peer-compile", "reduce-overhead"])
    return found | {
        "notebook": Part(150, [*dlrun, "reproduce", "run", "notebook", "long=true"]),
        "profile": Part(40, [*dlrun, "profile", "experiment=cifar10_resnet", f"out={out / 'profile'}"]),
        "bench": Part(40, [*dlrun, "bench"]),
        "stacked": Part(60, script("stacked", "--rounds", "1", "--members", "16", "64", json="--result")),
    }


def run(name: str, part: Part, out: Path, seconds: float) -> str:
    """Run a part. Returns: how it ended, in a line."""
    began = time.perf_counter()
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    with (out / f"{name}.txt").open("w") as lines:
        process = subprocess.Popen(
            [sys.executable, *part.words], cwd=out, stdout=lines, stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}, start_new_session=True,
        )  # fmt: skip
        try:
            ended = f"exit code {process.wait(min(part.seconds, seconds))}"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
            ended = "cut off"
    return f"{name}: {ended} after {time.perf_counter() - began:.0f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="a folder for all that is written")
    parser.add_argument("--limit", type=float, default=780, help="seconds for everything")
    parser.add_argument("--airbench", type=Path, help="airbench94_muon.py")
    parser.add_argument("--nanogpt", type=Path, help="a clone of nanoGPT")
    parser.add_argument("--only", nargs="+", help="names of parts")
    words = parser.parse_args()
    out = words.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    os.environ["DLRUN_DATA"] = str(Path(os.environ.get("DLRUN_DATA", "data")).absolute())
    every = parts(out, words.airbench and words.airbench.absolute(), words.nanogpt and words.nanogpt.absolute())
    for name, part in every.items():
        left = words.limit - (time.perf_counter() - began)
        if words.only and name not in words.only:
            continue
        if left < LEAST:
            print(f"{name}: left out, no time", flush=True)
            continue
        print(run(name, part, out, left), flush=True)
        print("".join(f"    {line}\n" for line in (out / f"{name}.txt").read_text().splitlines()[-4:]), flush=True)


if __name__ == "__main__":
    main()
