"""Sets of examples gather what a slow loop gathers, cut it to its longest, and keep it through subset and device."""

import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dlrun import splitting
from dlrun.contracts import IGNORED, Arrays, DataSpec, Kind, Splits, Task
from dlrun.engine.loaders import gather
from dlrun.errors import ConfigError
from dlrun.examples import MappedImages, Padded, Pairs, SeriesWindows, TextWindows, with_mirror_images

CPU = torch.device("cpu")
INDEX = torch.tensor([4, 0, 4, 2])


def padded(dtype: torch.dtype = torch.int16) -> Padded:
    lengths = torch.tensor([3, 7, 1, 2, 5])
    inputs = torch.arange(1, 36).view(5, 7) * (torch.arange(7) < lengths[:, None])
    return Padded(inputs.to(dtype), torch.tensor([0, 1, 0, 1, 1]), lengths)


def pairs() -> Pairs:
    lengths = torch.tensor([[3, 2], [6, 4], [1, 1], [2, 3], [5, 2]])
    sources = torch.arange(1, 31).view(5, 6) * (torch.arange(6) < lengths[:, :1])
    inside = torch.arange(4) < lengths[:, 1:]
    targets = torch.arange(101, 121).view(5, 4)
    return Pairs(sources.short(), (targets - 1) * inside, torch.where(inside, targets, IGNORED).int(), lengths)


def test_padded_batches_end_with_their_longest():
    examples = padded()
    batch = gather(examples, INDEX)
    assert batch.inputs.dtype == torch.int64
    assert batch.inputs.tolist() == [examples.inputs[i, :5].tolist() for i in INDEX]
    assert batch.targets.tolist() == [1, 0, 1, 0]
    assert gather(examples, torch.tensor([2])).inputs.shape == (1, 1)


def test_padded_numbers_stay_numbers():
    assert gather(padded(torch.float32), INDEX).inputs.dtype == torch.float32


def test_pairs_are_cut_on_each_side():
    examples = pairs()
    batch = gather(examples, torch.tensor([0, 2]))
    sources, shifted = batch.inputs
    assert sources.tolist() == [[1, 2, 3], [13, 0, 0]]
    assert shifted.tolist() == [[100, 101], [108, 0]]
    assert batch.targets.tolist() == [[101, 102], [109, IGNORED]]
    assert {sources.dtype, shifted.dtype, batch.targets.dtype} == {torch.int64}


def test_text_windows_predict_the_next_token():
    text = torch.randint(50, (200,), generator=torch.Generator().manual_seed(0), dtype=torch.int16)
    windows = TextWindows(text, torch.arange(0, 190, 3), 10)
    batch = windows.take(torch.tensor([5, 0, 62]))
    for inputs, targets, start in zip(batch.inputs, batch.targets, (15, 0, 186), strict=True):
        assert inputs.tolist() == text[start : start + 10].tolist()
        assert targets.tolist() == text[start + 1 : start + 11].tolist()
    assert batch.inputs.dtype == batch.targets.dtype == torch.int64


def test_series_windows_are_followed_by_their_forecast():
    series = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    windows = SeriesWindows(series, torch.arange(0, 50), 6, 4, torch.tensor([2, 0]))
    batch = windows.take(torch.tensor([7, 49]))
    for inputs, targets, start in zip(batch.inputs, batch.targets, (7, 49), strict=True):
        assert torch.equal(inputs, series[start : start + 6])
        assert torch.equal(targets, series[start + 6 : start + 10][:, [2, 0]].flatten())


def text_windows() -> TextWindows:
    return TextWindows(torch.arange(40, dtype=torch.int16), torch.arange(0, 30, 6), 5)


def series_windows() -> SeriesWindows:
    return SeriesWindows(torch.arange(80.0).view(40, 2), torch.arange(0, 30, 6), 5, 2, torch.tensor([1]))


def flat(examples: Padded | Pairs | TextWindows | SeriesWindows, index: Tensor) -> list[Tensor]:
    batch = gather(examples, index)
    return [*batch.arguments, batch.targets]


