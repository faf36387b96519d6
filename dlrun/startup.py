"""What makes a command start sooner: nothing here has any influence on what it does."""

import atexit
import gc
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
