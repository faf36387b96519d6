"""What comes before torch is loaded: the garbage collector is left as it was, and huge pages are asked for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

IN_A_FRESH_PROCESS = """
import gc, sys, types
from dlrun.startup import loading

with loading():
    assert not gc.isenabled()
    sys.modules["torch"] = types.ModuleType("torch")
    made = []
    made.append(made)
assert gc.isenabled()
frozen = gc.get_freeze_count()
assert frozen > 1000
with loading():  # torch is there: the garbage of a run that came before it must not be kept for ever
    assert gc.isenabled()
assert gc.get_freeze_count() == frozen

del sys.modules["torch"]
gc.disable()
with loading():
    pass
assert not gc.isenabled()
try:
    gc.enable()
    with loading():
        raise ImportError
except ImportError:
    assert gc.isenabled()
"""


def test_nothing_is_collected_while_torch_is_loaded_and_all_is_as_before_afterwards():
    done = subprocess.run(
        [sys.executable, "-c", IN_A_FRESH_PROCESS], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("own", [None, "0", ""])
def test_torch_is_told_to_use_huge_pages_unless_the_user_has_said_what_it_is_to_do(own: str | None):
    environment = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
    if own is not None:
        environment["THP_MEM_ALLOC_ENABLE"] = own
    code = "import sys, dlrun, os; assert 'torch' not in sys.modules; print(os.environ['THP_MEM_ALLOC_ENABLE'])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == ("1" if own is None else own)
