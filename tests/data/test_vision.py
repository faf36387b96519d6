import gzip
import hashlib
import http.server
import os
import pickle
import struct
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from scipy.io import savemat

from dlrun.data import published, vision
from dlrun.data.published import Source
from dlrun.errors import DataError

RNG = np.random.default_rng(0)


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def use(monkeypatch: pytest.MonkeyPatch, name: str, root: Path, url: str = "", archive: str | None = None) -> Source:
    """Let the md5 sums of a source be those of the small files that a test has written."""
    real = vision.SOURCES[name]
    files = {file: md5(root / real.folder / file) for file in real.files}
    source = Source(name, real.folder, files, url, (archive, md5(root / archive)) if archive else None)
    monkeypatch.setitem(vision.SOURCES, name, source)
    return source


def write_idx(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        gzip.compress(bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes())
    )


@pytest.fixture
def small_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    arrays = {}
    for file, shape in zip(vision.SOURCES["mnist"].files, [(7, 28, 28), (7,), (3, 28, 28), (3,)], strict=True):
        arrays[file] = RNG.integers(0, 10, shape, dtype=np.uint8)
        write_idx(tmp_path / "MNIST/raw" / file, arrays[file])
    use(monkeypatch, "mnist", tmp_path, "http://nowhere.invalid/")
    return arrays


def write_cifar(folder: Path, name: str) -> None:
    """Files in the layout of CIFAR, four images each."""
    folder.mkdir()
    for file in vision.SOURCES[name].files:
        if "meta" in file:
            entry = {"label_names": ["a", "b"]} if name == "cifar10" else {"fine_label_names": ["a", "b"]}
        else:
            key = "labels" if name == "cifar10" else "fine_labels"
            entry = {"data": RNG.integers(0, 256, (4, 3072), dtype=np.uint8), key: [0, 1, 1, 0]}
        (folder / file).write_bytes(pickle.dumps(entry, protocol=2))


def test_md5_sums_are_torchvision_s():
    for name, cls in (("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST"), ("kmnist", "KMNIST")):
        theirs = getattr(torchvision.datasets, cls)
        assert vision.SOURCES[name].files == dict(theirs.resources)
        assert vision.SOURCES[name].folder == f"{cls}/raw"
    for name, theirs in (("cifar10", torchvision.datasets.CIFAR10), ("cifar100", torchvision.datasets.CIFAR100)):
        lists = dict(theirs.train_list + theirs.test_list) | {theirs.meta["filename"]: theirs.meta["md5"]}
        ours = vision.SOURCES[name]
        assert (ours.files, ours.folder) == (lists, theirs.base_folder)
        assert ours.archive == (theirs.filename, theirs.tgz_md5)
        assert ours.url + theirs.filename == theirs.url
    theirs = torchvision.datasets.SVHN.split_list
    assert vision.SOURCES["svhn"].files == {theirs[part][1]: theirs[part][2] for part in ("train", "test")}


