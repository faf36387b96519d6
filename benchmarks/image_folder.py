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
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measuring import RESULTS, compared, machine, show, write
from peer_data import cifar_folder
from torch import Tensor, nn

from dlrun import assembly, build
from dlrun.config.compose import compose
from dlrun.engine.loop import fit

BATCH = 128
MODEL = ["model=cnn", "model.channels=[16,32]"]
DECODED = "first, decoded before"
Batches = Iterator[tuple[Tensor, Tensor]]
Stretches = dict[str, float]  # seconds by name


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


def data_by_torchvision(folder: Path, workers: int) -> Stretches:
    began = time.perf_counter()
    epochs = torchvision_epochs(folder, workers)
    taken = {}
    for name in ("first", "later"):
        for _ in epochs():
            pass
        taken[name] = time.perf_counter() - began
        began = time.perf_counter()
    return taken


def data_by_dlrun(folder: Path) -> Stretches:
    taken: Stretches = {}
    with tempfile.TemporaryDirectory() as cache:
        config = compose([*words(folder, cache), "trainer.device=cpu"]).config
        for first in ("first", DECODED):
            began = time.perf_counter()
            a = assembly.assemble(config)
            loader = assembly.build_loader(a, build.data_settings(config), ())
            for epoch, name in enumerate((first, "later")):
                for _ in loader.epoch(epoch):
                    pass
                taken[name] = time.perf_counter() - began
                began = time.perf_counter()
    return taken


def training_by_torchvision(folder: Path, workers: int) -> Stretches:
    with tempfile.TemporaryDirectory() as cache:
        model = assembly.assemble(compose([*words(folder, cache), *MODEL]).config).model  # the same network
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    taken = {}
    began = time.perf_counter()
    epochs = torchvision_epochs(folder, workers)
    for name in ("first", "later"):
        for images, labels in epochs():
            optimizer.zero_grad()
            images = images.contiguous(memory_format=torch.channels_last)
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
        taken[name] = time.perf_counter() - began
        began = time.perf_counter()
    return taken


def training_by_dlrun(folder: Path) -> Stretches:
    taken: Stretches = {}
    with tempfile.TemporaryDirectory() as cache:
        config = compose([*words(folder, cache), *MODEL, "trainer.epochs=2", "trainer.precision=fp32"]).config
        for first in ("first", DECODED):
            began = time.perf_counter()
            training = assembly.prepare_training(assembly.assemble(config), lambda record: None, ())
            ends: list[float] = []
            validate = training.validate

            def noted(
                model: nn.Module,
                ends: list[float] = ends,
                validate: Callable[[nn.Module], dict[str, float]] = validate,
            ) -> dict[str, float]:
                ends.append(time.perf_counter())
                return validate(model)

            training.validate = noted
            fit(training)
            taken |= {first: ends[0] - began, "later": ends[1] - ends[0]}
    return taken


def measure(folder: Path, rounds: int, train: bool, keep: Callable[[dict[str, Any]], None]) -> None:
    """Every stretch of every arm, the arms taking turns; `keep` receives what is known after each round."""
    dlrun, torchvision = (training_by_dlrun, training_by_torchvision) if train else (data_by_dlrun, data_by_torchvision)
    runs: dict[str, Callable[[], Stretches]] = {
        "dlrun": partial(dlrun, folder),
        "torchvision, 0 workers": partial(torchvision, folder, 0),
        "torchvision, 2 workers": partial(torchvision, folder, 2),
    }
    taken: dict[str, dict[str, list[float]]] = {"first": {}, "later": {}}
    for turn in range(rounds):
        for name in list(runs)[:: -1 if turn % 2 else 1]:
            seconds = runs[name]()
            for stretch in taken:
                taken[stretch].setdefault(name, []).append(seconds[stretch])
            if DECODED in seconds:
                taken["first"].setdefault("dlrun, decoded before", []).append(seconds[DECODED])
        keep({stretch: compared(times) for stretch, times in taken.items()})
    for stretch, times in taken.items():
        show(f"50,000 JPEGs, {'training' if train else 'data'}, {stretch} epoch", compared(times))


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
    import torchvision  # noqa: F401  (outside the time of the first arm that needs it)

    folder = cifar_folder() / "train"
    with tempfile.TemporaryDirectory() as links:
        if options.quick:
            folder = subset(folder, 200, links)
        rounds = 1 if options.quick else options.rounds
        for file in folder.glob("*/*"):
            file.read_bytes()
        for kind in ("data", "training"):

            def keep(result: dict[str, Any], kind: str = kind) -> None:
                if not options.quick:
                    write(options.json, machine() | {"rounds": rounds, kind: result}, said=False)

            measure(folder, rounds, kind == "training", keep)


if __name__ == "__main__":
    main()
