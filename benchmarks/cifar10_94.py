"""CIFAR-10 in seconds: experiment=cifar10_94 beside the record it follows, on the same GPU and the same images.

    DLRUN_DATA=data python benchmarks/cifar10_94.py --airbench airbench94_muon.py --n 20 --seconds 150 --json FILE

The arms take turns, seed by seed, after a run of each that is not counted, in which they compile. As the record counts
it, time is that of the initialisation by data, of all training steps and of the test with test-time augmentation, on
the device's clock; validation, reading data and compiling are not in it. Of dlrun, steps during which something else
was done (a graph captured, a validation) count as much as the median step of their kind; how many those were is
written down, and what all steps together took with them.

The record's code (https://github.com/KellerJordan/cifar10-airbench, airbench94_muon.py) is read from a file and run as
it is, on the images of `data=` that stand where it looks for its own. Every result is written to the JSON file at once.
That both compute the same, benchmarks/cifar10_94_check.py shows without a GPU.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import chdir, redirect_stdout
from dataclasses import dataclass
from datetime import date
from io import StringIO
from pathlib import Path
from typing import Any

import torch

from dlrun import assembly, build, initialisation
from dlrun.config.compose import compose
from dlrun.contracts import Splits
from dlrun.engine.callbacks import Callback
from dlrun.engine.loop import fit

STALLED = 2.0  # times the median step of its kind: something else was done in it


@dataclass
class Result:
    """One run: seconds as the record counts them, test accuracy with and without test-time augmentation."""

    seconds: float
    accuracy: float
    details: dict[str, Any]


class Clock(Callback):
    """When each step ended, on the device's clock where it has one."""

    def __init__(self) -> None:
        self.marks: list[Any] = []

    def on_fit_start(self, training: Any) -> None:
        self.marks = [now()]

    def on_step_end(self, training: Any) -> None:
        self.marks.append(now())

    def durations(self) -> list[float]:
        """Seconds between the marks."""
        synchronise()
        return [seconds_between(*pair) for pair in zip(self.marks[:-1], self.marks[1:], strict=True)]


def now() -> Any:
    """A moment: an event in the current stream, or a number."""
    if not torch.cuda.is_available():
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def seconds_between(start: Any, end: Any) -> float:
    return float(end - start if isinstance(start, float) else start.elapsed_time(end) / 1000)


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def timed(function: Callable[..., Any], *arguments: Any, **named: Any) -> tuple[float, Any]:
    """Seconds that a call takes until the device has done it, and what it returns."""
    synchronise()
    began = time.perf_counter()
    result = function(*arguments, **named)
    synchronise()
    return time.perf_counter() - began, result


def without_stalls(durations: Sequence[float], ends: Sequence[int]) -> tuple[float, int]:
    """The sum of the steps' seconds, those that were held up counting as the median of their kind, and their number.

    Args:
        ends: steps at which another kind begins.
    """
    total, stalls = 0.0, 0
    for start, end in zip([0, *ends], [*ends, len(durations)], strict=True):
        part = durations[start:end]
        if not part:
            continue
        median = statistics.median(part)
        held_up = [seconds > STALLED * median for seconds in part]
        total += sum(median if late else seconds for seconds, late in zip(part, held_up, strict=True))
        stalls += sum(held_up)
    return total, stalls