@pytest.mark.skipif("DLRUN_DATA" not in os.environ, reason="DLRUN_DATA does not name a folder with MNIST")
def test_mnist_is_what_torchvision_decodes(tmp_path: Path):
    root = os.environ["DLRUN_DATA"]
    splits = vision.mnist(root=root, download=False)
    for part, prefix in ((splits.train, "train"), (splits.test, "t10k")):
        for tensor, what in ((part.inputs[:, 0], "images-idx3"), (part.targets, "labels-idx1")):
            unpacked = tmp_path / what
            unpacked.write_bytes(gzip.decompress(Path(root, f"MNIST/raw/{prefix}-{what}-ubyte.gz").read_bytes()))
            theirs = torchvision.datasets.mnist.read_sn3_pascalvincent_tensor(str(unpacked))
            assert torch.equal(tensor, theirs.to(tensor.dtype))
    assert splits.train.inputs.dtype == torch.uint8
    assert splits.train.targets.bincount().tolist()[:2] == [5923, 6742]


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "kmnist"])
def test_idx_sets_have_ten_named_classes(name: str, small_mnist, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for file, array in small_mnist.items():
        write_idx(tmp_path / vision.SOURCES[name].folder / file, array)
    use(monkeypatch, name, tmp_path)
    splits = getattr(vision, name)(root=str(tmp_path), download=False)
    images, labels, test_images, test_labels = (torch.from_numpy(array) for array in small_mnist.values())
    assert torch.equal(splits.train.inputs[:, 0], images)
    assert torch.equal(splits.train.targets, labels.long())
    assert torch.equal(splits.test.inputs[:, 0], test_images)
    assert torch.equal(splits.test.targets, test_labels.long())
    assert (splits.spec.shape, splits.spec.num_outputs, len(splits.spec.class_names)) == ((1, 28, 28), 10, 10)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_is_what_torchvision_decodes(name: str, packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / vision.SOURCES[name].folder
    write_cifar(folder, name)
    archive = vision.SOURCES[name].archive[0]
    with tarfile.open(tmp_path / archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    source = use(monkeypatch, name, tmp_path, archive=archive)

    base = getattr(torchvision.datasets, name.upper())
    sums = {
        part: [(file, source.files[file]) for file, _ in getattr(base, part)] for part in ("train_list", "test_list")
    }
    small = type("Small", (base,), sums | {"meta": base.meta | {"md5": source.files[base.meta["filename"]]}})
    theirs = [small(str(tmp_path), train=train) for train in (True, False)]
    if packed:
        for file in source.files:
            (folder / file).unlink()
    splits = getattr(vision, name)(root=str(tmp_path), download=False)
    for ours, expected in zip((splits.train, splits.test), theirs, strict=True):
        assert torch.equal(ours.inputs.permute(0, 2, 3, 1), torch.from_numpy(expected.data))
        assert ours.targets.tolist() == expected.targets
    assert splits.spec.class_names == ("a", "b")


def test_svhn_is_what_torchvision_decodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for file in vision.SOURCES["svhn"].files:
        images = RNG.integers(0, 256, (32, 32, 3, 5), dtype=np.uint8)
        savemat(tmp_path / file, {"X": images, "y": np.array([[1], [10], [9], [2], [10]], dtype=np.uint8)})
    source = use(monkeypatch, "svhn", tmp_path)
    sums = {
        "split_list": {part: ["", f"{part}_32x32.mat", source.files[f"{part}_32x32.mat"]] for part in ("train", "test")}
    }
    small = type("Small", (torchvision.datasets.SVHN,), sums)
    splits = vision.svhn(root=str(tmp_path), download=False)
    for part, ours in (("train", splits.train), ("test", splits.test)):
        theirs = small(str(tmp_path), split=part)
        assert torch.equal(ours.inputs, torch.from_numpy(theirs.data))
        assert ours.targets.tolist() == theirs.labels.tolist()


def test_absent_files_are_named_with_their_places_and_the_ways_out(tmp_path: Path):
    with pytest.raises(DataError) as caught:
        vision.mnist(root=str(tmp_path), download=False)
    message = str(caught.value)
    for part in (
        *vision.SOURCES["mnist"].files,
        f"{tmp_path}/MNIST/raw",
        "data.root=",
        "DLRUN_DATA",
        "data.download=true",
    ):
        assert part in message
    with pytest.raises(
        DataError, match=r"cifar-10-python.tar.gz into .*\(or its files data_batch_1.*cifar-10-batches-py"
    ):
        vision.cifar10(root=str(tmp_path), download=False)


def test_root_that_is_absent_a_file_or_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(DataError, match=r"data.root=.*/none does not exist; put"):
        vision.mnist(root=str(tmp_path / "none"), download=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"data.root=.*/file is not a folder; put"):
        vision.mnist(root=str(tmp_path / "file"), download=False)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # the tests may run as root, whom nothing stops
    with pytest.raises(DataError, match=r"data.root=.* cannot be read \(permission denied\)"):
        vision.mnist(root=str(tmp_path), download=False)


def test_truncated_file_is_named_with_both_sums(small_mnist, tmp_path: Path):
    path = tmp_path / "MNIST/raw/train-images-idx3-ubyte.gz"
    expected = md5(path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataError) as caught:
        vision.mnist(root=str(tmp_path), download=False)
    for part in ("data.root", str(path), md5(path), expected, "delete it", "data.download=true"):
        assert part in str(caught.value)


def test_unreadable_file_is_named(small_mnist, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(
        DataError, match=r"data.root: .*train-images-idx3-ubyte.gz cannot be read \(Permission denied\)"
    ):
        vision.mnist(root=str(tmp_path), download=False)


def test_failed_download_gives_the_reason_after_the_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(url: str, timeout: float):
        raise OSError("Network is unreachable")

    monkeypatch.setattr(published.urllib.request, "urlopen", refuse)
    with pytest.raises(DataError, match=r"does not exist; put .*the download failed \(Network is unreachable\)"):
        vision.kmnist(root=str(tmp_path / "new"), download=True)


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    """A folder and the address at which its files are served."""
    folder = tmp_path_factory.mktemp("web")
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as http_server:
        threading.Thread(target=http_server.serve_forever, args=(0.02,), daemon=True).start()
        yield folder, f"http://127.0.0.1:{http_server.server_port}/"
        http_server.shutdown()


def test_download_fetches_what_is_absent_or_damaged_and_nothing_else(small_mnist, server, tmp_path: Path, monkeypatch):
    web, url = server
    raw = tmp_path / "MNIST/raw"
    for file in small_mnist:
        (web / file).write_bytes((raw / file).read_bytes())
    use(monkeypatch, "mnist", tmp_path, url)
    absent, damaged, *whole = small_mnist
    (raw / absent).unlink()
    (raw / damaged).write_bytes(b"half a file")
    before = {file: (raw / file).stat().st_mtime_ns for file in whole}
    splits = vision.mnist(root=str(tmp_path), download=True)
    assert torch.equal(splits.train.inputs[:, 0], torch.from_numpy(small_mnist[absent]))
    assert {file: (raw / file).stat().st_mtime_ns for file in whole} == before
    assert sorted(os.listdir(raw)) == sorted(small_mnist)


def test_downloaded_archive_is_unpacked(server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    web, url = server
    write_cifar(web / "cifar-10-batches-py", "cifar10")
    with tarfile.open(web / "cifar-10-python.tar.gz", "w:gz") as tar:
        tar.add(web / "cifar-10-batches-py", "cifar-10-batches-py")
    use(monkeypatch, "cifar10", web, url, archive="cifar-10-python.tar.gz")
    splits = vision.cifar10(root=str(tmp_path / "new"), download=True)
    assert len(splits.train) == 20
    assert len(splits.test) == 4
    assert (tmp_path / "new/cifar-10-batches-py/data_batch_5").is_file()


def test_server_that_sends_something_else_is_noticed(small_mnist, server, tmp_path: Path, monkeypatch):
    web, url = server
    use(monkeypatch, "mnist", tmp_path, url)
    for file in small_mnist:
        (web / file).write_text("<html>moved</html>")
        (tmp_path / "MNIST/raw" / file).unlink()
    with pytest.raises(DataError, match="damaged or incomplete: its md5 sum is"):
        vision.mnist(root=str(tmp_path), download=True)