@pytest.mark.parametrize("make", [padded, pairs, text_windows, series_windows])
def test_subsets_and_moves_change_no_example(make):
    examples = make()
    whole = flat(examples, INDEX)
    for other, index in (
        (examples.subset(INDEX), torch.arange(4)),
        (examples.subset(torch.arange(5)).to(CPU), INDEX),
    ):
        assert all(torch.equal(a, b) for a, b in zip(whole, flat(other, index), strict=True))
    assert len(examples) == 5
    assert len(examples.subset(INDEX)) == 4
    assert examples.device == CPU
    assert 0 < examples.nbytes <= sum(tensor.nbytes for tensor in examples.tensors())


def test_mirror_images_lie_behind_the_images():
    spec = DataSpec("photos", Task.CLASSIFICATION, Kind.IMAGE, (1, 2, 3), 5)
    images = torch.arange(30, dtype=torch.uint8).view(5, 1, 2, 3)
    examples = with_mirror_images(Arrays(images, torch.arange(5)), spec)
    assert len(examples) == 5
    batch = examples.take(torch.tensor([1, 6, 9]))
    assert batch.inputs[:, 0].tolist() == [
        [[6, 7, 8], [9, 10, 11]],
        [[8, 7, 6], [11, 10, 9]],
        [[26, 25, 24], [29, 28, 27]],
    ]
    assert batch.targets.tolist() == [1, 1, 4]
    some = examples.subset(torch.tensor([4, 1])).to(CPU)
    assert torch.equal(some.take(torch.tensor([2, 1])).inputs, examples.take(torch.tensor([9, 1])).inputs)


@pytest.mark.parametrize("task", [Task.CLASSIFICATION, Task.RECONSTRUCTION])
def test_what_cannot_be_mirrored_is_refused(task):
    kind, shape = (Kind.IMAGE, (1, 2, 3)) if task is Task.RECONSTRUCTION else (Kind.VECTOR, (6,))
    spec = DataSpec("some", task, kind, shape, 6)
    with pytest.raises(
        ConfigError, match=f"alternating_flip=true mirrors images .* data=some gives {kind.plural} for {task}"
    ):
        with_mirror_images(Arrays(torch.zeros(4, *shape), torch.zeros(4)), spec)


def test_images_in_a_file_are_those_in_memory_and_a_split_of_them_copies_none(tmp_path: Path):
    images = torch.randint(0, 256, (30, 3, 4, 5), dtype=torch.uint8)
    targets = torch.arange(30) % 3
    (tmp_path / "images.u8").write_bytes(images.numpy().tobytes())
    mapped = MappedImages(str(tmp_path / "images.u8"), (3, 4, 5), torch.arange(30), targets)
    plain = Arrays(images, targets)
    spec = DataSpec("photos", Task.CLASSIFICATION, Kind.IMAGE, (3, 4, 5), 3)
    one, other = (splitting.complete(Splits(train, spec), bootstrap=3, label_noise=0.2) for train in (mapped, plain))
    assert one.spec == other.spec  # by statistics of the training split
    assert splitting.fingerprint(one) == splitting.fingerprint(other)
    for name in ("train", "val", "test"):
        ours, theirs = getattr(one, name), getattr(other, name)
        assert isinstance(ours, MappedImages)
        assert (len(ours), ours.nbytes, ours.device) == (len(theirs), theirs.nbytes, theirs.device)
        index = torch.tensor([1, 0, 1])
        assert torch.equal(ours.take(index).inputs, theirs.take(index).inputs)
        assert torch.equal(ours.take(index).targets, theirs.take(index).targets)
        elsewhere = pickle.loads(pickle.dumps(ours))  # as a worker process gets it
        assert torch.equal(elsewhere.inputs, theirs.inputs)
        assert len(pickle.dumps(ours)) < 2000
        assert isinstance(ours.to(torch.device("cpu")), Arrays)
