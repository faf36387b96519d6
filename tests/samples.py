"""What tests of many parts share: tiny data of every shape, and files for the data sets that read the user's own."""

from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from dlrun import splitting
from dlrun.contracts import (
    BOS,
    BOS_ID,
    EOS,
    EOS_ID,
    IGNORED,
    PAD,
    UNK,
    Arrays,
    Column,
    DataSpec,
    Kind,
    Splits,
    Task,
    Vocabulary,
)
from dlrun.examples import Padded, Pairs, SeriesWindows, TextWindows

WORDS = Vocabulary((PAD, UNK, BOS, EOS, *"abcdefgh"))
CHARACTERS = Vocabulary(tuple("abcdefgh"))


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _inputs(*shape: int) -> Tensor:
    return torch.randn(24, *shape, generator=_generator())


def _classes(count: int) -> Tensor:
    return torch.arange(24) % count


def vectors() -> Splits:
    spec = DataSpec("vectors", Task.CLASSIFICATION, Kind.VECTOR, (5,), 3)
    return Splits(Arrays(_inputs(5), _classes(3)), spec)


def numbers() -> Splits:
    spec = DataSpec("numbers", Task.REGRESSION, Kind.VECTOR, (5,), 2)
    return Splits(Arrays(_inputs(5), _inputs(2)), spec)


def labels() -> Splits:
    spec = DataSpec("labels", Task.MULTILABEL, Kind.VECTOR, (5,), 4)
    return Splits(Arrays(_inputs(5), (_inputs(4) > 0).float()), spec)


def images(size: int = 32, channels: int = 3) -> Splits:
    spec = DataSpec(f"images{size}", Task.CLASSIFICATION, Kind.IMAGE, (channels, size, size), 3)
    pixels = torch.randint(0, 256, (24, channels, size, size), dtype=torch.uint8, generator=_generator())
    return Splits(Arrays(pixels, _classes(3)), spec)


def small_images() -> Splits:
    return images(8, 1)


def middle_images() -> Splits:
    return images(16)


def large_images() -> Splits:
    return images(224)


def sequences() -> Splits:
    spec = DataSpec("sequences", Task.CLASSIFICATION, Kind.SEQUENCE, (7, 2), 3)
    return Splits(Arrays(_inputs(7, 2), _classes(3)), spec)


def sequence_numbers() -> Splits:
    spec = DataSpec("sequence_numbers", Task.REGRESSION, Kind.SEQUENCE, (7, 2), 1)
    return Splits(Arrays(_inputs(7, 2), _inputs(1)), spec)


def series() -> Splits:
    columns = (Column("a"), Column("b"))
    spec = DataSpec(
        "series",
        Task.FORECASTING,
        Kind.SEQUENCE,
        (12, 2),
        3,
        target_mean=(0.0,) * 3,
        target_std=(1.0,) * 3,
        columns=columns,
        horizon=3,
        target_columns=(1,),
        season=4,
    )
    values = torch.randn(90, 2, generator=_generator())

    def windows(first: int, last: int) -> SeriesWindows:
        return SeriesWindows(values, torch.arange(first, last), 12, 3, torch.tensor([1]))

    return Splits(windows(0, 24), spec, windows(40, 50), windows(60, 70))


def sentences() -> Splits:
    spec = DataSpec(
        "sentences", Task.CLASSIFICATION, Kind.TOKENS, (9,), 2, vocabulary_size=12, padding=0, vocabulary=WORDS
    )
    lengths = torch.randint(1, 10, (24,), generator=_generator())
    tokens = torch.randint(4, 12, (24, 9), generator=_generator())
    return Splits(Padded(tokens * (torch.arange(9) < lengths[:, None]), _classes(2), lengths), spec)


