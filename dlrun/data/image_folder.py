"""Folders of images: decoded once, in parallel, and kept as uint8 in a memory-mapped cache."""

import contextlib
import hashlib
import io
import math
import os
import secrets
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from torch.utils.data import DataLoader, Dataset, get_worker_info

from dlrun.contracts import DataSpec, Kind, PositiveInt, Splits, Task
from dlrun.data.archive import is_archive, unpacked
from dlrun.data.jpeg import Decoder, decode_exact, load_decoder
from dlrun.errors import DataError, did_you_mean
from dlrun.examples import MappedImages
from dlrun.inputs import IMAGE_SUFFIXES, decode_image

SPLITS = ("train", "val", "test")
CHUNK = 64  # images a worker decodes at a time; fewer than two chunks are decoded without workers
READ = 1 << 16  # bytes of a file at a time; fewer mean its end
ABANDONED_SECONDS = 3600  # an unfinished cache file nobody has written to for so long belongs to a killed run


def image_folder(
    *,
    path: str,
    size: PositiveInt,
    channels: Literal["rgb", "grey"],
    cache: str | None,
    name: str | None = None,
) -> Splits:
    """Images in one folder per class, or in train/ and, if you like, val/ and test/ with such folders in each.

    Args:
        path: the folder, or a tar archive of it, which is unpacked beside the cache; hidden files and other files than
            images are ignored, deeper folders are searched.
        size: height and width of the inputs; images are resized to it by their shorter side and cropped to the centre.
        channels: "rgb" for inputs (3, size, size), "grey" for (1, size, size).
        cache: where decoded images are kept, size * size * channels bytes each; may be deleted at any time.
            None: `$XDG_CACHE_HOME/dlrun/images`, or `~/.cache/dlrun/images`.
        name: what messages call the data.

    Returns: uint8 inputs, memory-mapped (private: writing to them does not change the cache), classes by alphabet.
    Raises: DataError if there are no folders, classes or images as described, or an image is damaged (it is named).
    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    folder = Path(cache).expanduser() if cache else home / "dlrun" / "images"
    root = Path(path).expanduser()
    try:
        found = _find(unpacked(root, folder / "unpacked") if is_archive(root) else root)
    except OSError as error:
        raise DataError(f"data.path: {error.filename} cannot be read ({error.strerror}); make it readable") from error
    classes = sorted(found["train"])
    shape = (3 if channels == "rgb" else 1, size, size)
    splits: dict[str, MappedImages] = {}
    for split, files in found.items():
        targets = torch.tensor([label for label, key in enumerate(classes) for _ in files[key]])
        decoded = load([file for key in classes for file in files[key]], shape, folder)
        splits[split] = MappedImages(str(decoded), shape, torch.arange(len(targets)), targets)
    spec = DataSpec(name or "image_folder", Task.CLASSIFICATION, Kind.IMAGE, shape, len(classes), tuple(classes))
    return Splits(splits["train"], spec, val=splits.get("val"), test=splits.get("test"))


def _find(root: Path) -> dict[str, dict[str, list[str]]]:
    """The sorted image files by split and class."""
    if not root.is_dir():
        reason = "is neither a folder nor a tar archive" if root.exists() else "does not exist"
        raise DataError(f"data.path={root} {reason}; give the folder that holds one folder of images per class")
    folders = _folders(root)
    train = root / "train"
    # A class may well be called "train"; then its folder holds images, not folders alone.
    if not (train in folders and _folders(train) and not any(map(_is_image, os.listdir(train)))):
        return {"train": _classes(root)}
    for folder in folders:
        if folder.name not in SPLITS:
            hint = did_you_mean(folder.name, SPLITS)
            raise DataError(
                f"data.path={root} has train/ and {folder.name}/, but splits are train, val and test.{hint}"
            )
    found = {folder.name: _classes(folder) for folder in folders}
    for name, classes in found.items():
        differing = sorted(set(classes) ^ set(found["train"]))
        if differing:
            where = ("train", name) if differing[0] in found["train"] else (name, "train")
            raise DataError(
                f"data.path={root}: class '{differing[0]}' is in {where[0]}/ but not in {where[1]}/; every split must "
                "have the same class folders"
            )
    return found


def _classes(root: Path) -> dict[str, list[str]]:
    """Sorted image files by class.

    Raises: DataError if there are fewer than two classes, or one has no images.
    """
    classes = {folder.name: _images(folder) for folder in _folders(root)}
    if len(classes) < 2:
        only = f"one class folder only, '{next(iter(classes))}'" if classes else "no class folders"
        raise DataError(f"data.path: {root} has {only}; two or more are needed, each with the images of its class")
    for name, files in classes.items():
        if not files:
            suffixes = ", ".join(IMAGE_SUFFIXES)
            raise DataError(f"data.path: class folder {root / name} has no images ({suffixes}); add some or remove it")
    return classes


def _folders(root: Path) -> list[Path]:
    return sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


def _images(root: Path) -> list[str]:
    walk = os.walk(root, followlinks=True)
    return sorted(os.path.join(folder, name) for folder, _, names in walk for name in names if _is_image(name))


def load(files: Sequence[str], shape: tuple[int, int, int], folder: Path) -> Path:
    """The file of the decoded images, uint8 (N, *shape), in the cache in `folder`, which is filled first if need be.

    A cache file is named by the content of the images in their order: copied, moved or touched images are not decoded
    again, and a changed one always is. To spare reading all of them at every start (60,000 small files: 0.8 s;
    ImageNet: many minutes), a note beside it maps what the file system says of them to that name: path, size, time of
    modification, and time of change, which moves even when a tool sets the former back.

    Raises: DataError if an image cannot be decoded or the cache cannot be written.
    """
    nbytes = len(files) * math.prod(shape)
    suffix = f"-{'x'.join(map(str, shape))}.u8"
    note = folder / f"{_stat_key(files)}.key"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        known = key = note.read_text() if note.is_file() else None
        if key is None and any(_is_whole(old, nbytes) for old in folder.glob(f"*{suffix}")):
            key = _content_key(files)  # one of these may be it
        if key is None or not _is_whole(folder / f"{key}{suffix}", nbytes):
            key = _decode(files, shape, folder, suffix)
        if key != known:
            _write_atomically(note, key)
    except OSError as error:
        raise DataError(
            f"the decoded images ({nbytes / 1e6:.0f} MB) cannot be kept in {folder} ({error.strerror or error}); "
            "choose another folder with data.cache, or make room"
        ) from error
    return folder / f"{key}{suffix}"


def _is_whole(decoded: Path, nbytes: int) -> bool:
    return decoded.is_file() and decoded.stat().st_size == nbytes


def _stat_key(files: Sequence[str]) -> str:
    digest, here = hashlib.sha256(), os.getcwd()
    for file in files:
        try:
            stat = os.stat(file)
        except OSError as error:
            raise _unreadable(file, error) from error
        known = f"{os.path.join(here, file)}\0{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}\n"
        digest.update(known.encode())
    return digest.hexdigest()[:32]


def _content_key(files: Sequence[str]) -> str:
    return _joined(hashlib.sha256(_read(file)).digest() for file in files)


def _joined(digests: Iterable[bytes]) -> str:
    """The name of images whose contents have these hashes, one after the other."""
    digest = hashlib.sha256()
    for part in digests:
        digest.update(part)
    return digest.hexdigest()[:32]


def _read(file: str) -> bytes:
    try:
        opened = os.open(file, os.O_RDONLY | getattr(os, "O_BINARY", 0))  # half the time of `open` for small files
        try:
            parts = [os.read(opened, READ)]
            while len(parts[-1]) == READ:
                parts.append(os.read(opened, READ))
        finally:
            os.close(opened)
    except OSError as error:
        raise _unreadable(file, error) from error
    return b"".join(parts)


def _unreadable(file: str, error: OSError) -> DataError:
    return DataError(f"the image {file} cannot be read ({error.strerror}); repair or remove it")


def _write_atomically(path: Path, text: str) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(text)
    part.replace(path)


def _decode(files: Sequence[str], shape: tuple[int, int, int], folder: Path, suffix: str) -> str:
    """Decode all files into one in `folder`, which appears when it is complete. Returns: its name without `suffix`."""
    for old in folder.glob("*.part"):
        with contextlib.suppress(FileNotFoundError):  # another run may have finished it just now
            if time.time() - old.stat().st_mtime > ABANDONED_SECONDS:
                old.unlink()
    part = folder / f"{secrets.token_hex(8)}{suffix}.part"
    try:
        with part.open("wb") as file:
            file.truncate(len(files) * math.prod(shape))
        chunks = _Chunks(files, shape, part)
        # Processes, not threads: small images take less than a tenth of a millisecond, much of it in Python under its
        # lock; photographs scale alike in both. A generator of its own, since the default one belongs to training.
        workers = min(len(chunks), _cores()) if len(chunks) > 1 else 0
        loader = DataLoader(
            chunks, batch_size=None, num_workers=workers, worker_init_fn=_load_decoder, generator=torch.Generator()
        )
        decoded: Iterable[tuple[str, bytes]] = loader
        if sys.stderr.isatty():  # a bar that is disabled leaves an empty line with rich before 15
            decoded = track(loader, "decoding images", len(chunks), console=Console(stderr=True))
        digests = []
        for problem, found in decoded:
            if problem:
                raise DataError(problem)
            digests.append(found)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        key = _joined(digests)
        part.replace(folder / f"{key}{suffix}")
        return key
    finally:
        part.unlink(missing_ok=True)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Chunks(Dataset[tuple[str, bytes]]):
    """Item i decodes the i-th chunk of files into its place in `part`: "" or what went wrong, and the files' hashes.

    Attributes:
        decoder: of JPEGs that have the wanted size already, in workers; gives up at the first that has not.
    """

    def __init__(self, files: Sequence[str], shape: tuple[int, int, int], part: Path) -> None:
        self.files, self.shape, self.part = files, shape, part
        self.decoder: Decoder | None = None

    def __len__(self) -> int:
        return math.ceil(len(self.files) / CHUNK)

    def __getitem__(self, chunk: int) -> tuple[str, bytes]:
        start = chunk * CHUNK
        files = self.files[start : start + CHUNK]
        images = np.empty((len(files), *self.shape), np.uint8)
        digests = []
        try:
            for image, file in zip(images, files, strict=True):
                content = _read(file)
                digests.append(hashlib.sha256(content).digest())
                image[:] = self._image(content, file)
            with self.part.open("r+b") as opened:
                opened.seek(start * math.prod(self.shape))
                opened.write(images.data)
        except DataError as error:
            return str(error), b""
        except OSError as error:
            reason = f"the decoded images cannot be written to {self.part} ({error.strerror})"
            return f"{reason}; choose another data.cache", b""
        return "", b"".join(digests)

    def _image(self, content: bytes, file: str) -> NDArray[np.uint8]:
        if self.decoder is not None:
            image = decode_exact(self.decoder, content, *self.shape)
            if image is not None:
                return image
            self.decoder = None
        return decode_image(io.BytesIO(content), *self.shape, name=file)


def _load_decoder(worker: int) -> None:
    chunks = cast(_Chunks, cast(Any, get_worker_info()).dataset)
    chunks.decoder = load_decoder()
