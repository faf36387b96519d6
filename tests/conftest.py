"""What every test relies on: the same environment wherever it runs."""

import os

import pytest

# Two test processes with two threads each on two cores wait for one another, and tests compute on little. Set before
# torch is imported; programs that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
for name in ("DLRUN_DEBUG", "HYDRA_FULL_ERROR"):
    os.environ.pop(name, None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests marked `gpu` need a CUDA device."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")
