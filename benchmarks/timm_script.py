"""timm's train.py and `dlrun train`, whole processes: ResNet-18 on a folder of JPEGs, from the command to the prompt.

    DLRUN_DATA=data python benchmarks/timm_script.py --script pytorch-image-models/train.py --rounds 3

The job: 10,000 training and 2,000 validation images of CIFAR-10 as JPEGs in folders, timm's own resnet18 at 32 x 32,
batch 128, fp32, AdamW 1e-3, weight decay .01, cosine (dlrun with its default warm-up, so accuracies after few epochs
are not those of equal schedules), no augmentation, a validation after each epoch. Of dlrun twice:
with an empty cache of decoded images, and with the one that an earlier run has left. The commands take turns.

The peer: train.py of github.com/huggingface/pytorch-image-models, which is not in the wheel, and `pip install
'dlrun[timm]'`. `--workers 2` and `--no-prefetcher` are what is fastest on a CPU; it saves a checkpoint every epoch, as
dlrun does.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from measuring import RESULTS, alternate, compared, machine, show, write
from peer_data import CACHE, cifar_folder

PER_CLASS = {"train": 1000, "val": 200}
MEAN, STD = (0.4913, 0.4821, 0.4465), (0.2452, 0.2428, 0.2606)


def folder_of_images() -> Path:
    """{train,val}/CLASS/*.jpg, made once: the first images of each class of the training and the test set."""
    folder = CACHE / "cifar10-jpeg-12000"
    if folder.is_dir():
        return folder
    unfinished = folder.with_name("unfinished")
    for split, count in PER_CLASS.items():
        source = cifar_folder() / {"train": "train", "val": "test"}[split]
        for kind in sorted(source.iterdir()):
            place = unfinished / split / kind.name
            place.mkdir(parents=True)
            for image in sorted(kind.iterdir())[:count]:
                os.link(image, place / image.name)
    return unfinished.rename(folder)


def run(words: Sequence[str], cwd: Path) -> float:
    """Seconds of a process. Raises: SystemExit with what it said, if it fails."""
    began = time.perf_counter()
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(
            f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        )
    return time.perf_counter() - began


def timm(script: Path, images: Path, epochs: int, accuracies: list[float]) -> Callable[[], float]:
    """The peer's script; the accuracy of its last validation is added to `accuracies`."""
    own = [
        *("--data-dir", str(images), "--val-split", "val", "--model", "resnet18", "--num-classes", "10"),
        *("--input-size", "3", "32", "32", "--crop-pct", "1", "--no-aug", "--smoothing", "0"),
        *("--mean", *map(str, MEAN), "--std", *map(str, STD)),
        *("--opt", "adamw", "--lr", "1e-3", "--weight-decay", "0.01", "--sched", "cosine", "--warmup-epochs", "0"),
        *("--sched-on-updates", "--epochs", str(epochs), "--batch-size", "128", "--device", "cpu"),
        *("--workers", "2", "--no-prefetcher", "--seed", "0"),
    ]

    def arm() -> float:
        with tempfile.TemporaryDirectory() as out:
            seconds = run([sys.executable, str(script), *own, "--output", out], script.parent)
            [summary] = Path(out).glob("*/summary.csv")
            accuracies.append(float(list(csv.DictReader(summary.open()))[-1]["eval_top1"]) / 100)
        return seconds

    return arm


def dlrun(images: Path, epochs: int, cache: Path | None, accuracies: list[float]) -> Callable[[], float]:
    """dlrun's command, with an empty cache of decoded images if `cache` is None."""
    own = [
        *("data=image_folder", f"data.path={images}", "data.size=32", "data.batch_size=128", "trainer.device=cpu"),
        *("model=timm", "model.name=resnet18", "optimizer=adamw", "optimizer.lr=1e-3", "optimizer.weight_decay=0.01"),
        *(f"trainer.epochs={epochs}", "trainer.test=false"),
    ]

    def arm() -> float:
        with tempfile.TemporaryDirectory() as out:
            where = [f"data.cache={cache or Path(out) / 'cache'}", f"hydra.run.dir={out}/run"]
            seconds = run([sys.executable, "-m", "dlrun", "train", *own, *where], Path(out))
            records = map(json.loads, (Path(out) / "run" / "metrics.jsonl").read_text().splitlines())
            accuracies.append([r["val/accuracy"] for r in records if "val/accuracy" in r][-1])
        return seconds

    return arm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--script", type=Path, required=True, help="timm's train.py")
    parser.add_argument("--epochs", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=RESULTS / "timm_script.json")
    words = parser.parse_args()
    root = str(Path(__file__).parents[1])
    os.environ["PYTHONPATH"] = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    images, script = folder_of_images(), words.script.absolute()
    with tempfile.TemporaryDirectory() as cache:
        for epochs in words.epochs:
            accuracies: dict[str, list[float]] = {"dlrun": [], "dlrun, decoded before": [], "timm's train.py": []}
            arms = {
                "dlrun": dlrun(images, epochs, None, accuracies["dlrun"]),
                "dlrun, decoded before": dlrun(images, epochs, Path(cache), accuracies["dlrun, decoded before"]),
                "timm's train.py": timm(script, images, epochs, accuracies["timm's train.py"]),
            }
            name = f"ResNet-18 of timm, 10,000 JPEGs, {epochs} epoch{'s' if epochs > 1 else ''}"

            def keep(times: dict[str, list[float]], name: str = name, last: Any = accuracies) -> None:
                write(words.json, machine() | {name: {"arms": compared(times), "accuracy": last}}, said=False)

            times = alternate(arms, words.rounds, after=keep)
            show(f"{name}, {words.rounds} rounds", compared(times))


if __name__ == "__main__":
    main()
