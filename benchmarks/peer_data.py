"""Data as the peers want them, made once from `DLRUN_DATA` in a cache of the benchmarks' own."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dlrun-benchmarks"


def source(name: str) -> Path:
    """A file or folder of `DLRUN_DATA`."""
    return Path(os.environ.get("DLRUN_DATA", "data")) / name


def mnist_root() -> Path:
    """What torchvision.datasets.MNIST takes as root."""
    raw = CACHE / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for packed in (source("MNIST") / "raw").glob("*.gz"):
        if not (raw / packed.name).exists():
            (raw / packed.name).write_bytes(packed.read_bytes())
    from torchvision import datasets

    datasets.MNIST(str(CACHE), train=True, download=True)  # only unpacks what is there
    return CACHE


def cifar_folder() -> Path:
    """The folder of {train,test}/CLASS/*.jpg: 50,000 and 10,000 JPEGs of 32 x 32 pixels."""
    folder = CACHE / "cifar10-jpeg"
    if not folder.is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tarfile.open(source("cifar10-jpeg.tar.xz")) as archive:
            archive.extractall(CACHE / "unpacking", filter="data")
        (CACHE / "unpacking" / "cifar10-jpeg").rename(folder)
        (CACHE / "unpacking").rmdir()
    return folder
