"""What is seen of a step's doings on the host; what becomes of it is in test_capture.py."""

import warnings

import pytest
import torch

from dlrun.engine.host import waits

CUDA = torch.device("cuda")
SAID = "called a synchronizing CUDA operation (Triggered internally at c10/cuda/CUDAFunctions.cpp:149.)"


@pytest.fixture
def mode(monkeypatch):
    """torch.cuda's debug mode without a device: what has been set, last the mode now."""
    modes = [2]
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: modes[-1])

    def change(mode):
        warnings.warn("Synchronization debug mode is a prototype feature and does not yet detect all", stacklevel=1)
        modes.append(mode)

    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", change)
    return modes


def test_waits_are_found_and_the_mode_is_what_it_was(mode):
    with waits(CUDA) as found:
        assert mode[-1] == "warn"
        for _ in range(3):
            warnings.warn(SAID, stacklevel=1)
    assert mode[-1] == 2
    assert len(found) == 3
    assert all(where.startswith(__file__) for where in found)


def test_a_step_that_fails_leaves_the_mode_as_it_was(mode):
    with pytest.raises(ZeroDivisionError), waits(CUDA):
        raise ZeroDivisionError
    assert mode[-1] == 2


def test_other_warnings_come_through_once(mode):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        with waits(CUDA) as found:
            for _ in range(3):
                warnings.warn("a thing is deprecated", FutureWarning, stacklevel=1)
    assert not found
    assert [(str(one.message), one.category) for one in caught] == [("a thing is deprecated", FutureWarning)]


def test_without_a_gpu_nothing_is_asked():
    with waits(torch.device("cpu")) as found:
        pass
    assert not found
