"""Checkpoints: every byte of damage is noticed or harmless, nothing is lost on the way."""

import random
import zipfile

import pytest
import torch

from dlrun.engine import checkpoint
from dlrun.errors import CheckpointError, ResumeError


@pytest.fixture
def content():
    torch.manual_seed(0)
    return {"state": {"step": 7, "weights": torch.randn(300), "names": ["a", "b"], "none": None}}


def test_what_is_saved_is_loaded(tmp_path, content):
    checkpoint.save(tmp_path / "last.pt", content)
    loaded = checkpoint.load(tmp_path / "last.pt")
    assert torch.equal(loaded["state"]["weights"], content["state"]["weights"])
    assert loaded["state"]["names"] == ["a", "b"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.pt"]


def test_every_flipped_byte_is_noticed(tmp_path, content):
    path = tmp_path / "last.pt"
    checkpoint.save(path, content)
    intact = path.read_bytes()
    for position in random.Random(0).sample(range(len(intact)), 300):
        path.write_bytes(intact[:position] + bytes([intact[position] ^ 0x10]) + intact[position + 1 :])
        with pytest.raises(CheckpointError, match="damaged"):
            checkpoint.load(path)


def test_torch_and_zip_tools_read_it_as_it_is(tmp_path, content):
    path = tmp_path / "last.pt"
    checkpoint.save(path, content)
    assert torch.equal(torch.load(path, weights_only=True)["state"]["weights"], content["state"]["weights"])
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.comment.startswith(b"sha256:")


@pytest.mark.parametrize("damage", [b"", b"not a zip", None], ids=["empty", "foreign", "cut"])
def test_a_damaged_last_is_said_and_the_one_before_used(tmp_path, content, damage):
    last, previous = tmp_path / "last.pt", tmp_path / "previous.pt"
    checkpoint.save(last, content)
    newer = {"state": {**content["state"], "step": 8}}
    checkpoint.save(last, newer, previous=previous)
    last.write_bytes(last.read_bytes()[:-100] if damage is None else damage)
    loaded, warnings = checkpoint.load_last(last, previous)
    assert loaded["state"]["step"] == 7
    assert "damaged" in warnings[0]
    assert "previous.pt" in warnings[1]
    assert "step 7" in warnings[1]


def test_nothing_saved_yet_is_no_error_and_nothing_intact_is(tmp_path):
    last, previous = tmp_path / "last.pt", tmp_path / "previous.pt"
    assert checkpoint.load_last(last, previous) == (None, [])
    last.write_bytes(b"x")
    previous.write_bytes(b"y")
    with pytest.raises(ResumeError, match="begin the run again"):
        checkpoint.load_last(last, previous)


def test_a_failed_write_leaves_the_old_checkpoint_and_no_rubbish(tmp_path, content, monkeypatch):
    path = tmp_path / "last.pt"
    checkpoint.save(path, content)
    intact = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CheckpointError, match=r"No space left on device.*dlrun resume"):
        checkpoint.save(path, content, previous=tmp_path / "previous.pt")
    assert path.read_bytes() == intact
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.pt", "previous.pt"]


def test_an_unknown_format_is_refused(tmp_path, content):
    checkpoint.save(tmp_path / "last.pt", {**content, "format": 99})
    with pytest.raises(CheckpointError, match="format 99"):
        checkpoint.load(tmp_path / "last.pt")
