"""The classic image sets, from the files their authors publish, laid out under `root` as torchvision does.

Files are checked (dlrun/data/published.py) and decoded in memory: `root` may be read-only, and unpacked copies of MNIST
are not needed. Inputs are uint8 (N, C, H, W), values 0-255, exactly the arrays torchvision.datasets holds.
"""

import pickle
import struct
import zlib
from collections.abc import Sequence
from io import BytesIO

import numpy as np
import torch
from torch import Tensor

from dlrun.contracts import Arrays, DataSpec, Kind, Splits, Task
from dlrun.data.published import Source, load

DIGITS = tuple("0123456789")
GZIP = 31  # what zlib calls gzip with the largest window


def _idx_source(name: str, folder: str, url: str, *md5: str) -> Source:
    """A set in the four files of MNIST: images and labels, of training and of test."""
    parts = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    return Source(name, f"{folder}/raw", {f"{part}-ubyte.gz": md5[i] for i, part in enumerate(parts)}, url)


SOURCES = {
    source.name: source
    for source in (
        _idx_source(
            "mnist",
            "MNIST",
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "d53e105ee54ea40749a09fcbcd1e9432",
            "9fb629c4189551a2d022fa330f9573f3",
            "ec29112dd5afa0611ce80d1b7f02629c",
        ),
        _idx_source(
            "fashion_mnist",
            "FashionMNIST",
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "25c81989df183df01b3e8a0aad5dffbe",
            "bef4ecab320f06d8554ea6380940ec79",
            "bb300cfdad3c16e7a12a480ee83cd310",
        ),
        _idx_source(
            "kmnist",
            "KMNIST",
            "http://codh.rois.ac.jp/kmnist/dataset/kmnist/",
            "bdb82020997e1d708af4cf47b453dcf7",
            "e144d726b3acfaa3e44228e80efcd344",
            "5c965bf0a639b31b8f53240b1b52f4d7",
            "7320c461ea6c1c855c0b718fb2a4b134",
        ),
        Source(
            "cifar10",
            "cifar-10-batches-py",
            {
                "data_batch_1": "c99cafc152244af753f735de768cd75f",
                "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
                "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
                "data_batch_4": "634d18415352ddfa80567beed471001a",
                "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
                "test_batch": "40351d587109b95175f43aff81a1287e",
                "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
            },
            "https://www.cs.toronto.edu/~kriz/",
            ("cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a"),
        ),
        Source(
            "cifar100",
            "cifar-100-python",
            {
                "train": "16019d7e3df5f24257cddd939b257f8d",
                "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
                "meta": "7973b15100ade9c7d40fb424638fde48",
            },
            "https://www.cs.toronto.edu/~kriz/",
            ("cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85"),
        ),
        Source(
            "svhn",
            "",
            {
                "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
                "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
            },
            "http://ufldl.stanford.edu/housenumbers/",
        ),
    )
}


def mnist(*, root: str, download: bool) -> Splits:
    """60,000 + 10,000 handwritten digits, (1, 28, 28). Source: LeCun et al. 1998 (doi:10.1109/5.726791)."""
    return _idx_splits("mnist", DIGITS, root, download)


def fashion_mnist(*, root: str, download: bool) -> Splits:
    """60,000 + 10,000 articles of clothing, (1, 28, 28). Source: Xiao et al. 2017 (arXiv:1708.07747)."""
    classes = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
    return _idx_splits("fashion_mnist", classes, root, download)


def kmnist(*, root: str, download: bool) -> Splits:
    """60,000 + 10,000 cursive Japanese characters, (1, 28, 28). Source: Clanuwat et al. 2018 (arXiv:1812.01718)."""
    return _idx_splits("kmnist", ["o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"], root, download)


def cifar10(*, root: str, download: bool) -> Splits:
    """50,000 + 10,000 photographs in 10 classes, (3, 32, 32). Source: Krizhevsky 2009, Tiny Images."""
    return _cifar_splits("cifar10", ("batches.meta", "label_names"), "labels", root, download)


def cifar100(*, root: str, download: bool) -> Splits:
    """50,000 + 10,000 photographs in 100 classes, (3, 32, 32). Source: Krizhevsky 2009, Tiny Images."""
    return _cifar_splits("cifar100", ("meta", "fine_label_names"), "fine_labels", root, download)


def svhn(*, root: str, download: bool) -> Splits:
    """73,257 + 26,032 house-number digits, (3, 32, 32), without the extra part. Source: Netzer et al. 2011."""
    from scipy.io import loadmat

    def arrays(packed: bytes) -> Arrays:
        matrices = loadmat(BytesIO(packed))
        images = np.ascontiguousarray(matrices["X"].transpose(3, 2, 0, 1))
        return Arrays(torch.from_numpy(images), torch.from_numpy(matrices["y"]).long().flatten() % 10)  # 10 means 0

    files = load(SOURCES["svhn"], root, download)
    return _splits("svhn", DIGITS, arrays(files["train_32x32.mat"]), arrays(files["test_32x32.mat"]))


def _idx_splits(name: str, classes: Sequence[str], root: str, download: bool) -> Splits:
    files = load(SOURCES[name], root, download)
    images, labels, test_images, test_labels = (parse_idx(files[file]) for file in SOURCES[name].files)
    train, test = Arrays(images.unsqueeze(1), labels.long()), Arrays(test_images.unsqueeze(1), test_labels.long())
    return _splits(name, classes, train, test)


def _cifar_splits(name: str, meta: tuple[str, str], labels: str, root: str, download: bool) -> Splits:
    # Unpickling runs code; these bytes are known by their md5 sum.
    files = {
        file: pickle.loads(packed, encoding="latin1") for file, packed in load(SOURCES[name], root, download).items()
    }

    def arrays(part: str) -> Arrays:
        batches = [files[file] for file in SOURCES[name].files if part in file]
        images = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, 32, 32)
        return Arrays(torch.from_numpy(images), torch.tensor([y for batch in batches for y in batch[labels]]))

    file, key = meta
    return _splits(name, files[file][key], arrays("data_batch" if name == "cifar10" else "train"), arrays("test"))


def _splits(name: str, classes: Sequence[str], train: Arrays, test: Arrays) -> Splits:
    shape = tuple(train.inputs.shape[1:])
    spec = DataSpec(name, Task.CLASSIFICATION, Kind.IMAGE, shape, len(classes), tuple(classes))
    return Splits(train, spec, test=test)


def parse_idx(packed: bytes) -> Tensor:
    """The uint8 array in a gzipped IDX file: two zeros, type 8, number of dimensions, their sizes, the values."""
    (size,) = struct.unpack("<I", packed[-4:])  # allocated at once, not by growing
    data = bytearray(zlib.decompress(packed, wbits=GZIP, bufsize=size))
    ndim = data[3]
    shape = struct.unpack_from(f">{ndim}I", data, 4)
    return torch.frombuffer(data, dtype=torch.uint8, offset=4 + 4 * ndim).view(shape)
