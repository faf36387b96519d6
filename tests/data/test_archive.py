"""Archives are unpacked once, whole or not at all."""

import os
import tarfile
from pathlib import Path

import pytest

from dlrun.data.archive import is_archive, unpacked
from dlrun.errors import DataError


def pack(folder: Path, name: str = "photos.tar.xz") -> Path:
    content = folder / "photos" / "cat"
    content.mkdir(parents=True)
    (content / "1.txt").write_text("meow")
    with tarfile.open(folder / name, "w:xz") as file:
        file.add(folder / "photos", "photos")
    return folder / name


def test_an_archive_is_unpacked_once_and_gives_the_folder_it_holds(tmp_path: Path):
    archive, cache = pack(tmp_path), tmp_path / "cache"
    assert is_archive(archive)
    assert not is_archive(tmp_path / "photos")
    folder = unpacked(archive, cache)
    assert folder.name == "photos"
    assert (folder / "cat" / "1.txt").read_text() == "meow"
    (folder / "cat" / "1.txt").write_text("still here")
    assert (unpacked(archive, cache) / "cat" / "1.txt").read_text() == "still here"
    os.utime(archive, ns=(0, 0))  # another archive of the same name
    assert (unpacked(archive, cache) / "cat" / "1.txt").read_text() == "meow"


def test_a_damaged_archive_is_named_and_leaves_nothing_behind(tmp_path: Path):
    archive, cache = pack(tmp_path), tmp_path / "cache"
    archive.write_bytes(archive.read_bytes()[:100])
    with pytest.raises(DataError, match=r"photos\.tar\.xz cannot be unpacked"):
        unpacked(archive, cache)
    assert list(cache.iterdir()) == []
