"""Data sets as published: files below `data.root`, each compared with its published md5 sum before it is believed."""

import hashlib
import os
import shutil
import sys
import tarfile
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from io import BytesIO
from pathlib import Path

from rich.console import Console
from rich.progress import wrap_file

from dlrun.errors import DataError

TIMEOUT_SECONDS = 30  # without an answer from the server


@dataclass(frozen=True)
class Source:
    """Where a data set's files are published and where they lie.

    Attributes:
        name: what the user calls the data, for messages.
        folder: that of the files, below `data.root`; "" for `data.root` itself.
        files: md5 sum by file name.
        url: the folder on the web that holds them.
        archive: name and md5 sum of a tar.gz below `data.root` that holds `folder`, where that is what is published.
    """

    name: str
    folder: str
    files: dict[str, str]
    url: str
    archive: tuple[str, str] | None = None


def load(source: Source, root: str, download: bool) -> dict[str, bytes]:
    """The checked contents of the source's files, by name; fetched first if need be and allowed.

    Raises: DataError if they are absent or damaged, or cannot be fetched; it says which files go where.
    """
    folder = Path(root).expanduser().absolute()
    try:
        return _read(source, folder)
    except DataError as problem:
        if not download:
            raise
        try:
            _download(source, folder)
        except (OSError, HTTPException, tarfile.TarError) as error:
            raise DataError(f"{problem}; the download failed ({error})") from error
    return _read(source, folder)


def _read(source: Source, root: Path) -> dict[str, bytes]:
    try:
        is_folder = root.is_dir()
    except PermissionError:  # of a folder above it
        raise _absent(source, root, "cannot be read (permission denied)") from None
    if not is_folder:
        raise _absent(source, root, "is not a folder" if root.exists() else "does not exist")
    if not os.access(root, os.R_OK | os.X_OK):
        raise _absent(source, root, "cannot be read (permission denied)")
    folder = root / source.folder
    missing = [name for name in source.files if not (folder / name).is_file()]
    if not missing:
        return {name: _checked(folder / name, md5) for name, md5 in source.files.items()}
    if source.archive and (root / source.archive[0]).is_file():
        packed = _checked(root / source.archive[0], source.archive[1])
        with tarfile.open(fileobj=BytesIO(packed)) as archive:
            members = {name: archive.extractfile(f"{source.folder}/{name}") for name in source.files}
            return {name: member.read() for name, member in members.items() if member}
    raise _absent(source, root, f"has no {Path(source.folder) / missing[0]}")


def _checked(path: Path, md5: str) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"data.root: {path} cannot be read ({error.strerror}); make it readable") from error
    found = _md5(data)
    if found != md5:
        raise DataError(
            f"data.root: {path} is damaged or incomplete: its md5 sum is {found}, expected {md5}; delete it and copy "
            "it again, or let data.download=true replace it"
        )
    return data


def _absent(source: Source, root: Path, reason: str) -> DataError:
    if source.archive:
        files = f"{source.archive[0]} into {root} (or its files {', '.join(source.files)} into {root / source.folder})"
    else:
        files = f"{', '.join(source.files)} into {root / source.folder}"
    return DataError(
        f"data={source.name} is not there: data.root={root} {reason}; put {files}, or set data.root (or the "
        "environment variable DLRUN_DATA) to the folder that holds them, or let data.download=true fetch them from "
        f"{source.url}"
    )


def _download(source: Source, root: Path) -> None:
    """Fetch whatever is absent or damaged; an archive is unpacked beside itself, to be read faster.

    Raises: OSError, HTTPException or TarError.
    """
    folder = root if source.archive else root / source.folder
    for name, md5 in [source.archive] if source.archive else source.files.items():
        if (folder / name).is_file() and _md5((folder / name).read_bytes()) == md5:
            continue
        folder.mkdir(parents=True, exist_ok=True)
        _fetch(source.url + name, folder / name)
    if source.archive:
        with tarfile.open(root / source.archive[0]) as archive:
            archive.extractall(root, filter="data")


def _fetch(url: str, path: Path) -> None:
    """Download to a temporary name and rename, so that `path` is never half a file."""
    part = path.with_name(f"{path.name}.part")
    with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response, part.open("wb") as file:
        if sys.stderr.isatty():  # a bar that is disabled leaves an empty line with rich before 15
            size = int(response.headers.get("Content-Length", 0))
            with wrap_file(response, size, description=path.name, console=Console(stderr=True)) as read:
                shutil.copyfileobj(read, file)
        else:
            shutil.copyfileobj(response, file)
    os.replace(part, path)


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
