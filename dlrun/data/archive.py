"""Archives of files (tar, also compressed), unpacked once into a cache."""

import os
import shutil
import tarfile
import tempfile
import zlib
from pathlib import Path

from dlrun.errors import DataError

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


def is_archive(path: Path) -> bool:
    """Whether `path` is a file that `unpacked` can read, by its name."""
    return path.name.lower().endswith(SUFFIXES) and path.is_file()


def unpacked(archive: Path, cache: Path) -> Path:
    """The folder with the content of an archive, below `cache`; unpacked there unless it is already.

    The folder is named by the archive's name, size and time of modification, and appears whole or not at all. Of an
    archive with a single folder in it, that folder.

    Raises: DataError if the archive is damaged, would write outside its folder, or there is no room.
    """
    known = archive.stat()
    folder = cache / f"{archive.name.partition('.')[0]}-{known.st_size:x}-{known.st_mtime_ns:x}"
    if not folder.is_dir():
        try:
            cache.mkdir(parents=True, exist_ok=True)
            _unpack(archive, folder)
        except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise DataError(
                f"data.path={archive} cannot be unpacked into {cache} ({reason}); copy the archive again, or name "
                "another folder by data.cache"
            ) from error
    inside = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else folder


def _unpack(archive: Path, folder: Path) -> None:
    """Into a folder beside, then renamed: several processes may do it at once, and any may be killed."""
    beside = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=folder.parent))
    try:
        with tarfile.open(archive) as file:
            file.extractall(beside, filter="data")
        try:
            os.rename(beside, folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster
                raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