def text() -> Splits:
    spec = DataSpec("text", Task.LANGUAGE_MODELLING, Kind.TOKENS, (6,), 8, vocabulary_size=8, vocabulary=CHARACTERS)
    letters = torch.randint(0, 8, (120,), generator=_generator(), dtype=torch.int32)

    def windows(first: int, last: int) -> TextWindows:
        return TextWindows(letters, torch.arange(first, last), 6)

    return Splits(windows(0, 24), spec, windows(40, 50), windows(60, 70))


def pairs() -> Splits:
    spec = DataSpec(
        "pairs",
        Task.SEQUENCE_TO_SEQUENCE,
        Kind.TOKENS,
        (6,),
        12,
        vocabulary_size=12,
        padding=0,
        vocabulary=WORDS,
        target_vocabulary=WORDS,
        target_length=5,
    )
    generator = _generator()
    lengths = torch.stack([torch.randint(1, 7, (24,), generator=generator), torch.randint(2, 6, (24,))], 1)
    sources = torch.randint(4, 12, (24, 6), generator=generator) * (torch.arange(6) < lengths[:, :1])
    words = torch.randint(4, 12, (24, 5), generator=generator)
    position, last = torch.arange(5), lengths[:, 1:] - 1
    targets = torch.where(position < last, words, torch.where(position == last, EOS_ID, IGNORED))
    shifted = torch.cat([torch.full((24, 1), BOS_ID), targets[:, :-1]], 1).clamp(min=0)
    return Splits(Pairs(sources, shifted * (position <= last), targets, lengths), spec)


def reconstructed() -> Splits:
    splits = images(16, 1)
    return Splits(splits.train, splitting.reconstruction(splits.spec))


SAMPLES: dict[str, Callable[[], Splits]] = {
    made.__name__: made
    for made in (
        vectors,
        numbers,
        labels,
        images,
        small_images,
        middle_images,
        sequences,
        sequence_numbers,
        series,
        sentences,
        text,
        pairs,
        reconstructed,
        large_images,
    )
}


def sample(name: str) -> Splits:
    """The splits of a sample, complete."""
    return splitting.complete(SAMPLES[name](), normalize=False)


def write_files(name: str, folder: Path) -> list[str]:
    """Files for the data sets that read the user's own, and the words that name them."""
    if name == "csv":
        rows = [f"{i % 7},{['red', 'green', ''][i % 3]},{'yes' if i % 2 else 'no'}" for i in range(40)]
        (folder / "table.csv").write_text("\n".join(["size,colour,ripe", *rows]))
        return [f"data.path={folder / 'table.csv'}", "data.target=ripe"]
    if name == "text_classification":
        for label, words in (("good", "fine bright"), ("bad", "dull grey")):
            (folder / f"{label}.txt").write_text("\n".join(f"a {words} film {i % 5}" for i in range(20)))
        return [f"data.path={{good: {folder / 'good.txt'}, bad: {folder / 'bad.txt'}}}"]
    if name == "language":
        (folder / "novel.txt").write_text("It was the best of times, it was the worst of times. " * 60)
        return [f"data.path={folder / 'novel.txt'}"]
    if name == "translation":
        lines = [f"{a} {b}\t{b} {a}" for a in ("uno", "dos", "tres", "uno") for b in "abcdefgh"]
        (folder / "pairs.tsv").write_text("\n".join(lines * 2))
        return [f"data.path={folder / 'pairs.tsv'}"]
    if name == "series":
        (folder / "series.csv").write_text("\n".join(["a,b", *(f"{i % 7},{i}" for i in range(400))]))
        return [f"data.path={folder / 'series.csv'}"]
    if name in ("image_folder", "cifar10_jpeg"):
        cache = folder / "cache"
        folder = folder / "photos"
        for label in ("cat", "dog"):
            (folder / label).mkdir(parents=True)
            for i in range(10):
                Image.new("RGB", (20, 16), (10 * i, 255 * (label == "dog"), 30)).save(folder / label / f"{i}.png")
        return [f"data.path={folder}", f"data.cache={cache}", *(["data.size=28"] * (name == "image_folder"))]
    return []
