"""A folder of 50,000 JPEGs: dlrun beside torchvision's ImageFolder and DataLoader, the first epoch and later ones.

    DLRUN_DATA=data python benchmarks/image_folder.py

The images are CIFAR-10's training set as JPEGs of 32 x 32 pixels. "first" is everything from the name of the folder to
the last batch of the first epoch; of dlrun with an empty cache, so that decoding all images and writing the cache are
in it. "later" is the second epoch of the same process. "first, decoded before" is dlrun's first epoch in a run that
finds the cache there. With `data` batches are only made, with `training` a small convolutional network learns from
each. Both arms give normalised float32 batches of 128 in a new random order each epoch; dlrun normalises by statistics
that it takes from the images in that time, torchvision is told them. Files are in the system's cache for all arms: each
has read them once before.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from measuring import RESULTS, alternate, compared, machine, show, write
from peer_data import cifar_folder
from torch import Tensor, nn

from dlrun import assembly, build
from dlrun.config.compose import compose
from dlrun.engine.loop import fit

BATCH = 128
MODEL = ["model=cnn", "model.widths=[16,32]"]
Batches = Iterator[tuple[Tensor, Tensor]]


def torchvision_epochs(folder: Path, workers: int) -> Callable[[], Batches]:
    """What tutorials write; each call is an epoch."""
    from torchvision import datasets, transforms

    normalise = transforms.Normalize((0.4913, 0.4821, 0.4465), (0.2452, 0.2428, 0.2606))
    data = datasets.ImageFolder(str(folder), transforms.Compose([transforms.ToTensor(), normalise]))
    loader = torch.utils.data.DataLoader(
        data, BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0, drop_last=True
    )
    return lambda: iter(loader)


def words(folder: Path, cache: str) -> list[str]:
    """Of dlrun: all but ten images are trained on."""
    shares = [
        "data.val_fraction=0.0001",
        "data.test_fraction=0.0001",
        f"data.batch_size={BATCH}",
        "data.drop_last=true",
    ]
    return ["data=image_folder", f"data.path={folder}", "data.size=32", f"data.cache={cache}", *shares]


class Seconds:
    """The seconds of named stretches, each arm's call giving those of one."""

    def __init__(self) -> None:
        self.taken: dict[str, list[float]] = {}

    def add(self, **seconds: float) -> None:
        for name, value in seconds.items():
            self.taken.setdefault(name, []).append(value)


def data_by_torchvision(folder: Path, workers: int, seconds: Seconds) -> None:
    began = time.perf_counter()
    epochs = torchvision_epochs(folder, workers)
    for name in ("first", "later"):
        for _ in epochs():
            pass
        seconds.add(**{name: time.perf_counter() - began})
        began = time.perf_counter()


def data_by_dlrun(folder: Path, seconds: Seconds) -> None:
    with tempfile.TemporaryDirectory() as cache:
        for first in ("first", "first, decoded before"):
            config = compose([*words(folder, cache), "trainer.device=cpu"]).config
            began = time.perf_counter()
            a = assembly.assemble(config)
            loader = assembly.build_loader(a, build.data_settings(config), ())
            for epoch, name in enumerate((first, "later")):
                for _ in loader.epoch(epoch):
                    pass
                if first == "first" or epoch == 0:
                    seconds.add(**{name: time.perf_counter() - began})
                began = time.perf_counter()


def training_by_torchvision(folder: Path, workers: int, model: nn.Module, seconds: Seconds) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    began = time.perf_counter()
    epochs = torchvision_epochs(folder, workers)
    for name in ("first", "later"):
        for images, labels in epochs():
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
        seconds.add(**{name: time.perf_counter() - began})
        began = time.perf_counter()


def training_by_dlrun(folder: Path, seconds: Seconds) -> None:
    with tempfile.TemporaryDirectory() as cache:
        for first in ("first", "first, decoded before"):
            config = compose([*words(folder, cache), *MODEL, "trainer.epochs=2", "trainer.precision=fp32"]).config
            began = time.perf_counter()
            training = assembly.prepare_training(assembly.assemble(config), lambda record: None, ())
            ends: list[float] = []
            validate = training.validate
            training.validate = lambda model: (ends.append(time.perf_counter()), validate(model))[1]  # noqa: B023
            fit(training)
            seconds.add(**{first: ends[0] - began})
            if first == "first":
                seconds.add(later=ends[1] - ends[0])


def measure(folder: Path, rounds: int, train: bool) -> dict[str, Any]:
    """Both stretches of every arm, the arms taking turns."""
    taken = {name: Seconds() for name in ("dlrun", "torchvision, 0 workers", "torchvision, 2 workers")}

    def model() -> nn.Module:
        config = compose([*words(folder, cache), *MODEL]).config
        return assembly.assemble(config).model

    arms: dict[str, Callable[[], float]] = {}
    with tempfile.TemporaryDirectory() as cache:
        for name, seconds in taken.items():
            if name == "dlrun":
                run: Callable[[], None] = (
                    (lambda s=seconds: training_by_dlrun(folder, s))  # type: ignore[misc]
                    if train
                    else (lambda s=seconds: data_by_dlrun(folder, s))  # type: ignore[misc]
                )
            else:
                workers = 2 if "2" in name else 0
                run = (
                    (lambda s=seconds, w=workers: training_by_torchvision(folder, w, model(), s))  # type: ignore[misc]
                    if train
                    else (lambda s=seconds, w=workers: data_by_torchvision(folder, w, s))  # type: ignore[misc]
                )
            arms[name] = lambda run=run: (run(), 0.0)[1]  # type: ignore[misc]
        alternate(arms, rounds, warm_up=False)
    result = {}
    for stretch in ("first", "later"):
        times = {name: seconds.taken[stretch] for name, seconds in taken.items()}
        if stretch == "first":
            times["dlrun, decoded before"] = taken["dlrun"].taken["first, decoded before"]
        result[stretch] = compared(times)
        show(f"50,000 JPEGs, {'training' if train else 'data'}, {stretch} epoch", result[stretch])
    return result


def subset(folder: Path, count: int, into: str) -> Path:
    """A folder of links to the first images of each class."""
    for kind in sorted(path for path in folder.iterdir() if path.is_dir()):
        (Path(into) / kind.name).mkdir()
        for file in sorted(kind.iterdir())[:count]:
            (Path(into) / kind.name / file.name).symlink_to(file)
    return Path(into)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round with 2,000 images: does it run?")
    parser.add_argument("--json", type=Path, default=RESULTS / "image_folder.json")
    options = parser.parse_args()
    folder = cifar_folder() / "train"
    with tempfile.TemporaryDirectory() as links:
        if options.quick:
            folder = subset(folder, 200, links)
        rounds = 1 if options.quick else options.rounds
        for file in folder.glob("*/*"):
            file.read_bytes()
        entries = machine() | {"rounds": rounds}
        entries["data"] = measure(folder, rounds, train=False)
        entries["training"] = measure(folder, rounds, train=True)
    if not options.quick:
        write(options.json, entries)


if __name__ == "__main__":
    main()
