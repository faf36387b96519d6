"""Times and sizes as people write them."""

import pytest

from dlrun.errors import ConfigError
from dlrun.sweeps.units import byte_count, seconds_of


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("1.5h", 5400), ("30m", 1800), (2, 2), (None, None)])
def test_times(text: str | int | None, seconds: float | None):
    assert seconds_of(text, "key") == seconds


@pytest.mark.parametrize(("text", "count"), [("2GB", 2 << 30), ("800mb", 800 << 20), ("3G", 3 << 30), (7, 7)])
def test_sizes(text: str | int, count: int):
    assert byte_count(text, "key") == count


@pytest.mark.parametrize("text", ["", "m", "0", "-1s", "3 weeks", "1..5m", "1GBB"])
def test_what_is_neither_is_refused(text: str):
    with pytest.raises(ConfigError, match="key must be a time"):
        seconds_of(text, "key")