class Dlrun:
    """The arm of dlrun: its own parts and loop, without the run directory."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = list(words)
        self.start_seconds = 0.0
        self._time_initialisation()

    def _time_initialisation(self) -> None:
        plain = initialisation.whitening

        @functools.wraps(plain)
        def whitening(*arguments: Any, **named: Any) -> None:
            self.start_seconds, _ = timed(plain, *arguments, **named)

        initialisation.whitening = whitening

    def __call__(self, seed: int) -> Result:
        config = compose([*self.words, f"seed={seed}"]).config
        clock = Clock()
        a = assembly.assemble(config)
        training = assembly.prepare_training(a, lambda record: None, [clock])
        evaluate, plainly = a.evaluator("test"), a.evaluator("test", views=False)
        fit(training)
        durations = clock.durations()
        freezing = training.train_step.freezing
        ends = [] if freezing is None else sorted(step for step in freezing._changes if step < len(durations))
        steps, stalls = without_stalls(durations, ends)
        test, metrics = timed(evaluate, training.evaluated_model)
        plain = plainly(training.evaluated_model)
        details = {
            "initialisation_seconds": round(self.start_seconds, 4),
            "steps_seconds": round(steps, 4),
            "test_seconds": round(test, 4),
            "stalled_steps": stalls,
            "seconds_with_stalls": round(self.start_seconds + sum(durations) + test, 4),
            "median_step_ms": [
                round(1000 * statistics.median(durations[start:end]), 3)
                for start, end in zip([0, *ends], [*ends, len(durations)], strict=True)
            ],
            "accuracy_without_tta": plain["accuracy"],
        }
        return Result(self.start_seconds + steps + test, metrics["accuracy"], details)


class Airbench:
    """The arm of the record, from its file; nothing in it is changed but where it prints."""

    def __init__(self, path: Path, splits: Splits, compile_mode: str) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="airbench-")
        keep_images(splits, Path(self.folder.name) / "cifar10")
        self.last: dict[str, Any] = {}
        spec = importlib.util.spec_from_file_location("airbench94", path)
        assert spec is not None
        assert spec.loader is not None
        self.module = importlib.util.module_from_spec(spec)
        arguments, sys.argv = sys.argv, [str(path)]  # it reads its own text
        try:
            spec.loader.exec_module(self.module)
        finally:
            sys.argv = arguments
        self.module.print_training_details = self._note
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = self.module.CifarNet().to(device, memory_format=torch.channels_last)
        if compile_mode != "none":
            self.model.compile(mode=compile_mode)
        self.warm = False

    def _note(self, variables: dict[str, Any], is_final_entry: bool) -> None:
        self.last = {key: variables.get(key) for key in ("val_acc", "tta_val_acc", "time_seconds")}

    def __call__(self, seed: int) -> Result:
        torch.manual_seed(seed)
        with chdir(self.folder.name), redirect_stdout(StringIO()):
            accuracy = self.module.main(seed if self.warm else "warmup", self.model)
        self.warm = True
        return Result(float(self.last["time_seconds"]), float(accuracy), {"accuracy_without_tta": self.last["val_acc"]})


def keep_images(splits: Splits, folder: Path) -> None:
    """All training images, in random order, and the test images as the record keeps its own: (N, 32, 32, 3), labels."""
    folder.mkdir(parents=True)
    train, val, test = (part.take(torch.arange(len(part))) for part in (splits.train, splits.val, splits.test) if part)
    # It takes the patches for its first layer from the first 5,000 images, which are of all classes in the original.
    order = torch.randperm(len(train) + len(val), generator=torch.Generator().manual_seed(0))
    sets = {
        "train": (torch.cat([train.inputs, val.inputs])[order], torch.cat([train.targets, val.targets])[order]),
        "test": (test.inputs, test.targets),
    }
    for name, (images, labels) in sets.items():
        content = {
            "images": images.movedim(1, 3).contiguous(),
            "labels": labels,
            "classes": list(splits.spec.class_names),
        }
        torch.save(content, folder / f"{name}.pt")


def summary(results: Sequence[Result]) -> dict[str, Any]:
    """Median, mean, spread of time and accuracy."""
    seconds, accuracies = [r.seconds for r in results], [r.accuracy for r in results]
    several = len(results) > 1
    plain = [r.details["accuracy_without_tta"] for r in results]
    return {
        "n": len(results),
        "seconds_median": round(statistics.median(seconds), 4),
        "seconds_mean": round(statistics.mean(seconds), 4),
        "seconds_min_max": [round(min(seconds), 4), round(max(seconds), 4)],
        "accuracy_mean": round(statistics.mean(accuracies), 5),
        "accuracy_std": round(statistics.stdev(accuracies), 5) if several else None,
        "accuracy_standard_error": round(statistics.stdev(accuracies) / len(results) ** 0.5, 5) if several else None,
        "accuracy_without_tta_mean": round(statistics.mean(plain), 5),
    }


def write(path: Path | None, results: dict[str, list[Result]], arguments: argparse.Namespace) -> None:
    if path is None:
        return
    report = {
        "benchmark": "cifar10_94",
        "date": date.today().isoformat(),
        "machine": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor(),
        "torch": torch.__version__,
        "words": arguments.words,
        "peer_compile": arguments.peer_compile,
        "arms": {
            name: {**summary(runs), "runs": [{"seconds": r.seconds, "accuracy": r.accuracy, **r.details} for r in runs]}
            for name, runs in results.items()
            if runs
        },
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(report, indent=1) + "\n")
    part.replace(path)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--airbench", type=Path, help="its airbench94_muon.py; without it dlrun runs alone")
    parser.add_argument("--peer-compile", default="max-autotune", help="its torch.compile mode, or none")
    parser.add_argument("--peer-alone", action="store_true", help="leave dlrun out")
    parser.add_argument("--n", type=int, default=20, help="counted runs of each")
    parser.add_argument("--seconds", type=float, default=600.0, help="begin no run after so long")
    parser.add_argument("--json", type=Path, help="where results go, after each run")
    parser.add_argument("--cudnn-benchmark", action="store_true", help="let cuDNN choose by measuring for dlrun too")
    parser.add_argument("words", nargs="*", help="of dlrun, beside experiment=cifar10_94")
    return parser.parse_args()


def main() -> None:
    """Take turns until all runs are done or time is up."""
    began, arguments = time.perf_counter(), parse()
    words = ["experiment=cifar10_94", *arguments.words]
    splits = build.build_data(compose(words).config)
    build.build_data = lambda config: splits  # read once for all runs
    say = functools.partial(print, flush=True)
    say(f"images ready after {time.perf_counter() - began:.1f} s")
    arms: dict[str, Callable[[int], Result]] = {} if arguments.peer_alone else {"dlrun": Dlrun(words)}
    if arguments.airbench is not None:
        arms["airbench94_muon"] = Airbench(arguments.airbench.resolve(), splits, arguments.peer_compile)
    results: dict[str, list[Result]] = {name: [] for name in arms}
    for seed in range(-1, arguments.n):  # the first is not counted
        for name, arm in arms.items():
            spent = time.perf_counter() - began
            if spent > arguments.seconds:
                break
            torch.backends.cudnn.benchmark = arguments.cudnn_benchmark if name == "dlrun" else True
            wall, result = timed(arm, seed if seed >= 0 else arguments.n)
            label = f"seed {seed}" if seed >= 0 else "warm-up"
            numbers = f"{result.seconds:7.3f} s  {result.accuracy:.4f}  wall {wall:.1f} s"
            say(f"{name:16} {label:8} {numbers}  {result.details}")
            if seed >= 0:
                results[name].append(result)
                write(arguments.json, results, arguments)
    for name, runs in results.items():
        if runs:
            say(name, json.dumps(summary(runs)))
    both = [results[name] for name in ("dlrun", "airbench94_muon") if results.get(name)]
    if len(both) == 2:
        ratio = summary(both[0])["seconds_median"] / summary(both[1])["seconds_median"]
        say(f"dlrun / airbench94_muon: {ratio:.3f} of the time")


if __name__ == "__main__":
    os.environ.setdefault("TORCHINDUCTOR_FX_GRAPH_CACHE", "1")
    main()
