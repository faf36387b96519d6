import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dlrun.data import image_folder as module
from dlrun.data.image_folder import image_folder
from dlrun.errors import DataError
from dlrun.inputs import read_image

RNG = np.random.default_rng(0)


def write(path: Path, width: int = 12, height: int = 12) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes, five and three images, in deeper folders and with other files about."""
    root = tmp_path / "photos"
    for i in range(4):
        write(root / "cat" / f"{i}.png")
    write(root / "cat" / "more" / "9.JPG", 20, 14)
    for i in range(3):
        write(root / "ant" / f"{i}.jpeg")
    (root / "cat" / "notes.txt").write_text("not an image")
    (root / "cat" / "._0.png").write_text("not an image")
    (root / ".cache").mkdir()
    return root


def load(root: Path, size: int = 12, channels: str = "rgb", cache: str = "cache"):
    return image_folder(path=str(root), size=size, channels=channels, cache=str(root.parent / cache))


def decoded(paths: list[Path]) -> torch.Tensor:
    images = []
    for path in paths:
        with Image.open(path) as image:
            images.append(np.array(image.convert("RGB")))
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def test_images_are_what_pil_decodes_in_sorted_order(photos: Path):
    (photos / "cat" / "more" / "9.JPG").unlink()
    splits = load(photos)
    paths = sorted(photos.glob("ant/*.jpeg")) + sorted(photos.glob("cat/[0-9].png"))
    assert torch.equal(splits.train.inputs, decoded(paths))
    assert splits.train.targets.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert splits.spec.class_names == ("ant", "cat")
    assert splits.spec.shape == (3, 12, 12)
    assert splits.val is None
    assert splits.test is None


@pytest.mark.parametrize("channels", ["rgb", "grey"])
def test_training_and_prediction_read_the_same_pixels(channels: str, photos: Path):
    splits = load(photos, size=8, channels=channels)
    last = photos / "cat" / "more" / "9.JPG"
    assert splits.train.inputs.dtype == torch.uint8
    assert splits.spec.shape == ((3 if channels == "rgb" else 1), 8, 8)
    assert torch.equal(splits.train.inputs[-1], read_image(last, splits.spec))


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_worker_processes_decode_the_same_and_leave_the_generator_alone(suffix: str, tmp_path: Path, monkeypatch):
    for i in range(20):
        write(tmp_path / "photos" / "ab"[i % 2] / f"{i:02}.{suffix}", 12 + (i == 15))  # one is to be resized
    serial = load(tmp_path / "photos").train.inputs.clone()
    monkeypatch.setattr(module, "CHUNK", 3)
    monkeypatch.setattr(module, "READ", 100)  # files take several reads
    torch.manual_seed(0)
    expected = torch.rand(1, generator=torch.Generator().manual_seed(0))
    assert torch.equal(load(tmp_path / "photos", cache="other").train.inputs, serial)
    assert torch.equal(torch.rand(1), expected)


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of images of each call that really decodes."""
    calls: list[int] = []
    real = module._decode
    monkeypatch.setattr(module, "_decode", lambda files, *rest: (calls.append(len(files)), real(files, *rest))[1])
    return calls


def test_second_start_reads_no_image(photos: Path, decodes, monkeypatch: pytest.MonkeyPatch):
    first = load(photos).train.inputs.clone()
    monkeypatch.setattr(module, "_content_key", None)
    assert torch.equal(load(photos).train.inputs, first)
    assert decodes == [8]


def test_changed_image_is_noticed_though_size_and_time_stay(photos: Path, decodes):
    before = load(photos).train.inputs.clone()
    path = photos / "ant" / "0.jpeg"
    stat = path.stat()
    write(photos.parent / "new.png").rename(path)  # a PNG of another content under the old name
    content = path.read_bytes()[: stat.st_size].ljust(stat.st_size, b"\0")
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    after = load(photos).train.inputs
    assert decodes == [8, 8]
    assert not torch.equal(after[0], before[0])
    assert torch.equal(after[1:], before[1:])


def test_touched_and_moved_images_are_not_decoded_again(photos: Path, decodes):
    first = load(photos).train.inputs.clone()
    os.utime(photos / "ant" / "0.jpeg")
    load(photos)
    moved = photos.rename(photos.parent / "moved")
    assert torch.equal(load(moved).train.inputs, first)
    assert decodes == [8]


def test_first_decoding_and_later_hashing_call_images_the_same(photos: Path, decodes):
    cache = photos.parent / "cache"
    load(photos)
    (file,) = cache.glob("*.u8")
    next(iter(cache.glob("*.key"))).unlink()
    load(photos)  # there is a candidate, so the contents are hashed before anything is decoded
    assert list(cache.glob("*.u8")) == [file]
    assert decodes == [8]


def test_deleted_cache_is_made_again_under_its_name(photos: Path):
    load(photos)
    (file,) = (photos.parent / "cache").glob("*.u8")
    before = file.read_bytes()
    file.unlink()
    load(photos)
    assert file.read_bytes() == before


def test_other_sizes_and_colours_have_their_own_cache(photos: Path, decodes):
    for size, channels in ((12, "rgb"), (12, "grey"), (6, "rgb"), (12, "rgb")):
        assert load(photos, size, channels).train.inputs.shape[1:] == (3 if channels == "rgb" else 1, size, size)
    assert decodes == [8, 8, 8]


