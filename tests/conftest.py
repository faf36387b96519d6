"""What every test relies on: the same environment wherever it runs."""

import functools
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

# Two test processes with two threads each on two cores wait for one another, and tests compute on little. Set before
# torch is imported; programs that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
for name in ("DLRUN_DEBUG", "HYDRA_FULL_ERROR"):
    os.environ.pop(name, None)


def unwatched(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` without the coverage of lines, which has libraries written in Python take thrice as long."""

    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        tracer = sys.gettrace()
        sys.settrace(None)
        try:
            return function(*arguments, **options)
        finally:
            sys.settrace(tracer)

    return call


if sys.gettrace() is not None:  # coverage is on; Hydra composes a thousand times, and calls nothing of dlrun meanwhile
    from hydra._internal.hydra import Hydra

    Hydra.compose_config = unwatched(Hydra.compose_config)
    Hydra.create_main_hydra2 = staticmethod(unwatched(Hydra.create_main_hydra2))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests marked `gpu` need a CUDA device."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")


@pytest.fixture(autouse=True)
def modules_of_a_test_end_with_it(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Folders that --config-dir adds to the search path, and modules from there, which others have by the same name."""
    path, known, temporary = sys.path[:], set(sys.modules), str(tmp_path_factory.getbasetemp().parent)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - known:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(temporary):
            del sys.modules[name]
