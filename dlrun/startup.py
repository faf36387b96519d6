"""What comes before torch is loaded, for speed: nothing here has any influence on what a command does."""

import atexit
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading() -> Iterator[None]:
    """Import torch, and what builds on it, without looking for garbage meanwhile, or in the modules ever again.

    A million objects are made and none is thrown away: going over them costs a tenth of the time, and once more, when
    the process ends, as much as a fifth. What has been imported before is left as it is.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        atexit.register(gc.freeze)


def use_huge_pages() -> None:
    """Let torch, when it is loaded, ask Linux for pages of 2 MiB for the tensors that are larger; a user's word wins.

    A processor has the addresses of a few megabytes at hand in pages of 4 KiB, and a batch is gathered from all over
    the data: from 170 MB it takes a fifth less time so. Smaller tensors are left as they are, and so are other systems.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