def test_shortened_cache_is_made_again(photos: Path, decodes):
    first = load(photos).train.inputs.clone()
    (file,) = (photos.parent / "cache").glob("*.u8")
    file.write_bytes(file.read_bytes()[:-1])
    assert torch.equal(load(photos).train.inputs, first)
    assert decodes == [8, 8]


def test_writing_to_the_images_leaves_the_cache_alone(photos: Path):
    first = load(photos).train.inputs
    kept = first.clone()
    first.zero_()
    assert torch.equal(load(photos).train.inputs, kept)


def test_interrupted_decoding_leaves_nothing(photos: Path, monkeypatch: pytest.MonkeyPatch):
    real, seen = module.decode_image, []

    def interrupt(file: object, *shape: int, name: str):
        seen.append(name)
        if len(seen) == 5:
            raise KeyboardInterrupt
        return real(file, *shape, name=name)

    monkeypatch.setattr(module, "decode_image", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load(photos)
    assert not list((photos.parent / "cache").iterdir())


def test_remains_of_killed_runs_are_removed_and_those_at_work_kept(photos: Path):
    cache = photos.parent / "cache"
    cache.mkdir()
    old, young = cache / "old.u8.1.part", cache / "young.u8.2.part"
    for path in (old, young):
        path.write_bytes(b"")
    os.utime(old, (time.time() - 7200,) * 2)
    load(photos)
    assert not old.exists()
    assert young.exists()


def test_default_cache_is_in_the_user_s_cache_folder(photos: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(photos.parent / "xdg"))
    image_folder(path=str(photos), size=4, channels="grey", cache=None)
    assert len(list((photos.parent / "xdg/dlrun/images").glob("*-1x4x4.u8"))) == 1


@pytest.mark.parametrize("given", [("train",), ("train", "test"), ("train", "val", "test"), ("train", "val")])
def test_split_folders(given: tuple[str, ...], tmp_path: Path):
    counts = {"train": 3, "val": 2, "test": 1}
    for name in given:
        for label in ("a", "b"):
            for i in range(counts[name]):
                write(tmp_path / "photos" / name / label / f"{i}.png")
    splits = load(tmp_path / "photos")
    for name in counts:
        part = getattr(splits, name)
        if name in given:
            assert part.targets.tolist() == [0] * counts[name] + [1] * counts[name]
            assert torch.equal(part.inputs, decoded(sorted((tmp_path / "photos" / name).glob("*/*.png"))))
        else:
            assert part is None


def test_class_may_be_called_train(tmp_path: Path):
    for label in ("bus", "train"):
        write(tmp_path / "photos" / label / "0.png")
    assert load(tmp_path / "photos").spec.class_names == ("bus", "train")


def test_unfit_folders_are_refused(tmp_path: Path):
    root = tmp_path / "photos"
    with pytest.raises(DataError, match=r"data.path=.*photos does not exist; give the folder"):
        load(root)
    root.write_text("")
    with pytest.raises(DataError, match=r"data.path=.*photos is neither a folder nor"):
        load(root)
    root.unlink()
    root.mkdir()
    with pytest.raises(DataError, match=r"photos has no class folders; two or more are needed"):
        load(root)
    write(root / "cat" / "0.png")
    with pytest.raises(DataError, match=r"photos has one class folder only, 'cat'; two or more are needed"):
        load(root)
    (root / "dog").mkdir()
    with pytest.raises(DataError, match=r"class folder .*photos/dog has no images \(\.jpg.*; add some or remove it"):
        load(root)


def test_unfit_split_folders_are_refused(tmp_path: Path):
    root = tmp_path / "photos"
    for place in ("train/a", "train/b", "test/a", "test/c"):
        write(root / place / "0.png")
    with pytest.raises(DataError, match=r"class 'b' is in train/ but not in test/; every split must have the same"):
        load(root)
    write(root / "test" / "b" / "0.png")
    with pytest.raises(DataError, match=r"class 'c' is in test/ but not in train/"):
        load(root)
    write(root / "tset" / "c" / "0.png")
    with pytest.raises(DataError, match=r"train/ and tset/, .* train, val and test. Did you mean 'test'\?"):
        load(root)


@pytest.mark.parametrize("chunk", [1, 64])
def test_broken_image_is_named_and_nothing_kept(chunk: int, photos: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "CHUNK", chunk)
    broken = photos / "ant" / "1.jpeg"
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(DataError, match=rf"the image {broken} cannot be read .*; repair or remove it"):
        load(photos)
    assert not list((photos.parent / "cache").glob("*.u8*"))


def test_broken_link_is_named(photos: Path):
    (photos / "ant" / "7.png").symlink_to(photos / "gone.png")
    with pytest.raises(DataError, match=r"the image .*7.png cannot be read \(No such file or directory\)"):
        load(photos)


def test_cache_that_cannot_be_written(photos: Path):
    (photos.parent / "cache").write_text("a file in the way")
    with pytest.raises(
        DataError, match=r"the decoded images \(0 MB\) cannot be kept in .*cache .*data.cache, or make room"
    ):
        load(photos)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_full_disk_while_decoding(photos: Path):
    chunks = module._Chunks([str(path) for path in sorted(photos.glob("ant/*"))], (3, 12, 12), Path("/dev/full"))
    assert "cannot be written to /dev/full (No space left on device); choose another data.cache" in chunks[0][0]
