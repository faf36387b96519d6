"""Memory that a step has freed is there for the next one, without asking the system."""

import platform
import subprocess
import sys

import pytest

# 64 MiB is above every threshold that glibc chooses for itself, so by default each round maps and faults it in anew.
COUNT = """
import resource
import torch
from dlrun.engine.heap import keep_freed_memory
{change}
for _ in range(30):  # until there is room for every alignment
    torch.ones(1 << 24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(1 << 24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(change: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", COUNT.format(change=change)], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left alone")
def test_large_tensors_are_not_fetched_from_the_system_again():
    assert page_faults("assert keep_freed_memory() and keep_freed_memory()") < 10
    assert page_faults("") > 300  # 10 x 16384 pages of 4 kB, or 10 x 32 of 2 MB


def test_other_libraries_are_left_alone(monkeypatch):
    from dlrun.engine.heap import keep_freed_memory

    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert keep_freed_memory.__wrapped__() is False
