"""What loads torch faster leaves the garbage collector as it was, and only where torch is yet to be loaded."""

import subprocess
import sys
from pathlib import Path

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
